"""Durations and moments as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from conpet.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def seconds_of(text: str, name: str) -> float:
    """Return the seconds of a duration: 90d, 12h, 1.5h, 30m, 52w, 1y (365 days).

    Args:
        text: The duration.
        name: What it is, for the error.

    Raises:
        ConfigError: It is no duration.
    """
    try:
        seconds = float(text.strip()[:-1]) * _UNITS[text.strip()[-1:].lower()]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"{name}: {text!r} is no duration; give a number and s, m, h, d, w or y (365 days), for example 90d"
        )
    return seconds


def days_of(text: str, name: str) -> timedelta:
    """Return a duration of whole days: 365d, 52w, 1y.

    Args:
        text: The duration.
        name: What it is, for the error.

    Raises:
        ConfigError: It is no duration, or not one of whole days.
    """
    seconds = seconds_of(text, name)
    if seconds % _UNITS["d"]:
        raise ConfigError(f"{name}: {text!r} is not a whole number of days; give, for example, 365d, 52w or 1y")
    ago(text, name)
    return timedelta(seconds=seconds)


def ago(text: str, name: str) -> datetime:
    """Return the moment that lies a duration before now.

    Args:
        text: The duration.
        name: What it is, for the error.

    Raises:
        ConfigError: It is no duration, or longer than the calendar.
    """
    try:
        return datetime.now(UTC) - timedelta(seconds=seconds_of(text, name))
    except OverflowError:
        raise ConfigError(f"{name}: {text!r} is too long; give, for example, 365d") from None


def moment_of(text: str, name: str) -> datetime:
    """Return the moment that a text means: a time or a day in ISO 8601, else UTC, or a duration before now.

    Args:
        text: 2026-11-29, 2026-11-29T10:00, or a duration like 7d.
        name: What it is, for the error.

    Raises:
        ConfigError: It is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is not None:
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return ago(text, name)
    except ConfigError:
        raise ConfigError(
            f"{name}: {text!r} is no time; give a day or a time (2026-11-29, 2026-11-29T10:00), or a duration like 7d"
        ) from None
