"""Adaptive replay (ours): what is being forgotten is drawn more often, at the cost of dynamic replay."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle

from conpet.backbone.backbone import Backbone
from conpet.config import ScheduleConfig
from conpet.replay.dynamic import draw_uniformly
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Budget, Rehearsal

PROBE_SHARE = 1 / 8
"""Share of the old examples of all batches that are measured and not learned from."""
PROBES = 2
"""Probes of one task: few, so that each is looked at again soon."""
SMOOTHING = 0.5
"""Weight of a task's newest measurement in its smoothed fall."""
FLOOR = 0.1
"""Weight, in nats, of a task that was not forgotten at all: falls that are small beside it are taken for noise."""
EXPLORATION = 0.2
"""Share of the draws of tasks that stay uniform whatever was measured."""
UNIFORM_EXAMPLES = 0.5
"""Share of the draws within a task that stay uniform once all of its candidates were drawn."""


class AdaptiveReplay(Rehearsal):
    """Draws past tasks in proportion to how much they have been forgotten since this training began.

    The candidates are what `dynamic` would have drawn, so no more is read; a batch has as many examples as with
    `dynamic`, so no more is computed. Of each task up to `PROBES` candidates are held out as probes: they take their
    turns in `PROBE_SHARE` of the old places, are measured and never learned from.

    A probe's fall is its loss now minus its loss when it was first looked at; a task's fall F is the exponentially
    smoothed fall of its probes, not below 0. A task is drawn with probability
    `EXPLORATION / T + (1 - EXPLORATION) * (F + FLOOR) / sum of (F + FLOOR)`, so uniformly as long as nothing is
    forgotten. Within a task every candidate is drawn once before any is drawn again (drawing with replacement from what
    was drawn already would learn from a third fewer examples); from then on half of the draws go on in shuffled passes
    and half are in proportion to the loss an example had when it was last learned from.

    What is drawn depends on what was measured: deterministic for a seed, but not resumable in the middle of a task.
    """

    name = "adaptive"
    resumable = False

    def __init__(
        self, memory: Sequence[StoredExamples], backbone: Backbone, budget: Budget, config: ScheduleConfig
    ) -> None:
        draws = draw_uniformly(memory, Subset.TRAIN, budget.examples, budget.seed)
        super().__init__(memory, backbone, budget, config, draws)
        members: dict[str, list[int]] = {}
        for row, task in enumerate(self.tasks):
            members.setdefault(task, []).append(row)
        generator = random.Random(budget.seed)  # noqa: S311
        # A task keeps at least half of its candidates to learn from.
        probes = {task: generator.sample(rows, min(PROBES, len(rows) // 2)) for task, rows in members.items()}
        self._probes = frozenset(row for rows in probes.values() for row in rows)
        self._turns = cycle(_turns(list(probes.values())))
        self._candidates = {task: [row for row in rows if row not in self._probes] for task, rows in members.items()}
        self._passes = {task: _passes(rows, generator) for task, rows in self._candidates.items()}
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._falls = dict.fromkeys(members, 0.0)

    def rows(self, step: int, count: int) -> list[int]:
        """Return the step's probes, if it has any, and candidates for the rest."""
        places = PROBE_SHARE * self.budget.per_step
        probes = min(count, int((step + 1) * places) - int(step * places)) if self._probes else 0
        generator = random.Random(f"{self.budget.seed}|{step}")  # noqa: S311
        weights = self.task_weights()
        tasks = generator.choices(list(weights), list(weights.values()), k=count - probes)
        return [next(self._turns) for _ in range(probes)] + [self._draw(task, generator) for task in tasks]

    def observe(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Compare probes with their first look, and note the losses of the others."""
        for row, loss in zip(rows, losses, strict=True):
            if row not in self._probes:
                self._last[row] = max(0.0, loss)
            elif row not in self._first:
                self._first[row] = loss
            else:
                task = self.tasks[row]
                fall = loss - self._first[row]
                self._falls[task] += SMOOTHING * (fall - self._falls[task])

    def trained(self, rows: Sequence[int]) -> list[bool]:
        """Return which rows are no probes."""
        return [row not in self._probes for row in rows]

    def task_weights(self) -> dict[str, float]:
        """Return the probability with which each past task is drawn now."""
        weights = {task: max(0.0, fall) + FLOOR for task, fall in self._falls.items()}
        total = sum(weights.values())
        uniform = EXPLORATION / len(weights)
        return {task: uniform + (1 - EXPLORATION) * weight / total for task, weight in weights.items()}

    def _draw(self, task: str, generator: random.Random) -> int:
        rows = self._candidates[task]
        losses = [self._last.get(row) for row in rows]
        weights = [loss for loss in losses if loss is not None]
        if len(weights) < len(rows) or not sum(weights) or generator.random() < UNIFORM_EXAMPLES:
            return next(self._passes[task])
        return generator.choices(rows, weights)[0]


def _passes(rows: Sequence[int], generator: random.Random) -> Iterator[int]:
    """Go through rows again and again, each time in another order."""
    while True:
        yield from generator.sample(rows, len(rows))


def _turns(probes: Sequence[Sequence[int]]) -> list[int]:
    """Return the order in which probes are looked at: each task's first, then each task's second, ..."""
    return [rows[turn] for turn in range(PROBES) for rows in probes if turn < len(rows)]
