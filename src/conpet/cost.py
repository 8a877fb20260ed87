"""What learning cost, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BACKWARD = 2
"""Forward passes that a backward pass counts as: one for the gradients of inputs, one for those of weights.

That is the usual count; with frozen weights it is less in truth, so this is a bound."""


@dataclass(slots=True)
class Meter:
    """Counts what a backbone computes.

    Attributes:
        tokens: Tokens that went through the backbone forwards, each weighted by the share of the layers it passed.
        cached_tokens: Tokens whose prefix states came from the cache instead, weighted alike.
        trained_tokens: Those of `tokens` that gradients were carried back through as well.
        steps: Optimiser steps.
    """

    tokens: float = 0.0
    cached_tokens: float = 0.0
    trained_tokens: float = 0.0
    steps: int = 0

    @property
    def equivalents(self) -> float:
        """Tokens through the whole backbone that all of this is worth, on whatever machine and with whatever cache.

        A backward pass counts as two forward passes, and states from the cache as if they had been computed.
        """
        return self.tokens + self.cached_tokens + BACKWARD * self.trained_tokens


@dataclass(frozen=True, slots=True)
class StageCost:
    """Cost of one stage of learning; see `Meter` for the units of tokens. `seconds` is wall time."""

    stage: str
    seconds: float
    tokens: int
    cached_tokens: int
    steps: int

    def share(self, part: float) -> StageCost:
        """Return a share of it, 0 to 1: what one of several tasks learned together is charged."""
        return StageCost(
            self.stage,
            self.seconds * part,
            round(self.tokens * part),
            round(self.cached_tokens * part),
            round(self.steps * part),
        )


@dataclass(slots=True)
class CostLedger:
    """Collects the cost of the stages of one event.

    Attributes:
        meter: The meter of the backbone in use.
        stages: What was collected, in order.
    """

    meter: Meter
    stages: list[StageCost] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge what happens inside to a stage."""
        started = time.perf_counter()
        before = (self.meter.tokens, self.meter.cached_tokens, self.meter.steps)
        try:
            yield
        finally:
            tokens, cached, steps = self.meter.tokens, self.meter.cached_tokens, self.meter.steps
            self.stages.append(
                StageCost(
                    name,
                    time.perf_counter() - started,
                    round(tokens - before[0]),
                    round(cached - before[1]),
                    steps - before[2],
                )
            )
