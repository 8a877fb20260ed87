"""Fixed replay: a small memory per label, repeated."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

from conpet.backbone.backbone import Backbone
from conpet.config import ScheduleConfig
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Budget, Draw, Rehearsal


class FixedReplay(Rehearsal):
    """Replays the whole memory in shuffled passes until the old share of the budget is filled (unstarred methods).

    With this schedule the memory holds `memory_per_label` examples of each label, chosen by k-means (Wang et al. 2019).
    The last pass may be incomplete.
    """

    name = "fixed"

    def __init__(
        self, memory: Sequence[StoredExamples], backbone: Backbone, budget: Budget, config: ScheduleConfig
    ) -> None:
        starts = [0, *accumulate(source.count(Subset.TRAIN) for source in memory)]
        drawn = islice(_passes(starts[-1], random.Random(budget.seed)), budget.examples)  # noqa: S311
        tasks = ((bisect_right(starts, number) - 1, number) for number in drawn)
        super().__init__(
            memory, backbone, budget, config, [Draw(task, number - starts[task]) for task, number in tasks]
        )


def _passes(count: int, generator: random.Random) -> Iterator[int]:
    """Iterate endlessly over the numbers below `count`, in a new order each pass, shuffled lazily."""
    while True:
        swapped: dict[int, int] = {}  # Fisher-Yates, with only the swapped positions stored
        for left in range(count, 0, -1):
            position = generator.randrange(left)
            yield swapped.get(position, position)
            swapped[position] = swapped.get(left - 1, left - 1)
