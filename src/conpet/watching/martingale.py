"""Sequential tests of exchangeability: conformal p-values, and martingales that bet against them.

If the order of a sequence does not matter (nothing changes), the rank of each observation among those before it gives
p-values that are independent and uniform (Vovk et al. 2005). A bet on them with a density `f`, `int f(p) dp = 1`,
multiplies a capital that begins with 1 by `f(p)`. By Ville's inequality the capital ever reaches `1 / alpha` with
probability `alpha` at most, however long one watches (Vovk et al. 2021, "Retrain or not retrain", arXiv 2102.10439).

Here a density has two values, below and above a cut. The capital is divided over several densities, and over starts: a
part in proportion to `1 / (j log(j)^2)` waits until start j. So what bets lost before a change hardly delays the alarm
after it.

What can be found is limited by the number of observations before the change, because the later ones are compared with
all before them: after a change they become the rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lgamma

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BLOCK = 25
"""Inputs between looks at the capital. Bets do not change within a block."""
_CHUNK = 1024
"""Observations that are compared with each other at once."""
_MERGED = 4096
"""Observations after which they are merged with the earlier ones."""
_TAILS = (
    *((0.02, 1.5), (0.05, 1.4), (0.1, 1.3), (0.25, 1.2), (0.5, 1.1)),  # small changes
    *((0.02, 3.0), (0.05, 2.5), (0.1, 2.0), (0.25, 1.6), (0.5, 1.3)),  # large ones
)
"""Cuts of the densities for scores, and their value on the outer side."""
_ODDS = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)
"""Factors of the odds of a share that the densities for shares bet on."""
_ERROR_ODDS = (1.25, 1.5, 2.0, 3.0, 5.0)
"""Factors of the odds of an error that the densities for errors bet on."""
_START_EVERY = 4
"""Blocks between starts of bets."""
_DATING = 0.1
"""What a block must gain to count towards the beginning of a change: chance alone may gain a little for long."""
_HALVINGS = 60
"""Steps of a bisection; more would not change a float."""
_PARTS = 2.1098
"""Sum of `1 / (j log(j)^2)` over j from 2, rounded up."""


class Ranks:
    """Conformal p-values of scores: the rank of each among all before it; ties are broken at random.

    Args:
        former: Scores before the first.
    """

    def __init__(self, former: Array) -> None:
        self._sorted = np.sort(np.asarray(former, dtype=np.float64))
        self._recent = np.empty(0)  # sorted too, and merged from time to time

    def p_values(self, scores: Array, draws: Array) -> Array:
        """Return the p-value of each score, small for low scores, and remember the scores.

        Args:
            scores: Scores `[n]`, in order.
            draws: Uniform random numbers `[n]`.
        """
        parts = [self._chunk(scores[at : at + _CHUNK], draws[at : at + _CHUNK]) for at in range(0, len(scores), _CHUNK)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _chunk(self, scores: Array, draws: Array) -> Array:
        below, up_to = np.zeros(len(scores)), np.zeros(len(scores))
        for former in (self._sorted, self._recent):
            below += np.searchsorted(former, scores, "left")
            up_to += np.searchsorted(former, scores, "right")
        equal = up_to - below
        column, row = scores[:, None], scores[None, :]
        below += np.tril(row < column, -1).sum(axis=1)
        equal += np.tril(row == column).sum(axis=1)
        total = len(self._sorted) + len(self._recent) + np.arange(1, len(scores) + 1)
        self._recent = np.sort(np.concatenate([self._recent, scores]), kind="stable")
        if len(self._recent) > _MERGED:
            self._sorted = np.sort(np.concatenate([self._sorted, self._recent]), kind="stable")
            self._recent = np.empty(0)
        p_values: Array = (below + draws * equal) / total
        return p_values


class Shares:
    """Conformal p-values of events that happen or not, for several kinds of events at once.

    Args:
        happened: How often each kind of event happened before `[S]`.
        total: In how many inputs.
    """

    def __init__(self, happened: Array, total: int) -> None:
        self._happened = np.asarray(happened, dtype=np.float64)
        self._total = total

    @property
    def expected(self) -> Array:
        """The share of each kind of event so far `[S]`, above 0 and below 1."""
        return (self._happened + 0.5) / (self._total + 1)

    def p_values(self, events: NDArray[np.bool_], draws: Array) -> Array:
        """Return p-values `[n, S]`, small where an event happened, and remember the events.

        Args:
            events: Whether each event happened at each input `[n, S]`, in order.
            draws: Uniform random numbers `[n, S]`.
        """
        happened = self._happened + np.cumsum(events, axis=0)
        edge = happened / (self._total + np.arange(1, len(events) + 1))[:, None]
        self._happened, self._total = self._happened + events.sum(axis=0), self._total + len(events)
        return np.where(events, draws * edge, edge + draws * (1 - edge))


@dataclass
class Martingales:
    """The capital of tests that run side by side, each with its own threshold.

    Attributes:
        thresholds: The capital at which each test raises an alarm `[S]`: 1 / the probability of a false alarm.
        bets: Number of densities.
        blocks: Blocks so far.
        capital: Logarithm of the capital of each test `[S]`.
        highest: The highest value that it had `[S]`.
        alarm: The block in which each test raised an alarm, or -1 `[S]`.
        since: The block in which what it found probably began; -1 before an alarm `[S]`.
    """

    thresholds: Array
    bets: int
    blocks: int = 0
    capital: Array = field(init=False)
    highest: Array = field(init=False)
    alarm: NDArray[np.int64] = field(init=False)
    since: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        tests = len(self.thresholds)
        self.capital, self.highest = np.zeros(tests), np.zeros(tests)
        self.alarm, self.since = np.full(tests, -1), np.full(tests, -1)
        self._bets = np.full((tests, self.bets), -np.inf)  # logarithm of what was bet so far
        self._recent = np.zeros((tests, self.bets))  # logarithm of the gain since the best start
        self._start = np.zeros((tests, self.bets), dtype=np.int64)
        self._waiting = 1.0  # part of the capital that is in no bet yet

    def add(self, gains: Array) -> None:
        """Add a block.

        Args:
            gains: Logarithm of the factor that each density gives `[S, bets]`.
        """
        self.blocks += 1
        fresh = self._recent <= 0
        self._start[fresh] = self.blocks - 1
        self._recent = np.where(fresh, 0.0, self._recent) + gains - _DATING
        if self.blocks % _START_EVERY == 1:
            number = self.blocks // _START_EVERY + 2
            part = 1 / (_PARTS * number * np.log(number) ** 2)
            self._waiting -= part
            self._bets = np.logaddexp(self._bets, np.log(part / self.bets))
        self._bets = self._bets + gains
        self.capital = np.logaddexp(np.logaddexp.reduce(self._bets, axis=1), np.log(self._waiting))
        self.highest = np.maximum(self.highest, self.capital)
        for test in np.flatnonzero((self.alarm < 0) & (self.capital >= np.log(self.thresholds))):
            self.alarm[test] = self.blocks - 1
            self.since[test] = self._start[test, self._bets[test].argmax()]


SCORE_BETS = 2 * len(_TAILS)
SHARE_BETS = len(_ODDS)
ERROR_BETS = len(_ERROR_ODDS)


def score_gains(p_values: Array) -> Array:
    """Return what bets on lower, and on higher, scores than before gain in a block `[1, SCORE_BETS]`, as logarithms.

    Args:
        p_values: P-values of the block `[n]`.
    """
    cuts, outer = (np.array(values) for values in zip(*_TAILS, strict=True))
    inner = (1 - cuts * outer) / (1 - cuts)
    sides = []
    for values in (p_values, 1 - p_values):
        inside = (values[:, None] < cuts).sum(axis=0)
        sides.append(inside * np.log(outer) + (len(values) - inside) * np.log(inner))
    return np.concatenate(sides)[None, :]


def share_gains(p_values: Array, expected: Array) -> Array:
    """Return what bets on larger, and on smaller, shares gain in a block `[S, SHARE_BETS]`, as logarithms.

    Args:
        p_values: P-values of the block `[n, S]`.
        expected: The shares before the block `[S]`, as `Shares.expected`.
    """
    share = expected[:, None]
    odds = np.array(_ODDS) * share / (1 - share)
    wanted = odds / (1 + odds)
    inside = (p_values < expected).sum(axis=0)[:, None]
    gains: Array = inside * np.log(wanted / share) + (len(p_values) - inside) * np.log((1 - wanted) / (1 - share))
    return gains


def error_gains(errors: int, n: int, limit: float) -> Array:
    """Return what bets on a higher error rate gain in a block `[1, ERROR_BETS]`, as logarithms.

    A factor is the likelihood ratio of a higher rate against `limit`. Its mean is at most 1 as long as the probability
    of each error, given all before it, is at most `limit`; so Ville's inequality holds without any assumption on how
    the errors depend on each other.

    Args:
        errors: Number of wrong answers in the block.
        n: Number of answers in it.
        limit: The highest error rate without a change, above 0 and below 1.
    """
    odds = np.array(_ERROR_ODDS) * limit / (1 - limit)
    wanted = odds / (1 + odds)
    gains: Array = errors * np.log(wanted / limit) + (n - errors) * np.log((1 - wanted) / (1 - limit))
    return gains[None, :]


def highest_rate(errors: int, n: int, doubt: float) -> float:
    """Return the upper confidence limit of an error rate (Clopper and Pearson 1934).

    Args:
        errors: Number of errors.
        n: Number of independent examples, 1 or more.
        doubt: Probability that the true rate is higher, above 0 and below 1.
    """
    if errors >= n:
        return 1.0
    terms = np.array([lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for k in range(errors + 1)])
    counts = np.arange(errors + 1)
    low, high = errors / n, 1.0
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        # The probability of as few errors falls as the rate rises.
        as_few = np.exp(terms + counts * np.log(rate) + (n - counts) * np.log1p(-rate)).sum()
        low, high = (rate, high) if as_few > doubt else (low, rate)
    return high
