"""Values that take long to compute, for those who cannot wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Computed(Generic[Value]):
    """A value, and when its computation began."""

    value: Value
    time: datetime


class Background(Generic[Value]):
    """Keeps the last value, which is there at once, and computes the next in a thread when somebody asks.

    Args:
        compute: Computes the value.
        fresh_seconds: Age from which a value is computed anew.
    """

    def __init__(self, compute: Callable[[], Value], fresh_seconds: float) -> None:
        self._compute = compute
        self._fresh = timedelta(seconds=fresh_seconds)
        self._changed = threading.Condition()
        self._last: Computed[Value] | None = None
        self._error: Exception | None = None
        self._busy = False

    def latest(self, wait_seconds: float = 0.0, since: datetime | None = None) -> Computed[Value] | None:
        """Return the last value, and begin to compute the next if it is not fresh; None if there is none yet.

        Args:
            wait_seconds: Most seconds to wait for a value if there is none.
            since: Only a value whose computation began at this time or later.

        Raises:
            Exception: The last computation failed; the next call begins another.
        """
        with self._changed:
            self._raise()
            last = self._wanted(since)
            if not self._busy and (last is None or datetime.now(UTC) - last.time > self._fresh):
                self._busy = True
                threading.Thread(target=self._work, name="conpet-background", daemon=True).start()
            if last is None:
                self._changed.wait_for(lambda: not self._busy, wait_seconds)
                self._raise()
                last = self._wanted(since)
            return last

    def _raise(self) -> None:
        if (error := self._error) is not None:
            self._error = None
            raise error

    def _wanted(self, since: datetime | None) -> Computed[Value] | None:
        return self._last if self._last is not None and (since is None or self._last.time >= since) else None

    def _work(self) -> None:
        began = datetime.now(UTC)
        computed: Computed[Value] | None = None
        error: Exception | None = None
        try:
            computed = Computed(self._compute(), began)
        except Exception as failed:  # noqa: BLE001 - whoever asks next gets it
            error = failed
        with self._changed:
            self._last, self._error, self._busy = computed or self._last, error, False
            self._changed.notify_all()
