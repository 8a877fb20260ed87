"""Dynamic replay (Song et al. 2023): every past task is equally likely, whatever its number of stored examples."""

from __future__ import annotations

import random
from collections.abc import Sequence

from conpet.backbone.backbone import Backbone
from conpet.config import ScheduleConfig
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Budget, Draw, Rehearsal


class DynamicReplay(Rehearsal):
    """Draws a past task uniformly, then one of its examples uniformly, with replacement.

    It limits computation, not storage: it reads no more examples than the budget allows.
    """

    name = "dynamic"

    def __init__(
        self, memory: Sequence[StoredExamples], backbone: Backbone, budget: Budget, config: ScheduleConfig
    ) -> None:
        super().__init__(
            memory, backbone, budget, config, draw_uniformly(memory, Subset.TRAIN, budget.examples, budget.seed)
        )


def draw_uniformly(memory: Sequence[StoredExamples], subset: Subset, count: int, seed: int) -> list[Draw]:
    """Draw a past task uniformly among those that have examples, then one of its examples uniformly, `count` times."""
    sizes = {task: size for task, source in enumerate(memory) if (size := source.count(subset))}
    generator = random.Random(seed)  # noqa: S311
    tasks = list(sizes)
    draws = []
    for _ in range(count if tasks else 0):
        task = tasks[generator.randrange(len(tasks))]
        draws.append(Draw(task, generator.randrange(sizes[task])))
    return draws


def draw_by_task(
    memory: Sequence[StoredExamples], subset: Subset, count: int, seed: int
) -> list[tuple[StoredExamples, list[int]]]:
    """Draw as `draw_uniformly` does; return each drawn task with its drawn rows, `count` in total."""
    drawn: dict[int, list[int]] = {}
    for task, position in draw_uniformly(memory, subset, count, seed):
        drawn.setdefault(task, []).append(position)
    return [(memory[task], drawn[task]) for task in sorted(drawn)]
