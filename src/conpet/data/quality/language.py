"""Rows in another language or script than the rest, by scripts and by function words; conservative on short texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import Row

_MOSTLY = 0.8
"""Least share of the rows in the usual script or language, and of the letters of a row in one script."""
_LEAST_LETTERS = 3
_LEAST_WORDS = 3
"""Fewest function words of another language in a row, none of them in the usual one."""
_SCRIPTS = {
    "LATIN": "Latin",
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari",
    "BENGALI": "Bengali",
    "TAMIL": "Tamil",
    "THAI": "Thai",
    "HANGUL": "Hangul",
    "HIRAGANA": "Japanese or Chinese",
    "KATAKANA": "Japanese or Chinese",
    "CJK": "Japanese or Chinese",
}
_FUNCTION_WORDS = {
    "English": "the and is to of you my what how are for on this with can do it have",
    "German": "der die das und ist nicht ich wie mit für ein eine auf wann kann mein meine den zu",
    "French": "le la les et est je vous ne pas pour une des que dans mon ma comment du avec",
    "Spanish": "el los las y es que de una por para mi como con está cómo qué no mis",
    "Italian": "il gli e è che di una per non con sono mio mia come della quando posso",
    "Portuguese": "o os as e é que de uma para não com meu minha como da quando posso você",
    "Dutch": "de het een en is niet ik hoe met voor op van mijn wanneer kan wat je",
    "Polish": "i w na nie się jest jak czy do że mój moja kiedy mogę z",
    "Swedish": "och är det en att inte jag hur med för på min när kan ett",
    "Turkish": "ve bir bu için nasıl ne mi mı ile benim var nerede zaman",
}
_WORDS: dict[str, list[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _WORDS.setdefault(_word, []).append(_language)


def find_other_languages(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield a finding for each row in another script than most rows, or in another language of the same script."""
    scripts = [script_of(row.example.content) for row in rows]
    usual = _usual(scripts)
    if usual is None:
        return
    words = [
        _languages(row.example.content) if script == "Latin" else Counter[str]()
        for row, script in zip(rows, scripts, strict=True)
    ]
    language = _usual([_best(counts) for counts in words])
    for row, script, counts in zip(rows, scripts, words, strict=True):
        if script not in (None, usual):
            yield Finding("language", f"is in {script} script; most rows are in {usual} script", row)
        elif language and not counts.get(language) and (other := _best(counts, _LEAST_WORDS)):
            yield Finding("language", f"is probably in {other}; most rows are in {language}", row)


def script_of(text: str) -> str | None:
    """Return the script of most letters of a text, or None if it has few letters or is mixed."""
    if text.isascii():
        return "Latin" if sum(map(str.isalpha, text)) >= _LEAST_LETTERS else None
    counts = Counter(script for character in text if (script := _script(character)))
    total = counts.total()
    if total < _LEAST_LETTERS:
        return None
    script, most = counts.most_common(1)[0]
    return script if most >= _MOSTLY * total else None


def _usual(found: Sequence[str | None]) -> str | None:
    """Return the value of at least `_MOSTLY` of those that are known, or None."""
    counts = Counter(value for value in found if value is not None)
    if not counts:
        return None
    value, most = counts.most_common(1)[0]
    return value if most >= _MOSTLY * counts.total() else None


def _languages(text: str) -> Counter[str]:
    """Count the function words of each language in a text."""
    return Counter(language for word in text.casefold().split() for language in _WORDS.get(word.strip(".,;:!?¿¡"), ()))


def _best(counts: Counter[str], least: int = 1) -> str | None:
    """Return the language with the most function words, if it has at least `least` and more than any other."""
    ranked = counts.most_common(2)
    if not ranked or ranked[0][1] < least or (len(ranked) > 1 and ranked[1][1] == ranked[0][1]):
        return None
    return ranked[0][0]


@cache
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    first = unicodedata.name(character, "").split(" ", 1)[0]
    if first in ("FULLWIDTH", "HALFWIDTH"):
        return None
    return _SCRIPTS.get(first, first.capitalize() or None)
