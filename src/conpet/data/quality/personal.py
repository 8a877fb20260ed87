"""Personal data: e-mail addresses, phone numbers, card numbers, IBANs, IP addresses. Values never leave this file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import Row
from conpet.errors import plural

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[a-z]{2,24}\b", re.IGNORECASE)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?\b")
_CARD = re.compile(r"(?<![\d.,-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\d-])")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{1,4})(?![\w:]|\.\d)", re.IGNORECASE
)
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}[ .\-/]?(?:\(\d{1,5}\)[ .\-/]?)?\d{1,5}(?:[ .\-/]?\d{2,5}){1,4}"  # international
    r"|\(\d{2,5}\)[ .\-/]?\d{3,5}(?:[ .\-/]\d{2,5}){0,2}"  # area code in brackets
    r"|[2-9]\d{2}[.\-][2-9]\d{2}[.\-]\d{4}"  # North America
    r"|0\d{1,4}[ \-/]\d{3,5}(?:[ \-/]?\d{2,5}){0,3}"  # national, with trunk prefix
    r")(?![\w-])"
)
_DIGITS = range(8, 16)
_IBAN_LENGTHS = range(15, 35)
_CARD_LENGTHS = (13, 14, 15, 16, 19)


def find_personal_data(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield a finding for each row with personal data; its message gives kinds and numbers only."""
    for row in rows:
        if counts := personal_data(row.example.content):
            found = " and ".join(plural(count, name) for name, count in counts.items())
            yield Finding("personal-data", f"contains {found}", row)


def personal_data(text: str) -> Counter[str]:
    """Count the pieces of personal data in a text, by kind."""
    return Counter(kind for kind, _, _ in _spans(text))


def masked(text: str) -> str:
    """Return a text with each piece of personal data replaced by its kind in square brackets."""
    for kind, start, end in sorted(_spans(text), key=lambda span: span[1], reverse=True):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def _spans(text: str) -> list[tuple[str, int, int]]:
    if "@" not in text and not any(character.isdigit() for character in text):
        return []
    found: list[tuple[str, int, int]] = []
    for kind, pattern, sound in (
        ("e-mail address", _EMAIL, None),
        ("IBAN", _IBAN, is_iban),
        ("card number", _CARD, is_card_number),
        ("IP address", _IP, _is_ip),
        ("phone number", _PHONE, _is_phone),
    ):
        for match in pattern.finditer(text):
            start, end = match.span()
            taken = any(start < other_end and other_start < end for _, other_start, other_end in found)
            if not taken and (sound is None or sound(match[0])):
                found.append((kind, start, end))
    return found


def is_card_number(text: str) -> bool:
    """Return whether digits, perhaps with blanks or hyphens, have the length and check digit of a card number."""
    digits = [int(character) for character in text if character.isdigit()]
    if len(digits) not in _CARD_LENGTHS or len(set(digits)) == 1:
        return False
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def is_iban(text: str) -> bool:
    """Return whether a text has the length and check digits (ISO 7064, mod 97) of an IBAN."""
    joined = text.replace(" ", "")
    if len(joined) not in _IBAN_LENGTHS:
        return False
    return int("".join(str(int(character, 36)) for character in joined[4:] + joined[:4])) % 97 == 1


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_phone(text: str) -> bool:
    return sum(character.isdigit() for character in text) in _DIGITS
