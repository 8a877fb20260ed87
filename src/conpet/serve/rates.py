"""Rate limits: token buckets by caller."""

from __future__ import annotations

import time
from collections import OrderedDict

_CALLERS = 10_000
"""Most callers remembered; the one seen longest ago is forgotten first."""


class RateLimiter:
    """A token bucket for each caller. Used by one thread.

    Args:
        rate: Requests a second.
        burst: Requests at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Count a request; return 0 if it is within the rate, otherwise the seconds until it would be."""
        left, now = self._left(caller), time.monotonic()
        admitted = left >= 1
        self._buckets[caller] = (left - 1 if admitted else left, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if admitted else (1 - left) / self._rate

    def exhausted(self, caller: str) -> float:
        """Return the seconds until a caller may call again, without counting a request."""
        return max(0.0, (1 - self._left(caller)) / self._rate)

    def _left(self, caller: str) -> float:
        left, then = self._buckets.get(caller, (float(self._burst), 0.0))
        return min(self._burst, left + (time.monotonic() - then) * self._rate)
