"""The cost of operations, by stage.

`metered()` starts an operation. Its meter counts all computation in the same context (thread or asyncio task), but not
that of other threads. Outside an operation nothing is counted.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from pathlib import Path

BACKWARD = 2
"""A backward pass counts as this many forward passes: one for the gradients of inputs, one for those of weights.

This is the usual count. With frozen weights the true cost is lower, so it is an upper bound."""


@dataclass(slots=True)
class Meter:
    """Counts the computation of an operation.

    Attributes:
        tokens: Tokens passed forward through the backbone, each weighted by the share of the layers it passed.
        cached_tokens: Tokens whose prefix states came from the cache instead, weighted in the same way.
        trained_tokens: Tokens among `tokens` that also had a backward pass.
        module_tokens: Tokens among `tokens` that passed the layers above the cut, with a module or without.
        steps: Optimiser steps.
        cache_hits: Examples whose prefix states were found in the cache.
        cache_lookups: Examples whose prefix states were looked up in the cache.
        output_hits: Outputs of modules that were found in memory.
        output_lookups: Outputs of modules that were looked up in memory.
        seconds: Wall time of interrupted attempts whose work a checkpoint saved (see `resumed`).
        resumed: The part of all counts that interrupted attempts spent, and that need not be spent again.
    """

    tokens: float = 0.0
    cached_tokens: float = 0.0
    trained_tokens: float = 0.0
    module_tokens: float = 0.0
    steps: int = 0
    cache_hits: int = 0
    cache_lookups: int = 0
    output_hits: int = 0
    output_lookups: int = 0
    seconds: float = 0.0
    resumed: Meter | None = None

    @property
    def equivalents(self) -> float:
        """The total in tokens through the whole backbone; the same on every machine and with any cache.

        A backward pass counts as two forward passes, and cached states as if they were computed.
        """
        return self.tokens + self.cached_tokens + BACKWARD * self.trained_tokens

    @property
    def hit_rate(self) -> float:
        """Share of the cache lookups that were hits, 0 to 1; 0 before the first lookup."""
        return self.cache_hits / self.cache_lookups if self.cache_lookups else 0.0

    def add(self, other: Meter) -> None:
        """Add the counts of another meter."""
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.resumed is not None:
            self.resumed = self.resumed or Meter()
            self.resumed.add(other.resumed)

    def resume(self, saved: Meter) -> None:
        """Add what interrupted attempts spent on work that is now resumed."""
        self.add(Meter(resumed=saved))
        self.add(saved)

    def since(self, earlier: Meter) -> Meter:
        """Return the counts added after a copy of this meter was made."""
        return Meter(**{name: getattr(self, name) - getattr(earlier, name) for name in _COUNTERS})


_COUNTERS = tuple(counter.name for counter in fields(Meter) if counter.name != "resumed")


LOST = "lost"
"""The stage of what interrupted attempts spent and no later attempt could use."""

RESUMED = "resumed"
"""Name of the cost of work that was resumed."""

_meter: ContextVar[Meter | None] = ContextVar("conpet_meter", default=None)


def meter() -> Meter:
    """Return the meter of the current operation, or an unused new one outside any operation."""
    return _meter.get() or Meter()


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the computation of the current context until the block ends.

    Operations may be nested: an inner one is added to the outer one when it ends. A thread started in an operation is
    counted only if it runs in a copy of the context (`contextvars.copy_context().run`). Do not yield from a generator
    inside the block: the caller's computation would be counted.

    Example:
        >>> with metered() as costs:
        ...     meter().tokens += 3
        >>> costs.tokens
        3.0
    """
    inner, outer = Meter(), _meter.get()
    token = _meter.set(inner)
    try:
        yield inner
    finally:
        _meter.reset(token)
        if outer is not None:
            outer.add(inner)


@dataclass(frozen=True, slots=True)
class StageCost:
    """Cost of one stage of learning; see `Meter` for the units of tokens.

    Attributes:
        stage: Name of the stage.
        seconds: Wall time.
        tokens: See `Meter`.
        cached_tokens: See `Meter`.
        steps: Optimiser steps.
        peak_bytes: Highest memory use of the whole process, with all its threads, during the stage; 0 if not measured.
        cpu_seconds: Processor time of the whole process, with all its threads, during the stage.
        trained_tokens: See `Meter`.
        module_tokens: See `Meter`.
    """

    stage: str
    seconds: float
    tokens: int
    cached_tokens: int
    steps: int
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    trained_tokens: int = 0
    module_tokens: int = 0

    def share(self, part: float) -> StageCost:
        """Return a share of the cost, 0 to 1, to charge one task of a batch, or -1 to subtract it.

        Peak memory is not divided.
        """
        return StageCost(
            self.stage,
            self.seconds * part,
            round(self.tokens * part),
            round(self.cached_tokens * part),
            round(self.steps * part),
            self.peak_bytes,
            self.cpu_seconds * part,
            round(self.trained_tokens * part),
            round(self.module_tokens * part),
        )

    @property
    def equivalents(self) -> int:
        """The total in tokens through the whole backbone, as in `Meter`."""
        return self.tokens + self.cached_tokens + BACKWARD * self.trained_tokens


@dataclass(slots=True)
class CostLedger:
    """Collects the costs of the stages of one event.

    Attributes:
        stages: The costs so far, in order.
        resumed: The part of them that interrupted attempts spent.
    """

    stages: list[StageCost] = field(default_factory=list)
    resumed: StageCost = field(default_factory=lambda: StageCost(RESUMED, 0.0, 0, 0, 0))
    _running: tuple[Callable[[], StageCost], Meter] | None = None
    """Returns the cost of the running stage up to this moment, and its meter."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the computation inside the block to a stage."""
        started, used = time.perf_counter(), time.process_time()
        with metered() as spent, peak_memory() as peak:

            def so_far() -> StageCost:
                seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
                return stage_cost(name, spent, seconds, peak(), cpu_seconds)

            self._running = so_far, spent
            try:
                yield
            finally:
                self.stages.append(so_far())
                self.resumed = self.resumed_so_far()
                self._running = None

    def so_far(self) -> StageCost:
        """Return the costs up to this moment; takes as long as reading the peak memory."""
        return total_cost("all", [*self.stages, *([self._running[0]()] if self._running else [])])

    def resumed_so_far(self) -> StageCost:
        """Return the part of the costs that interrupted attempts spent; cheap enough for every step of a training."""
        if self._running is None or self._running[1].resumed is None:
            return self.resumed
        return total_cost(RESUMED, [self.resumed, stage_cost(RESUMED, self._running[1].resumed)])


@dataclass(frozen=True, slots=True)
class Resources:
    """What was used up; see `Meter` for the units of tokens.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time, over all cores.
        gpu_seconds: Wall time for which an accelerator was held.
        frozen_tokens: Tokens computed by the layers below the cut.
        module_tokens: Tokens computed by the layers above the cut.
        trained_tokens: Tokens among `module_tokens` that also had a backward pass.
        cached_tokens: Tokens of the layers below the cut that came from the cache.
        steps: Optimiser steps.
        bytes_added: Size of the objects written.
        minutes: Working time of people, in minutes.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    frozen_tokens: int = 0
    module_tokens: int = 0
    trained_tokens: int = 0
    cached_tokens: int = 0
    steps: int = 0
    bytes_added: int = 0
    minutes: float = 0.0

    @classmethod
    def of(cls, cost: StageCost, *, gpu: bool, bytes_added: int = 0) -> Resources:
        """Return the resources of a measured cost."""
        return cls(
            seconds=cost.seconds,
            cpu_seconds=cost.cpu_seconds,
            gpu_seconds=cost.seconds if gpu else 0.0,
            frozen_tokens=cost.tokens - cost.module_tokens,
            module_tokens=cost.module_tokens,
            trained_tokens=cost.trained_tokens,
            cached_tokens=cost.cached_tokens,
            steps=cost.steps,
            bytes_added=bytes_added,
        )

    def __add__(self, other: Resources) -> Resources:
        return Resources(**{name: getattr(self, name) + getattr(other, name) for name in RESOURCES})


RESOURCES = tuple(one.name for one in fields(Resources))
"""Names of all resources."""


def total_cost(name: str, costs: Iterable[StageCost]) -> StageCost:
    """Return the sum of costs; of peak memory, the highest."""
    rows = list(costs)
    return StageCost(
        name,
        sum(row.seconds for row in rows),
        sum(row.tokens for row in rows),
        sum(row.cached_tokens for row in rows),
        sum(row.steps for row in rows),
        max((row.peak_bytes for row in rows), default=0),
        sum(row.cpu_seconds for row in rows),
        sum(row.trained_tokens for row in rows),
        sum(row.module_tokens for row in rows),
    )


def difference(name: str, costs: Iterable[StageCost], less: Iterable[StageCost]) -> StageCost:
    """Return the sum of costs without that of others, nowhere below 0, and without peak memory."""
    left = total_cost(name, [*costs, *(cost.share(-1) for cost in less)])
    values = {one.name: max(0, getattr(left, one.name)) for one in fields(StageCost) if one.name != "stage"}
    return StageCost(**{**values, "stage": name, "peak_bytes": 0})


def stage_cost(
    name: str, spent: Meter, seconds: float = 0.0, peak_bytes: int = 0, cpu_seconds: float = 0.0
) -> StageCost:
    """Return the cost of a stage from what was metered in it."""
    return StageCost(
        name,
        seconds + spent.seconds,
        round(spent.tokens),
        round(spent.cached_tokens),
        spent.steps,
        peak_bytes,
        cpu_seconds,
        round(spent.trained_tokens),
        round(spent.module_tokens),
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """What an operation has taken.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Its part of the processor time of the process, with all threads.
    """

    seconds: float
    cpu_seconds: float


class _ProcessorTime:
    """Divides the processor time of the process equally among the operations that run at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: dict[object, float] = {}
        self._last = 0.0

    def begin(self, key: object) -> None:
        with self._lock:
            self._divide()
            self._shares[key] = 0.0

    def so_far(self, key: object) -> float:
        with self._lock:
            self._divide()
            return self._shares.get(key, 0.0)

    def end(self, key: object) -> float:
        with self._lock:
            self._divide()
            return self._shares.pop(key, 0.0)

    def renew(self) -> None:
        """Forget the operations of the process that this one was forked from."""
        self._lock = threading.Lock()
        self._shares = {}

    def _divide(self) -> None:
        now = time.process_time()
        for key in self._shares:
            self._shares[key] += (now - self._last) / len(self._shares)
        self._last = now


_processor_time = _ProcessorTime()
"""Global, because the system counts processor time for each process."""
os.register_at_fork(after_in_child=_processor_time.renew)


@contextmanager
def spending() -> Iterator[Callable[[], Spent]]:
    """Measure the time of an operation. Do not nest operations: they would share the processor time.

    Yields:
        A function that returns the time so far, and after the block the whole time.
    """
    key, started = object(), time.perf_counter()
    whole: Spent | None = None
    _processor_time.begin(key)
    try:
        yield lambda: whole or Spent(time.perf_counter() - started, _processor_time.so_far(key))
    finally:
        whole = Spent(time.perf_counter() - started, _processor_time.end(key))


_PROCESS = Path("/proc/self")
_running: dict[object, list[int]] = {}
"""The high-water marks read in each running measurement. Global, because Linux keeps one mark for each process.

Threads share it without a lock, by atomic operations on the dictionary and its lists, so it also survives a fork."""


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Measure the highest memory use of the process, with all its threads, while the block runs.

    Linux keeps a high-water mark for each process (`VmHWM`). It is reset to the present use when the block begins,
    after the former mark is saved for measurements running in other threads. Takes about 50 microseconds.

    Yields:
        A function that returns the peak so far, in bytes; 0 if the platform cannot measure it.
    """
    key = object()
    marks: list[int] = []
    before = _high_water_mark()
    for other_marks in tuple(_running.values()):
        other_marks.append(before)
    measurable = before > 0 and _reset_high_water_mark()

    def peak() -> int:
        return max(*marks, _high_water_mark(), 0) if measurable else 0

    _running[key] = marks
    try:
        yield peak
    finally:
        del _running[key]


def _high_water_mark() -> int:
    """Return the highest memory use since the last reset of the mark, in bytes; 0 if the system does not report it."""
    try:
        match = re.search(rb"VmHWM:\s*(\d+) kB", (_PROCESS / "status").read_bytes())
    except OSError:
        return 0
    return 1024 * int(match[1]) if match else 0


def _reset_high_water_mark() -> bool:
    """Reset the mark to the present memory use; return whether the system allows it."""
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
