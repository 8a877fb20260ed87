"""Past examples for one task's training: what every replay schedule gives a learner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import ScheduleConfig
from conpet.replay.memory import StoredExamples, Subset, states_of


class Draw(NamedTuple):
    """A past example: index of its task in the memory, and its row in that task's training split."""

    task: int
    position: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How many past examples may be used.

    Attributes:
        steps: Optimiser steps.
        per_step: Past examples in the batch of each.
        seed: Seed of what is drawn.
    """

    steps: int
    per_step: int
    seed: int

    @property
    def examples(self) -> int:
        """Past examples in all batches together."""
        return self.steps * self.per_step


class Rehearsal(ABC):
    """Past examples for one task's steps, within its budget; the base of every replay schedule.

    One step of a learner: `rows` gives the old part of the batch; `mean_loss` takes the losses of the whole batch.

    Args:
        memory: The past tasks, each with at least one training example.
        backbone: The frozen model.
        budget: How much may be drawn.
        config: The schedule's own settings.
        draws: What may be drawn; each example is read once, and nothing else is.

    Attributes:
        states: Prefix states of all examples that may be drawn, m of them.
        labels: Label of each.
        tasks: Name of the past task of each.
        indices: Index of each in the training set of its task (see `StoredExamples.indices`).
        drawn: Row of `states` of each draw.
        budget: How much may be drawn.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ScheduleConfig]] = ScheduleConfig
    """The schedule's own settings (`Settings.replay.schedule`)."""
    resumable: ClassVar[bool]
    """Whether rows depend on the step alone. If not, training that was interrupted begins anew: keep no checkpoint."""

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
        found = sorted(set(draws))
        row_of = {draw: row for row, draw in enumerate(found)}
        self.drawn = tuple(row_of[draw] for draw in draws)
        by_task = [
            (memory[task], [draw.position for draw in of_task])
            for task, of_task in groupby(found, key=lambda draw: draw.task)
        ]
        labels, indices = [], []
        for source, positions in by_task:
            known, index = source.labels(Subset.TRAIN), source.indices
            labels += [known[position] for position in positions]
            indices += [index[position] for position in positions]
        self.states: States = states_of(by_task, backbone, Subset.TRAIN)
        self.labels = tuple(labels)
        self.tasks = tuple(memory[draw.task].task for draw in found)
        self.indices = tuple(indices)

    @abstractmethod
    def rows(self, step: int, count: int) -> list[int]:
        """Return the rows of `states` that fill the old part of a step's batch, `count` of them.

        Args:
            step: From 0 to `budget.steps` - 1.
            count: At most `budget.per_step`.
        """

    @abstractmethod
    def observe(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Take notice of the loss of each of some rows just seen; called once a step, with all rows of the step."""

    @abstractmethod
    def trained(self, rows: Sequence[int]) -> list[bool]:
        """Return which rows are learned from; the others are only measured, their loss must not reach the weights."""


class Predrawn(Rehearsal):
    """A schedule whose draws are all made beforehand, one batch after another, and all learned from."""

    resumable = True

    def rows(self, step: int, count: int) -> list[int]:
        """Return the next `count` draws of the step's own."""
        start = step * self.budget.per_step
        return list(self.drawn[start : start + count])

    def observe(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Take no notice: nothing depends on losses."""

    def trained(self, rows: Sequence[int]) -> list[bool]:
        """Return that all rows are learned from."""
        return [True] * len(rows)


def learned_from(losses: Tensor, rehearsal: Rehearsal | None = None, old: Sequence[int] = ()) -> Tensor:
    """Return which examples of a batch are learned from `[n + o]`, bool: the new ones, and of the old ones some.

    Args:
        losses: Loss of each example of the batch `[n + o]`: n new ones, then o old ones.
        rehearsal: What the old ones come from; it gets to see their losses.
        old: Their rows, o of them.
    """
    new = len(losses) - len(old)
    learned = [True] * new
    if rehearsal is not None:
        rehearsal.observe(old, losses[new:].tolist())
        learned += rehearsal.trained(old)
    return torch.tensor(learned, device=losses.device)


def mean_loss(losses: Tensor, rehearsal: Rehearsal | None = None, old: Sequence[int] = ()) -> Tensor:
    """Return the mean loss of a batch over the examples that are learned from; arguments as in `learned_from`."""
    return losses[learned_from(losses, rehearsal, old)].mean()
