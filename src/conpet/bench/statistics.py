"""Means over task orders, and tests of the difference between two learners.

The unit is the order of tasks: seeds of one order are averaged first, so n is the number of orders, and runs that
share an order are not treated as independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, sqrt
from statistics import mean, stdev
from typing import Any

import numpy as np

from conpet.errors import ConfigError

Key = tuple[int, int]
"""Order and seed of a run."""
FEWEST = 3
"""Fewest orders for intervals and tests; with two orders, they are too wide to be useful."""
MOST_FLIPPED = 20
"""Most orders for which all sign assignments are enumerated (half a million sums)."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean over orders.

    Attributes:
        mean: The mean.
        deviation: Sample deviation (n - 1); None for one order.
        half_width: Half of the 95% interval of Student's t; None below `FEWEST` orders.
        n: Number of orders.
    """

    mean: float
    deviation: float | None
    half_width: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference of two learners.

    Attributes:
        difference: Mean difference over the common orders; without an interval if `t_p` is None.
        t_p: Two-sided p-value of the paired t test; None below `FEWEST` orders, or for differences without spread.
        flip_p: Two-sided p-value of the exact sign-flip test; None below `FEWEST` orders or above `MOST_FLIPPED`.
    """

    difference: Summary
    t_p: float | None
    flip_p: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """A least-squares line.

    Attributes:
        intercept: Its value at 0.
        slope: Its slope.
        half_width: Half of the 95% interval of the slope; None if there are too few points.
    """

    intercept: float
    slope: float
    half_width: float | None

    def at(self, x: float) -> float:
        """Return the value at x."""
        return self.intercept + self.slope * x


def summarise(values: Sequence[float]) -> Summary:
    """Summarise values, one for each order.

    Raises:
        ConfigError: SciPy is not installed.
    """
    if len(values) == 1:
        return Summary(values[0], None, None, 1)
    deviation, n = stdev(values), len(values)
    half_width = _quantile(n - 1) * deviation / sqrt(n) if n >= FEWEST else None
    return Summary(mean(values), deviation, half_width, n)


def by_order(values: Mapping[Key, float]) -> dict[int, float]:
    """Return the mean over the seeds of each order, in ascending order."""
    seeds: dict[int, list[float]] = defaultdict(list)
    for (order, _), value in sorted(values.items()):
        seeds[order].append(value)
    return {order: mean(values_of_order) for order, values_of_order in seeds.items()}


def compare(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> Comparison | None:
    """Compare two learners on their common orders and seeds; None if there are none.

    Raises:
        ConfigError: SciPy is not installed.
    """
    differences = list(by_order({key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()}).values())
    if not differences:
        return None
    difference, t_p = summarise(differences), t_test(differences)
    if t_p is None:
        difference = replace(difference, half_width=None)
    return Comparison(difference, t_p, sign_flip_test(differences))


def t_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the paired t test, from the differences of the pairs.

    None below `FEWEST` differences, and if all differences are equal.
    """
    if len(differences) < FEWEST or (deviation := stdev(differences)) <= _rounding(differences):
        return None
    error = deviation / sqrt(len(differences))
    return 2 * float(_special().stdtr(len(differences) - 1, -abs(mean(differences)) / error))


def sign_flip_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the exact sign-flip test: the share of sign assignments with a sum as far from 0.

    The only assumption is that, without an effect, both signs of a difference are equally likely. The p-value is at
    least `flip_floor`, however large the differences.
    """
    if not FEWEST <= len(differences) <= MOST_FLIPPED:
        return None
    sums = np.array([differences[0]])  # by symmetry, half of the assignments is enough
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= abs(fsum(differences)) - _rounding(differences)))


def _rounding(differences: Sequence[float]) -> float:
    """Return a bound on the rounding error of sums of accuracy differences, far below one example."""
    return 1e-12 * max(1.0, fsum(map(abs, differences)))


def flip_floor(n: int) -> float:
    """Return the smallest p-value of a sign-flip test with n orders: 2 / 2^n."""
    return 2.0 ** (1 - n)


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """Fit a line to points; None if all have the same x.

    The interval assumes independent residuals of equal variance.

    Raises:
        ConfigError: SciPy is not installed.
    """
    middle, height = mean(x), mean(y)
    spread = fsum((a - middle) ** 2 for a in x)
    if not spread:
        return None
    slope = fsum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / spread
    intercept = height - slope * middle
    if len(x) == 2:
        return Line(intercept, slope, None)
    residual = fsum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    free = len(x) - 2
    return Line(intercept, slope, _quantile(free) * sqrt(residual / free / spread))


def mean_line(lines: Sequence[Line]) -> Line:
    """Return the mean line of several orders, with the interval of the slope over orders.

    A single line is returned unchanged; two orders give no interval (see `FEWEST`).

    Raises:
        ConfigError: SciPy is not installed.
    """
    if len(lines) == 1:
        return lines[0]
    slope = summarise([line.slope for line in lines])
    return Line(mean(line.intercept for line in lines), slope.mean, slope.half_width)


def _quantile(free: int) -> float:
    """Return the two-sided 95% quantile of Student's t."""
    return float(_special().stdtrit(free, 0.975))


def _special() -> Any:
    """Return SciPy's special functions, which load twice as fast as its distributions."""
    try:
        from scipy import special
    except ImportError:
        raise ConfigError("intervals and tests need SciPy: pip install 'conpet[bench]'") from None
    return special
