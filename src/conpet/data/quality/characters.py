"""Invisible, control and broken characters, Unicode forms, and needless blanks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from conpet.data.example import Example
from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import Row

_KEPT_CONTROLS = "\t\n\r"
_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: part of the spelling in Persian and in Indic scripts, and of many emoji."""
_BROKEN = "\ufffd"
_MOJIBAKE = re.compile(r"[ÂÃ][\u0080-\u00bf]|â€[™œ\u009d“”˜¦]|ï¿½")
"""UTF-8 that was read as Latin-1 or Windows-1252."""
_ODD_BLANK = re.compile(r"[^\S \t\n\r\u3000]")
_RUN = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]{2,}")
_COMPATIBLE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d\ufb00-\ufb06\U0001d400-\U0001d7ff]")
"""Full-width letters and digits, half-width katakana, Latin ligatures, mathematical letters."""
_ASCII = re.compile(r"[\t\n\r -~]*")


def find_characters(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield findings on the characters of each row, each with the row as the fix would change it."""
    for row in rows:
        yield from _in_row(row)


def cleaned(example: Example) -> Example:
    """Return an example as the fix changes it: no invisible and control characters, NFC, no needless blanks."""
    return _mapped(example, lambda text: _without_blanks(_composed(without_invisible(text))))


def without_invisible(text: str) -> str:
    """Return a text without control and zero-width characters, except those that belong to the spelling."""
    if _ASCII.fullmatch(text):
        return text
    return "".join(character for at, character in enumerate(text) if not _is_invisible(text, at))


def _in_row(row: Row) -> Iterator[Finding]:
    """Findings of one row; each fix includes those before it."""
    strings = [row.example.text, *row.example.tokens]
    whole = cleaned(row.example)
    if all(_ASCII.fullmatch(text) for text in strings) and whole == row.example:
        return
    invisible = sum(_is_invisible(text, at) for text in strings for at in range(len(text)))
    if invisible:
        names = sorted({_name(text[at]) for text in strings for at in range(len(text)) if _is_invisible(text, at)})
        yield Finding(
            "characters",
            f"{invisible} invisible or control character{'s' * (invisible > 1)}: {', '.join(names)}",
            row,
            becomes=whole,
            fix="invisible characters removed",
        )
    broken = sum(text.count(_BROKEN) + len(_MOJIBAKE.findall(text)) for text in strings)
    if broken:
        yield Finding("characters", "text that was decoded with the wrong encoding, or damaged", row)
    if any(unicodedata.normalize("NFC", text) != text for text in strings):
        yield Finding("unicode", "is not in NFC: letters and accents are separate", row, becomes=whole, fix="composed")
    elif any(map(_COMPATIBLE.search, strings)):
        yield Finding("unicode", "has full-width, half-width or joined letters (they change in NFKC)", row)
    bare = [without_invisible(text) for text in strings]
    if any(_without_blanks(text) != text for text in bare):
        yield Finding(
            "blanks", "has blanks at its ends, repeated or of an unusual kind", row, becomes=whole, fix="removed"
        )


def _mapped(example: Example, change: Callable[[str], str]) -> Example:
    """Change all strings of an example. The number of tokens stays the same, because spans count them."""
    return replace(example, text=change(example.text), tokens=tuple(map(change, example.tokens)))


def _is_invisible(text: str, at: int) -> bool:
    character = text[at]
    category = unicodedata.category(character)
    if category == "Cc":
        return character not in _KEPT_CONTROLS
    if category != "Cf":
        return False
    if character in _JOINERS:
        return not (_takes_joiners(text[at - 1 : at]) or _takes_joiners(text[at + 1 : at + 2]))
    return not 0xE0020 <= ord(character) <= 0xE007F  # tags: flags of regions


def _takes_joiners(neighbour: str) -> bool:
    """Return whether joiners next to a character belong to the spelling: not next to ASCII, Latin, Greek, Cyrillic."""
    return bool(neighbour) and ord(neighbour) > 0x052F and unicodedata.category(neighbour)[0] not in "ZC"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_blanks(text: str) -> str:
    if _ASCII.fullmatch(text) and "  " not in text and text == text.strip():
        return text
    return _RUN.sub(" ", _ODD_BLANK.sub(" ", text)).strip()


def _name(character: str) -> str:
    return f"U+{ord(character):04X}"
