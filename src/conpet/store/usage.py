"""Answers given by this process, added up in memory and written to the ledger once a minute and at the end."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from conpet.cost import Meter, Resources, Spent
from conpet.store.ledger import CostKind, CostSource, Ledger, LedgerEntry, hour_of
from conpet.types import Prediction

FLUSH_SECONDS = 60.0
"""Time between two writes: a kill hides about this much at most."""


@dataclass(slots=True)
class _Sum:
    """What answers of one generation have cost in an hour."""

    suffix_share: float
    answers: int = 0
    resources: Resources = field(default_factory=Resources)
    tasks: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)


class Usage:
    """Counts the answers of one process. Threads may share it; a forked process starts at zero.

    Args:
        ledger: The workspace's ledger.
        source: Where the answers are given.
    """

    def __init__(self, ledger: Ledger, source: CostSource) -> None:
        self._ledger = ledger
        self._source = source
        self._sums: dict[tuple[datetime, int], _Sum] = {}
        self._renew()

    def answered(self, predictions: Iterable[Prediction]) -> None:
        """Count answers of a committed generation."""
        moment = hour_of(datetime.now(UTC))
        with self._locked():
            for one in predictions:
                if one.generation is not None:
                    found = self._sum(moment, one.generation)
                    found.answers += 1
                    found.tasks[one.task] += 1
                    found.decisions[one.decision] += 1

    def spent(self, generation: int, spent: Spent, meter: Meter, *, suffix_share: float, gpu: bool) -> None:
        """Count what answers have cost.

        Args:
            generation: The generation that gave them.
            spent: Time.
            meter: What was computed.
            suffix_share: See `LedgerEntry`.
            gpu: Whether it was computed by an accelerator.
        """
        resources = Resources(
            seconds=spent.seconds,
            cpu_seconds=spent.cpu_seconds,
            gpu_seconds=spent.seconds if gpu else 0.0,
            frozen_tokens=round(meter.tokens - meter.module_tokens),
            module_tokens=round(meter.module_tokens),
            cached_tokens=round(meter.cached_tokens),
        )
        moment = hour_of(datetime.now(UTC))
        with self._locked():
            found = self._sum(moment, generation)
            found.suffix_share = suffix_share
            found.resources += resources

    @property
    def due(self) -> bool:
        """Whether nothing was written for a minute."""
        return time.monotonic() - self._flushed >= FLUSH_SECONDS

    @property
    def pending(self) -> bool:
        """Whether something was counted since the last write."""
        with self._locked():
            return bool(self._sums)

    def flush(self) -> None:
        """Write to the ledger what was counted since the last time."""
        with self._locked():
            sums = self._sums
            self._sums = {}
            self._flushed = time.monotonic()
        self._ledger.add_answers(
            [
                LedgerEntry(
                    hour,
                    CostKind.PREDICT,
                    "predict",
                    self._source,
                    generation=generation,
                    examples=one.answers,
                    resources=one.resources,
                    suffix_share=one.suffix_share,
                    tasks=dict(one.tasks),
                    decisions=dict(one.decisions),
                )
                for (hour, generation), one in sums.items()
            ]
        )

    def _sum(self, hour: datetime, generation: int) -> _Sum:
        key = hour, generation
        if key not in self._sums:
            self._sums[key] = _Sum(1.0)
        return self._sums[key]

    def _locked(self) -> threading.Lock:
        if os.getpid() != self._process:
            self._renew()
        return self._lock

    def _renew(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._sums = {}
        self._flushed = time.monotonic()
