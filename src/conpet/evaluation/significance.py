"""Tests of paired answers: has the accuracy on the same examples fallen by more than a margin?

Of n examples, `lost` were answered right before and wrong after, and `gained` the other way round, so that the
accuracy falls by (lost - gained) / n. The p-values are exact for the rate of gains that is likeliest at the margin.
With a margin of 0 they are close to those of McNemar's test.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt

import numpy as np


def worse_p(n: int, lost: int, gained: int, margin: float, chance: float | None = None) -> float:
    """Return the one-sided p-value against "the accuracy falls by at most `margin`"; small if it falls by more.

    Args:
        n: Number of examples, 1 or more.
        lost: Number that were answered right before and wrong after.
        gained: Number that were answered wrong before and right after.
        margin: The fall that is accepted, 0 to 1.
        chance: The rate of gains among many more examples, 0 to 1: few examples alone do not show how many answers
            change by chance, and a test without it would miss large falls. None to estimate it from these examples.
    """
    rate = _gain_rate(n, lost, gained, margin)
    if chance is not None:
        rate = min(rate, max(chance, (gained + 1) / n))
    return _tail(n, lost - gained, margin, rate, upper=True)


def no_worse_p(n: int, lost: int, gained: int, margin: float) -> float:
    """Return the one-sided p-value against "the accuracy falls by `margin` or more"; small if it falls by less.

    This is a test of non-inferiority. Arguments as in `worse_p`; the rate of gains is estimated from these examples.
    """
    return _tail(n, lost - gained, margin, _gain_rate(n, lost, gained, margin), upper=False)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values with Holm's step-down correction for multiple tests; None (not tested) is not counted.

    The k-th smallest of m p-values is multiplied by m - k + 1, kept ascending, and limited to 1.
    """
    ascending = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for before, (p, place) in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - before) * p))
        corrected[place] = largest
    return corrected


def _gain_rate(n: int, lost: int, gained: int, margin: float) -> float:
    """Return the likeliest rate of gained examples if the accuracy falls by exactly `margin` (Tango 1998).

    It maximises lost log(q + margin) + gained log(q) + (n - lost - gained) log(1 - 2 q - margin) over q.
    """
    a = 2 * n
    b = (lost + gained) - (2 * n - lost + gained) * margin
    c = -gained * margin * (1 - margin)
    rate = (b + sqrt(max(0.0, b * b - 4 * a * c))) / (2 * a)
    return min(max(rate, 0.0), (1 - margin) / 2)


@lru_cache(maxsize=4096)
def _tail(n: int, difference: int, margin: float, gain_rate: float, *, upper: bool) -> float:
    """Return the probability that lost - gained is at least (or at most) `difference`, given both rates."""
    loss_rate = gain_rate + margin
    size = 1 << (2 * n).bit_length()  # at least 2 n + 1
    frequencies = np.exp(2j * np.pi * np.arange(size) / size)
    # The distribution of a sum of n changes of -1, 0 or 1, from its characteristic function.
    one = (1 - loss_rate - gain_rate) + loss_rate * frequencies + gain_rate / frequencies
    probabilities = np.fft.fft(one**n).real / size
    ordered = np.roll(probabilities, n)[: 2 * n + 1]  # from -n to n
    kept = ordered[difference + n :] if upper else ordered[: difference + n + 1]
    return float(np.clip(kept.sum(), 0.0, 1.0))
