"""What an operation costs: counted per operation, and by stage.

`metered()` starts an operation. Whatever is computed in it, in the same context (thread or asyncio task), is counted in
its meter; what other threads compute meanwhile is not. Outside of an operation nothing is counted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from pathlib import Path

BACKWARD = 2
"""Forward passes that a backward pass counts as: one for the gradients of inputs, one for those of weights.

That is the usual count; with frozen weights it is less in truth, so this is a bound."""


@dataclass(slots=True)
class Meter:
    """Counts what is computed in an operation.

    Attributes:
        tokens: Tokens that went through the backbone forwards, each weighted by the share of the layers it passed.
        cached_tokens: Tokens whose prefix states came from the cache instead, weighted alike.
        trained_tokens: Those of `tokens` that gradients were carried back through as well.
        steps: Optimiser steps.
        cache_hits: Examples whose prefix states the cache had.
        cache_lookups: Examples whose prefix states were looked up in the cache.
    """

    tokens: float = 0.0
    cached_tokens: float = 0.0
    trained_tokens: float = 0.0
    steps: int = 0
    cache_hits: int = 0
    cache_lookups: int = 0

    @property
    def equivalents(self) -> float:
        """Tokens through the whole backbone that all of this is worth, on whatever machine and with whatever cache.

        A backward pass counts as two forward passes, and states from the cache as if they had been computed.
        """
        return self.tokens + self.cached_tokens + BACKWARD * self.trained_tokens

    @property
    def hit_rate(self) -> float:
        """Share of the lookups that the cache could answer, 0 to 1; 0 before the first lookup."""
        return self.cache_hits / self.cache_lookups if self.cache_lookups else 0.0

    def add(self, other: Meter) -> None:
        """Add the counts of another meter."""
        for counter in fields(self):
            setattr(self, counter.name, getattr(self, counter.name) + getattr(other, counter.name))


_meter: ContextVar[Meter | None] = ContextVar("conpet_meter", default=None)


def meter() -> Meter:
    """Return the meter of the current operation, or outside of any operation a new one that nobody reads."""
    return _meter.get() or Meter()


@contextmanager
def metered() -> Iterator[Meter]:
    """Count what the current context computes until the block ends.

    Operations may be nested: at its end an inner one is added to the outer one. A thread that is started in an
    operation counts there only if it runs in a copy of the context (`contextvars.copy_context().run`). Do not yield
    from a generator inside the block: the caller's work would be counted.

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
        peak_bytes: Most memory that the process held during the stage, other threads' included; 0: not measured.
    """

    stage: str
    seconds: float
    tokens: int
    cached_tokens: int
    steps: int
    peak_bytes: int = 0

    def share(self, part: float) -> StageCost:
        """Return a share of it, 0 to 1: what one of several tasks learned together is charged. Memory is not shared."""
        return StageCost(
            self.stage,
            self.seconds * part,
            round(self.tokens * part),
            round(self.cached_tokens * part),
            round(self.steps * part),
            self.peak_bytes,
        )


@dataclass(slots=True)
class CostLedger:
    """Collects the cost of the stages of one event.

    Attributes:
        stages: What was collected, in order.
    """

    stages: list[StageCost] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge what happens inside to a stage."""
        started = time.perf_counter()
        with metered() as spent, peak_memory() as peak:
            try:
                yield
            finally:
                self.stages.append(
                    StageCost(
                        name,
                        time.perf_counter() - started,
                        round(spent.tokens),
                        round(spent.cached_tokens),
                        spent.steps,
                        peak(),
                    )
                )


_PROCESS = Path("/proc/self")
_running: dict[object, list[int]] = {}
"""For each interval being measured, the high-water marks read in it. Per process, because Linux keeps one mark for it.

Only single operations on the dictionary and its lists, no lock: so threads may share it, and a fork finds it usable."""


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Measure the most memory that the process holds while the block runs, all of its threads together.

    Linux keeps a high-water mark for each process (`VmHWM`). It is set back to what is held now when the block begins;
    blocks of other threads that are running then keep what the mark was before. Takes some 50 microseconds.

    Yields:
        A function that returns the peak so far, in bytes; 0 where the platform does not let it be measured.
    """
    me = object()
    marks: list[int] = []
    before = _high_water_mark()
    for others in tuple(_running.values()):
        others.append(before)
    measurable = before > 0 and _reset_high_water_mark()

    def peak() -> int:
        return max(*marks, _high_water_mark(), 0) if measurable else 0

    _running[me] = marks
    try:
        yield peak
    finally:
        del _running[me]


def _high_water_mark() -> int:
    """Return the most memory held since the mark was last set back, in bytes; 0 where the system does not tell."""
    try:
        found = re.search(rb"VmHWM:\s*(\d+) kB", (_PROCESS / "status").read_bytes())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def _reset_high_water_mark() -> bool:
    """Set the mark back to what is held now; tell whether the system lets us."""
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
