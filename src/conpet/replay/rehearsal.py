"""Past examples for the training of one task; the base of every replay schedule."""

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


class Rehearsal(ABC):
    """Past examples for the steps of one task, within its budget; the base of every replay schedule.

    At each step the method calls `rows` for the old part of the batch, then `mean_loss` with the losses of the whole
    batch.

    Args:
        memory: The past tasks, each with at least one training example.
        backbone: The frozen model.
        budget: How much may be drawn.
        config: The schedule's own settings.
        draws: The examples that may be drawn; each is read once, and no others are read.

    Attributes:
        states: Prefix states of the m examples that may be drawn.
        labels: Their labels.
        tasks: Names of their tasks.
        indices: Their indices in the training sets of their tasks (see `StoredExamples.indices`).
        drawn: Row of each draw in `states`.
        budget: How much may be drawn.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ScheduleConfig]] = ScheduleConfig
    """The schedule's own settings (`Settings.replay.schedule`)."""
    resumable: ClassVar[bool]
    """Whether rows depend only on the step. If not, interrupted training restarts, so checkpoints are useless."""

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

    @abstractmethod
    def rows(self, step: int, count: int) -> list[int]:
        """Return `count` rows of `states` for the old part of a step's batch.

        Args:
            step: From 0 to `budget.steps` - 1.
            count: At most `budget.per_step`.
        """

    @abstractmethod
    def observe(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Record the losses of the rows of a step; called once per step with all its rows."""

    @abstractmethod
    def trained(self, rows: Sequence[int]) -> list[bool]:
        """Return which rows are learned from; the others are only measured and must not contribute to the loss."""


class Predrawn(Rehearsal):
    """A schedule that makes all draws in advance, batch by batch, and learns from all of them."""

    resumable = True

    def rows(self, step: int, count: int) -> list[int]:
        """Return the first `count` draws for this step."""
        start = step * self.budget.per_step
        return list(self.drawn[start : start + count])

    def observe(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Ignore the losses: no draw depends on them."""

    def trained(self, rows: Sequence[int]) -> list[bool]:
        """Return True for every row."""
        return [True] * len(rows)


def learned_from(losses: Tensor, rehearsal: Rehearsal | None = None, old: Sequence[int] = ()) -> Tensor:
    """Return which examples of a batch are learned from `[n + o]`, bool: all new ones, and old ones by schedule.

    Args:
        losses: Losses of the batch `[n + o]`: n new examples, then o old ones.
        rehearsal: The source of the old examples; it observes their losses.
        old: Rows of the old examples in `rehearsal.states`.
    """
    new = len(losses) - len(old)
    learned = [True] * new
    if rehearsal is not None:
        rehearsal.observe(old, losses[new:].tolist())
        learned += rehearsal.trained(old)
    return torch.tensor(learned, device=losses.device)


def mean_loss(losses: Tensor, rehearsal: Rehearsal | None = None, old: Sequence[int] = ()) -> Tensor:
    """Return the mean loss of a batch over the examples learned from; arguments as in `learned_from`."""
    return losses[learned_from(losses, rehearsal, old)].mean()
