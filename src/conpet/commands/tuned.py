"""Backbones tuned by consolidations, for workspaces that would all train the same one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from conpet.artifact import Artifact
from conpet.cost import Meter, meter, metered


@dataclass(frozen=True, slots=True)
class _Tuned:
    """A trained module with the cost of its training."""

    module: Artifact
    steps: int
    spent: Meter
    seconds: float
    cpu_seconds: float


@dataclass(slots=True)
class TunedBackbones:
    """Trains the module of a consolidation once for the same examples, settings and seed.

    Whoever takes one over is charged its passes, as if it had trained it.

    Attributes:
        seconds_saved: Wall time of the trainings that were not repeated.
        cpu_seconds_saved: Processor time of these.
    """

    seconds_saved: float = 0.0
    cpu_seconds_saved: float = 0.0
    _kept: dict[str, _Tuned] = field(default_factory=dict)

    def trained(self, key: str, train: Callable[[], tuple[Artifact, int]]) -> tuple[Artifact, int]:
        """Return the module with this key and its number of steps; train it at the first call."""
        if (kept := self._kept.get(key)) is not None:
            meter().add(kept.spent)
            self.seconds_saved += kept.seconds
            self.cpu_seconds_saved += kept.cpu_seconds
            return kept.module, kept.steps
        wall, cpu = time.perf_counter(), time.process_time()
        with metered() as spent:
            module, steps = train()
        self._kept[key] = _Tuned(module, steps, spent, time.perf_counter() - wall, time.process_time() - cpu)
        return module, steps
