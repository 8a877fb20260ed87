"""Means with intervals over few runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev

STUDENT_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Two-sided 95% quantiles of Student's t by number of runs."""


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Return mean, deviation and the half-width of the 95% interval over runs (the mean alone for one run)."""
    if len(values) < 2:
        return {"mean": values[0]}
    deviation = stdev(values)
    return {
        "mean": mean(values),
        "deviation": deviation,
        "interval_95": STUDENT_95[len(values)] * deviation / sqrt(len(values)),
    }
