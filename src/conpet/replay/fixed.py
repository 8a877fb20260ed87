"""Fixed replay: the method's own small memory, repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence

from conpet.backbone.backbone import Backbone
from conpet.replay.memory import Remembered, Split
from conpet.replay.rehearsal import Budget, Draw, Predrawn


class FixedReplay(Predrawn):
    """The memory of the unstarred methods: all of it in shuffled passes, until the old share of the budget is filled.

    With it the memory holds `memory_per_label` examples of every label, chosen by k-means (Wang et al. 2019). A pass
    that does not fit the budget any more is cut off.
    """

    name = "fixed"

    def __init__(self, memory: Sequence[Remembered], backbone: Backbone, budget: Budget) -> None:
        everything = [
            Draw(task, position) for task, source in enumerate(memory) for position in range(source.count(Split.TRAIN))
        ]
        generator = random.Random(budget.seed)  # noqa: S311
        draws: list[Draw] = []
        while len(draws) < budget.examples:
            draws += generator.sample(everything, len(everything))
        super().__init__(memory, backbone, budget, draws[: budget.examples])
