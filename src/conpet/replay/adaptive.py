"""Adaptive replay (ours): draws tasks that are being forgotten more often, at the cost of dynamic replay."""

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
"""Share of the old examples in all batches that are only measured, not learned from."""
PROBES = 2
"""Probes per task: few, so that each is measured again soon."""
SMOOTHING = 0.5
"""Weight of the newest measurement in a task's smoothed rise of the loss."""
FLOOR = 0.1
"""Weight, in nats, of a task that was not forgotten: much smaller rises of the loss hardly count."""
EXPLORATION = 0.2
"""Share of the draws of tasks that is always uniform."""
UNIFORM_EXAMPLES = 0.5
"""Share of the draws within a task that remains uniform after all its candidates were drawn once."""


class AdaptiveReplay(Rehearsal):
    """Draws past tasks in proportion to how much they have been forgotten since this training began.

    The candidates are the draws of `dynamic`, so no more examples are read; batches are as large as with `dynamic`, so
    no more is computed. For each task up to `PROBES` candidates are held out as probes: they take turns in
    `PROBE_SHARE` of the old places of the batches, and are measured but never learned from.

    A probe's rise is its present loss minus its first measured loss; a task's rise F is the exponentially smoothed rise
    of its probes, at least 0. A task is drawn with probability
    `EXPLORATION / T + (1 - EXPLORATION) * (F + FLOOR) / sum of (F + FLOOR)`: uniformly while nothing is forgotten.
    Within a task every candidate is drawn once before any is drawn again (drawing the candidates with replacement would
    learn from a third fewer examples). After that, half of the draws continue in shuffled passes, and half are in
    proportion to the loss of an example when it was last learned from.

    The draws depend on measured losses: deterministic for a seed, but training cannot be resumed within a task.
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
        self._rises = dict.fromkeys(members, 0.0)

    def rows(self, step: int, count: int) -> list[int]:
        """Return the step's probes, if any, then drawn candidates."""
        per_step = PROBE_SHARE * self.budget.per_step
        probes = min(count, int((step + 1) * per_step) - int(step * per_step)) if self._probes else 0
        generator = random.Random(f"{self.budget.seed}|{step}")  # noqa: S311
        weights = self.task_weights()
        tasks = generator.choices(list(weights), list(weights.values()), k=count - probes)
        return [next(self._turns) for _ in range(probes)] + [self._draw(task, generator) for task in tasks]

    def observe(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Update the rises of tasks by the losses of probes, and record the losses of the other rows."""
        for row, loss in zip(rows, losses, strict=True):
            if row not in self._probes:
                self._last[row] = max(0.0, loss)
            elif row not in self._first:
                self._first[row] = loss
            else:
                task = self.tasks[row]
                rise = loss - self._first[row]
                self._rises[task] += SMOOTHING * (rise - self._rises[task])

    def trained(self, rows: Sequence[int]) -> list[bool]:
        """Return which rows are not probes."""
        return [row not in self._probes for row in rows]

    def task_weights(self) -> dict[str, float]:
        """Return the present probability of drawing each past task."""
        weights = {task: max(0.0, rise) + FLOOR for task, rise in self._rises.items()}
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
    """Iterate over the rows endlessly, in a new order each pass."""
    while True:
        yield from generator.sample(rows, len(rows))


def _turns(probes: Sequence[Sequence[int]]) -> list[int]:
    """Return the order in which probes are measured: each task's first, then each task's second, ..."""
    return [rows[turn] for turn in range(PROBES) for rows in probes if turn < len(rows)]
