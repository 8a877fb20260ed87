"""Texts in the languages of the pages, from the catalogues in `locale/`."""

from __future__ import annotations

from functools import cache
from gettext import NullTranslations
from io import BytesIO
from pathlib import Path
from typing import Any

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations

LANGUAGES = {"en": "English", "ja": "日本語"}
"""Languages of the pages, by code, with their own names; the first is that of the messages in the code."""
CATALOGUES = Path(__file__).parent / "locale"
_NO_PREFERENCE = 0.0


def marked(message: str) -> str:
    """Mark a message for translation where the language is not known yet, and return it as it is."""
    return message


class Language:
    """A language of the pages.

    Args:
        code: One of `LANGUAGES`.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self.locale = Locale.parse(code)
        self.translations = _translations(code)

    @property
    def is_source(self) -> bool:
        """Whether it is the language of the messages in the code."""
        return self.code == next(iter(LANGUAGES))

    def gettext(self, message: str, **values: Any) -> str:
        """Return a message in this language, with values put in as in `"%(name)s" % values`."""
        return self.translations.gettext(message) % values

    def ngettext(self, one: str, many: str, number: int, **values: Any) -> str:
        """Return a message in its form for a number, which the message may show as `%(num)s`."""
        return self.translations.ngettext(one, many, number) % {"num": self.written(number), **values}

    def written(self, number: int) -> str:
        """Return a whole number as the language writes it."""
        return format_decimal(number, locale=self.locale)


@cache
def language(code: str) -> Language:
    """Return a language, read once."""
    return Language(code)


def chosen(cookie: str | None, accepted: str) -> Language:
    """Return the language to show.

    Args:
        cookie: The one chosen by hand, if any.
        accepted: The header `Accept-Language`.
    """
    if cookie in LANGUAGES:
        return language(cookie)
    wanted = sorted(map(_preference, accepted.split(",")), reverse=True)
    known = (code for weight, code in wanted if code in LANGUAGES and weight > _NO_PREFERENCE)
    return language(next(known, next(iter(LANGUAGES))))


def _preference(item: str) -> tuple[float, str]:
    """Return the weight and the language of a part of the header, for example `ja-JP;q=0.8`."""
    tag, _, weight = item.partition(";")
    try:
        parsed = float(weight.strip().removeprefix("q=")) if weight else 1.0
    except ValueError:
        parsed = _NO_PREFERENCE
    return parsed, tag.strip().partition("-")[0].lower()


def _translations(code: str) -> NullTranslations:
    """Return the translations of all catalogues of a language; messages that are not in them are shown as they are."""
    every: NullTranslations = NullTranslations()
    for file in sorted((CATALOGUES / code / "LC_MESSAGES").glob("*.po")):
        with file.open("rb") as stream:
            catalogue = read_po(stream, locale=code)
        compiled = BytesIO()
        write_mo(compiled, catalogue)
        compiled.seek(0)
        translations = Translations(compiled)
        translations.add_fallback(every)
        every = translations
    return every
