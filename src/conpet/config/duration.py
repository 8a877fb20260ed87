"""Durations as users write them."""

from __future__ import annotations

from conpet.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_of(text: str, name: str) -> float:
    """Return the seconds of a duration: 90d, 12h, 1.5h, 30m, 52w.

    Args:
        text: The duration.
        name: What it is, for the error.

    Raises:
        ConfigError: It is no duration.
    """
    try:
        seconds = float(text[:-1]) * _UNITS[text[-1:].lower()]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{name}: {text!r} is no duration; give a number and s, m, h, d or w, for example 90d")
    return seconds
