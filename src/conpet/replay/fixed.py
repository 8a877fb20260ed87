"""Fixed replay: the method's own small memory, repeated."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

from conpet.backbone.backbone import Backbone
from conpet.config import ScheduleConfig
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Budget, Draw, Predrawn


class FixedReplay(Predrawn):
    """The memory of the unstarred methods: all of it in shuffled passes, until the old share of the budget is filled.

    With it the memory holds `memory_per_label` examples of every label, chosen by k-means (Wang et al. 2019). A pass
    that does not fit the budget any more is cut off.
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
    """Go through `count` numbers from 0 again and again, each time in another order; only what is asked costs."""
    while True:
        moved: dict[int, int] = {}  # where in the pass another number stands than its own
        for left in range(count, 0, -1):
            place = generator.randrange(left)
            yield moved.get(place, place)
            moved[place] = moved.get(left - 1, left - 1)
