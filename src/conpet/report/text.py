"""Format numbers and names for readers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from conpet.errors import plural as plural

NONE = "–"
"""Shown instead of a missing value."""
LABEL_COLUMNS = 60
"""Longest label that is shown whole; the JSON always has the whole one."""
_LONG_QUOTED = re.compile(rf"(?<!\w)(['\"])((?:(?!\1)[^\n]){{{LABEL_COLUMNS + 1},}})\1(?!\w)")


def percent(fraction: float | None) -> str:
    """Format a fraction in percent: 0.8923 is "89.2%"."""
    return NONE if fraction is None else f"{100 * fraction:.1f}%"


def points(fraction: float | None) -> str:
    """Format a difference of fractions in signed percentage points: 0.014 is "+1.4", zero is "0.0"."""
    if fraction is None:
        return NONE
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def plain_points(fraction: float | None) -> str:
    """Format a fraction in percentage points, signed only where negative (forgetting)."""
    return NONE if fraction is None else points(fraction).removeprefix("+")


def count(number: float | None) -> str:
    """Format a whole number with thousands separators."""
    return NONE if number is None else f"{number:,.0f}"


def short_count(number: float | None) -> str:
    """Format a number with three digits and a unit: 134515008 is "135M"."""
    if number is None:
        return NONE
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= 0.9995 * size:
            return f"{_three_digits(number / size)}{unit}"
    return f"{number:.0f}"


def times(ratio: float | None) -> str:
    """Format a ratio: 3213.2 is "3,213×", below ten with one decimal."""
    return NONE if ratio is None else f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def size(number: int | None) -> str:
    """Format bytes in decimal units: 2400000 is "2.40 MB"."""
    if number is None:
        return NONE
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= 0.9995 * step:
            return f"{_three_digits(number / step)} {unit}"
    return f"{number} B"


def duration(seconds: float) -> str:
    """Format a time span: "0.42 s", "38 s", "6 min 12 s", "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds else "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def width(text: str) -> int:
    """Return the width of a text in terminal columns; East Asian characters take two."""
    return sum(_columns(character) for character in text)


def shorten(text: str, columns: int) -> str:
    """Return a text on one line of at most `columns` columns, ending in an ellipsis if cut."""
    line = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())
    if width(line) <= columns:
        return line
    kept, used = "", 1
    for character in line:
        used += _columns(character)
        if used > columns:
            break
        kept += character
    return kept.rstrip() + "…"


def label(name: str) -> str:
    """Return a label as it is shown to readers."""
    return shorten(name, LABEL_COLUMNS)


def with_short_labels(message: str) -> str:
    """Return a message in which labels in quotes are not longer than labels are shown."""
    return _LONG_QUOTED.sub(lambda quoted: f"{quoted[1]}{label(quoted[2])}{quoted[1]}", message)


def fitting(names: Sequence[str], columns: int) -> str:
    """Join as many names as fit into `columns`, at least one, with the number of the others."""
    shown: list[str] = []
    used = len(f" and {len(names):,} more")
    for place, name in enumerate(shorten(full_name, 30) for full_name in names):
        used += width(name) + 2
        if used > columns and place:
            return f"{', '.join(shown)} and {len(names) - place:,} more"
        shown.append(name)
    return ", ".join(shown)


def untested(tasks: Sequence[str]) -> str:
    """Say that tasks have no test examples to measure accuracy on."""
    if len(tasks) == 1:
        return f"no accuracy: task {tasks[0]} has no test examples"
    return f"no accuracy: {len(tasks):,} tasks have no test examples ({fitting(tasks, 60)})"


def calibration(error: float, overconfidence: float, bins: int) -> str:
    """Say how well scores agree with accuracy."""
    direction = "high" if overconfidence > 0 else "low"
    tendency = (
        f"scores are {plain_points(abs(overconfidence))} points too {direction} on average"
        if round(abs(overconfidence), 3)
        else "scores agree with the accuracy on average"
    )
    return f"expected calibration error {plain_points(error)} points ({bins} bins of equal width); {tendency}"


def p_value(value: float) -> str:
    """Format a p-value: 0.0312 is "0.031", and below a thousandth it is "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a fraction measured on `total` (at least 1) examples."""
    z = 1.959964
    share = correct / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _three_digits(number: float) -> str:
    decimals = 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    return f"{number:.{decimals}f}"
