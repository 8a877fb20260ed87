"""One task while a static method learns it: what is trained, and the batches it is trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch, States
from conpet.config import Settings
from conpet.context import TrainContext
from conpet.heads.labels import indices_of
from conpet.methods.base import TaskData
from conpet.modules.module import PetModule
from conpet.modules.optimisation import epoch_batches, steps_of
from conpet.modules.training import represented
from conpet.replay.rehearsal import Rehearsal, learned_from, mean_loss
from conpet.replay.schedule import OLD_SHARE, divide_budget, rehearse
from conpet.state.state import State

HEAD_PARAMETERS = "head."
"""Names of the head's parameters begin so; they have one row for each label."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStep:
    """The batch of one step: new examples first, replayed ones behind them.

    Attributes:
        number: Number of the step, from 0.
        rows: Row of each of n examples in the session's states.
        fresh: How many of them are new.
        batch: Their prefix states.
        targets: Output of the head that stands for each one's label `[n]`, int64, on the backbone's device.
    """

    number: int
    rows: list[int]
    fresh: int
    batch: Batch
    targets: Tensor


class ModuleWithHead(NamedTuple):
    """What is trained: a module and a head on it."""

    module: PetModule
    head: nn.Linear


@dataclass(slots=True, eq=False)
class ReplayBatches:
    """One task while a static method learns it.

    Attributes:
        module: The module that is trained.
        head: The head that is trained.
        state: The state without the task.
        lesson: The task.
        work: Seed, past examples, checkpoints, progress.
        labels: Labels of the head's outputs: those of older tasks, then the task's own.
        states: States of the new examples and, behind them, of those that may be replayed.
        targets: Output of the head for the label of each of them, int64.
        new: Number of new examples.
        steps: Optimiser steps of the task, its budget.
        rehearsal: Draws the past examples that fill the old part of the batches, or None.
        notes: What the method noted for the rest of the session, of a type of its own.
    """

    module: PetModule
    head: nn.Linear
    state: State
    task_data: TaskData
    context: TrainContext
    labels: tuple[str, ...]
    states: States
    targets: Tensor
    new: int
    steps: int
    rehearsal: Rehearsal | None = None
    notes: Any = None
    _epochs: dict[int, list[list[int]]] = field(default_factory=dict, init=False)

    @classmethod
    def begin(
        cls,
        trained: ModuleWithHead,
        settings: Settings,
        state: State,
        task_data: TaskData,
        context: TrainContext,
        labels: Sequence[str],
        *,
        replays: bool,
    ) -> Self:
        """Draw what is replayed within the task's budget, and put new and old examples side by side."""
        backbone = trained.module.backbone
        memory = [one for one in context.memory if replays and one.task != task_data.task.name]
        steps = steps_of(len(task_data.train), task_data.settings.training)
        _, old = divide_budget(task_data.settings.training.batch_size, old_share=OLD_SHARE, has_memory=bool(memory))
        rehearsal = rehearse(
            memory, backbone, schedule=settings.replay.schedule, steps=steps, per_step=old, seed=context.seed
        )
        states, answers = [task_data.train], list(task_data.answers)
        if rehearsal:
            states.append(rehearsal.states)
            answers += rehearsal.labels
        return cls(
            trained.module,
            trained.head,
            state,
            task_data,
            context,
            tuple(labels),
            States.concatenated(states),
            indices_of(answers, labels),
            len(task_data.train),
            steps,
            rehearsal,
        )

    @property
    def backbone(self) -> Backbone:
        """The frozen model."""
        return self.module.backbone

    @property
    def older(self) -> int:
        """Number of the head's outputs that stand for labels of older tasks."""
        return len(self.labels) - len(self.task_data.task.labels)

    @property
    def resumable(self) -> bool:
        """Whether the batches depend on the step alone."""
        return self.rehearsal is None or self.rehearsal.resumable

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the module and the head, by name."""
        return {**self.module.parameters, **self.head_parameters}

    @property
    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the head, by name."""
        return {f"{HEAD_PARAMETERS}{name}": parameter for name, parameter in self.head.named_parameters()}

    @property
    def old_rows(self) -> list[int]:
        """Rows of the old examples that may be learned from."""
        if self.rehearsal is None:
            return []
        learned = self.rehearsal.trained(range(len(self.rehearsal.states)))
        return [self.new + row for row, kept in enumerate(learned) if kept]

    def some(self, rows: Sequence[int], most: int) -> list[int]:
        """Draw at most so many of some rows; the same ones whenever it is asked."""
        return random.Random(self.context.seed).sample(rows, min(most, len(rows)))  # noqa: S311

    def represented(self, rows: Sequence[int]) -> Tensor:
        """Return how the module represents some rows now `[n, R]`, on the CPU; nothing is trained on them."""
        return represented(self.backbone, self.module, self.states.select(rows))

    def step(self, number: int) -> TrainingStep:
        """Return the batch of a step."""
        fresh_count, old_count = divide_budget(
            self.task_data.settings.training.batch_size, old_share=OLD_SHARE, has_memory=self.rehearsal is not None
        )
        fresh = self._fresh(number, fresh_count)
        old = [self.new + row for row in self.rehearsal.rows(number, old_count)] if self.rehearsal else []
        rows = [*fresh, *old]
        return TrainingStep(number, rows, len(fresh), self.collated(rows), self.targets[rows].to(self.backbone.device))

    def collated(self, rows: Sequence[int]) -> Batch:
        """Return a batch of some rows of the session's states."""
        return self.states.collate(rows, pad=self.backbone.encoder.pad, device=self.backbone.device)

    def represent(self, step: TrainingStep) -> Tensor:
        """Return the module's representations `[n, R]` of a step's examples."""
        return self.module.represent(step.batch)

    def mean_loss(self, step: TrainingStep, losses: Tensor) -> Tensor:
        """Return the mean of a step's losses `[n]` over all that is learned from; the replay schedule sees them too."""
        return mean_loss(losses, self.rehearsal, self.replayed(step))

    def learned_from(self, step: TrainingStep, losses: Tensor) -> Tensor:
        """Return which of a step's examples are learned from `[n]`, bool; the replay schedule sees all losses `[n]`."""
        return learned_from(losses, self.rehearsal, self.replayed(step))

    def replayed(self, step: TrainingStep) -> list[int]:
        """Return the old examples of a step, as rows of the rehearsal."""
        return [row - self.new for row in step.rows[step.fresh :]]

    def _fresh(self, number: int, count: int) -> list[int]:
        """Return the new examples of a step: as many passes over all of them as the steps allow."""
        per_epoch = -(-self.new // count)
        epoch = number // per_epoch
        if epoch not in self._epochs:
            lengths = [len(one.ids) for one in self.states.encoded[: self.new]]
            generator = torch.Generator().manual_seed(self.context.seed + epoch)
            self._epochs = {epoch: epoch_batches(lengths, count, generator)}
        return self._epochs[epoch][number % per_epoch]
