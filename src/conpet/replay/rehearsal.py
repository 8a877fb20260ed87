"""Past examples for the training of one task; the base of every replay schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, NamedTuple

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import ScheduleConfig
from conpet.replay.memory import StoredExamples, Subset, states_of


class Draw(NamedTuple):
    """A past example: the index of its task in the memory, and its row in the task's training subset."""

    task: int
    position: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of past examples.

    Attributes:
        steps: Optimiser steps.
        per_step: Past examples in each batch.
        seed: Seed of the draws.
    """

    steps: int
    per_step: int
    seed: int

    @property
    def examples(self) -> int:
        """Past examples in all batches together."""
        return self.steps * self.per_step


class Rehearsal:
    """Past examples for the steps of one task, within its budget; the base of every replay schedule.

    A schedule makes all draws when it is constructed, so interrupted training can be resumed at any step.

    Args:
        memory: The past tasks, each with at least one training example.
        backbone: The frozen model.
        budget: How much may be drawn.
        config: The schedule's own settings.
        draws: The draws of the first step, then those of the second, ...: `budget.examples` in total. Each drawn
            example is read once, and no others are read.

    Attributes:
        states: Prefix states of the m drawn examples.
        labels: Their labels.
        tasks: Names of their tasks.
        indices: Their indices in the training sets of their tasks (see `StoredExamples.indices`).
        drawn: Row of each draw in `states`.
        budget: How much may be drawn.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ScheduleConfig]] = ScheduleConfig
    """The schedule's own settings (`Settings.replay.schedule`)."""

    def __init__(
        self,
        memory: Sequence[StoredExamples],
        backbone: Backbone,
        budget: Budget,
        config: ScheduleConfig,
        draws: Sequence[Draw],
    ) -> None:
        self.budget = budget
        self.config = config
        distinct = sorted(set(draws))
        row_of = {draw: row for row, draw in enumerate(distinct)}
        self.drawn = tuple(row_of[draw] for draw in draws)
        by_task = [
            (memory[task], [draw.position for draw in of_task])
            for task, of_task in groupby(distinct, key=lambda draw: draw.task)
        ]
        labels, indices = [], []
        for source, positions in by_task:
            known, index = source.labels(Subset.TRAIN), source.indices
            labels += [known[position] for position in positions]
            indices += [index[position] for position in positions]
        self.states: States = states_of(by_task, backbone, Subset.TRAIN)
        self.labels = tuple(labels)
        self.tasks = tuple(memory[draw.task].task for draw in distinct)
        self.indices = tuple(indices)

    def rows(self, step: int, count: int) -> list[int]:
        """Return `count` rows of `states` for the old part of a step's batch.

        Args:
            step: From 0 to `budget.steps` - 1.
            count: At most `budget.per_step`.
        """
        start = step * self.budget.per_step
        return list(self.drawn[start : start + count])
