"""Numbers, times and amounts as a language writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from babel.dates import format_date, format_datetime, format_skeleton, format_timedelta
from babel.numbers import format_currency, format_decimal, format_percent
from babel.units import format_unit
from markupsafe import Markup

from conpet.dashboard.messages import Language
from conpet.report.text import NONE

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024.0
_LEAST_AMOUNT = 0.0001
"""The smallest amount of money that is shown as it is."""
_SECOND = 10.0
"""Durations below so many seconds are shown with decimals."""


class Formats:
    """Formats values for a language; missing ones are shown as a dash.

    Args:
        language: The language.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._locale = language.locale

    @property
    def filters(self) -> dict[str, Callable[..., Any]]:
        """The formats, by their names in templates."""
        names = ("number", "percent", "points", "money", "moment", "day", "duration", "size")
        return {name: getattr(self, name) for name in names}

    def number(self, value: float | None, digits: int = 0) -> str:
        """Return a number with so many decimals."""
        if value is None:
            return NONE
        return format_decimal(value, _pattern(digits), locale=self._locale)

    def percent(self, fraction: float | None, digits: int = 1) -> str:
        """Return a fraction in percent."""
        if fraction is None:
            return NONE
        return format_percent(fraction, f"{_pattern(digits)}%", locale=self._locale)

    def points(self, fraction: float | None) -> str:
        """Return a difference of fractions in signed points."""
        if fraction is None:
            return NONE
        rounded = round(100 * fraction, 1)
        shown = format_decimal(abs(rounded), "0.0", locale=self._locale)
        return f"+{shown}" if rounded > 0 else f"−{shown}" if rounded < 0 else shown

    def money(self, amount: float | None, currency: str) -> str:
        """Return an amount of money; small ones with more decimals."""
        if amount is None:
            return NONE
        if 0 < abs(amount) < _LEAST_AMOUNT / 2:
            return f"<{self.money(_LEAST_AMOUNT, currency)}"
        small = 0 < abs(amount) < 1
        pattern = "¤#,##0.0000" if small else None
        return format_currency(amount, currency, pattern, locale=self._locale, currency_digits=not small)

    def moment(self, when: datetime | None) -> str | Markup:
        """Return a time in UTC; the browser shows it in its own time zone if it runs scripts."""
        if when is None:
            return NONE
        when = when.astimezone(UTC)
        shown = format_datetime(when, "medium", locale=self._locale)
        return Markup('<time datetime="{}" data-local>{} UTC</time>').format(when.isoformat(timespec="seconds"), shown)

    def day(self, when: date | None) -> str:
        """Return a day."""
        return NONE if when is None else format_date(when, "medium", locale=self._locale)

    def short_day(self, when: date) -> str:
        """Return a day without its year."""
        return format_skeleton("MMMd", when, locale=self._locale)

    def duration(self, seconds: float | None) -> str:
        """Return a length of time in its largest unit."""
        if seconds is None:
            return NONE
        if seconds < 1:
            return self._unit(1000 * seconds, "duration-millisecond", "short", 0)
        if seconds < _SECOND:
            return self._unit(seconds, "duration-second", "long", 1)
        return format_timedelta(timedelta(seconds=seconds), threshold=1.5, locale=self._locale)

    def _unit(self, value: float, unit: str, length: Literal["short", "long"], digits: int) -> str:
        return format_unit(value, unit, length, _pattern(digits), self._locale)

    def size(self, bytes_: float | None) -> str:
        """Return a number of bytes in its largest unit."""
        if bytes_ is None:
            return NONE
        value, unit = float(bytes_), 0
        while value >= _STEP and unit < len(_UNITS) - 1:
            value, unit = value / _STEP, unit + 1
        return f"{self.number(value, 1 if unit and value < _STEP / 10 else 0)} {_UNITS[unit]}"


def _pattern(digits: int) -> str:
    return "#,##0" + (f".{'0' * digits}" if digits else "")
