"""Text encodings: found by the byte order mark, guessed for messages."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache

MARKS: Mapping[bytes, str] = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, the longer ones before those they begin with, with the codec that reads and drops them."""
_WESTERN = set("àâäáãåæçèéêëìíîïñòóôöõøùúûüýßœÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØÙÚÛÜŒ“”‘’„‚–—…€«»¿¡°·£§®©™•")
_CENTRAL = set("áäâăąćčçďđéěęëíîłĺľňńóöőôŕřšśşťţúůüűýžźżßÁÄÂĂĄĆČÇĎĐÉĚĘËÍÎŁĹĽŇŃÓÖŐÔŔŘŠŚŞŤŢÚŮÜŰÝŽŹŻ“”‘’„‚–—…€«»°")
_LATIN = ("cp1252", "cp1250")
_KANA = ("cp932", "euc_jp")


def encoding_of(head: bytes) -> str | None:
    """Return the encoding that a byte order mark at the beginning of a file stands for, or None."""
    return next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), None)


def likely_encoding(data: bytes) -> str | None:
    """Return the most likely encoding of text that is not UTF-8, or None if none is likely.

    A guess for messages: files are read in it only if the user says so.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.count(0) > len(data) // 10:
        return "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    shares = {encoding: _share(data, encoding, usual) for encoding, usual in _USUAL.items()}
    best = max(shares, key=lambda encoding: shares[encoding])
    return best if shares[best] > 0.6 else None


def _share(data: bytes, encoding: str, usual: Callable[[str], bool]) -> float:
    """Return the share of characters outside ASCII that are usual in texts of an encoding; 0 if it does not fit."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        # The sample may end within a character.
        if error.start < len(data) - 4:
            return 0.0
        text = data[: error.start].decode(encoding)
    runs = re.findall(r"[^\x00-\x7f]+", text)
    foreign = "".join(runs)
    # Letters outside ASCII stand alone in the Latin alphabet, in whole words in other scripts.
    if not runs or (len(foreign) < 2 * len(runs)) != (encoding in _LATIN):
        return 0.0
    if encoding in _KANA and sum("\u3040" <= character <= "\u30ff" for character in foreign) < len(foreign) / 5:
        return 0.0
    return sum(map(usual, foreign)) / len(foreign)


def _japanese(character: str) -> bool:
    return "\u3000" <= character <= "\u30ff" or (_first_byte(character, "euc_jp") or 0xFF) <= 0xCF


def _korean(character: str) -> bool:
    return "\uac00" <= character <= "\ud7a3" and _first_byte(character, "euc_kr") is not None


def _chinese(encoding: str, last: int) -> Callable[[str], bool]:
    """Return whether a character is among the frequent ones, which the character set lists first."""

    def usual(character: str) -> bool:
        byte = _first_byte(character, encoding)
        return byte is not None and 0xA1 <= byte <= last

    return usual


@cache
def _first_byte(character: str, encoding: str) -> int | None:
    try:
        return character.encode(encoding)[0]
    except UnicodeEncodeError:
        return None


def _cyrillic(character: str) -> bool:
    return "а" <= character <= "я" or character in "ёіїєў«»—“”№"


def _lower_greek(character: str) -> bool:
    return unicodedata.name(character, "").startswith("GREEK SMALL LETTER")


_USUAL: Mapping[str, Callable[[str], bool]] = {
    "cp1252": _WESTERN.__contains__,
    "cp1250": _CENTRAL.__contains__,
    "cp1251": _cyrillic,
    "koi8_r": _cyrillic,
    "cp1253": _lower_greek,
    "cp932": _japanese,
    "euc_jp": _japanese,
    "cp949": _korean,
    "gb18030": _chinese("gb2312", 0xD7),
    "big5": _chinese("big5", 0xC6),
}
"""Encodings with the characters usual in them; of equally likely ones, the first counts."""
