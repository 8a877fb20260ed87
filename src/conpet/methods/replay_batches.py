"""What a static method trains while it learns one task: a module, a head and batches of new and replayed examples."""

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
from conpet.replay.rehearsal import Rehearsal
from conpet.replay.schedule import OLD_SHARE, divide_budget, rehearse
from conpet.state.state import State

HEAD_PARAMETERS = "head."
"""Prefix of the names of the head's parameters, which have one row for each label."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStep:
    """The batch of one training step: new examples first, then replayed ones.

    Attributes:
        number: Number of the step, from 0.
        rows: Rows of the n examples in `ReplayBatches.states`.
        new_count: Number of new examples; the others are replayed.
        batch: Prefix states of the examples.
        targets: Index of the head's output for each example's label `[n]`, int64, on the backbone's device.
    """

    number: int
    rows: list[int]
    new_count: int
    batch: Batch
    targets: Tensor


class ModuleWithHead(NamedTuple):
    """A module and its head, both trained."""

    module: PetModule
    head: nn.Linear


@dataclass(slots=True, eq=False)
class ReplayBatches:
    """The module, head and batches of one task's training by a static method.

    Attributes:
        module: The module to train.
        head: The head to train.
        state: The state before the task is learned.
        task_data: The task.
        context: Seed, past examples, checkpoints, progress.
        labels: Labels of the head's outputs: those of older tasks, then those of the task.
        states: Prefix states of the new examples, then of those that may be replayed.
        targets: Index of the head's output for the label of each example in `states`, int64.
        new_count: Number of new examples.
        steps: The task's budget of optimiser steps.
        rehearsal: Draws the past examples for the old part of each batch, or None.
        method_data: What the method itself needs during this training; each method has its own type.
    """

    module: PetModule
    head: nn.Linear
    state: State
    task_data: TaskData
    context: TrainContext
    labels: tuple[str, ...]
    states: States
    targets: Tensor
    new_count: int
    steps: int
    rehearsal: Rehearsal | None = None
    method_data: Any = None
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
        """Draw the examples to replay within the task's budget, and join them with the new ones."""
        backbone = trained.module.backbone
        memory = [source for source in context.memory if replays and source.task != task_data.task.name]
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
    def old_label_count(self) -> int:
        """Number of the head's outputs for labels of older tasks; they come first."""
        return len(self.labels) - len(self.task_data.task.labels)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the module and the head, by name."""
        return {**self.module.parameters, **self.head_parameters}

    @property
    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the head, by name."""
        return {f"{HEAD_PARAMETERS}{name}": parameter for name, parameter in self.head.named_parameters()}

    @property
    def old_rows(self) -> range:
        """Rows of the old examples."""
        return range(self.new_count, len(self.states))

    def sample(self, rows: Sequence[int], limit: int) -> list[int]:
        """Draw at most `limit` of these rows; every call draws the same ones."""
        return random.Random(self.context.seed).sample(rows, min(limit, len(rows)))  # noqa: S311

    def represented(self, rows: Sequence[int]) -> Tensor:
        """Return the module's current representations of these rows `[n, R]`, on the CPU, without gradients."""
        return represented(self.backbone, self.module, self.states.select(rows))

    def step(self, number: int) -> TrainingStep:
        """Return the batch of a step."""
        new_count, old_count = divide_budget(
            self.task_data.settings.training.batch_size, old_share=OLD_SHARE, has_memory=self.rehearsal is not None
        )
        new = self._new_rows(number, new_count)
        old = [self.new_count + row for row in self.rehearsal.rows(number, old_count)] if self.rehearsal else []
        rows = [*new, *old]
        return TrainingStep(number, rows, len(new), self.collated(rows), self.targets[rows].to(self.backbone.device))

    def collated(self, rows: Sequence[int]) -> Batch:
        """Return these rows of `states` as one batch."""
        return self.states.collate(rows, pad=self.backbone.encoder.pad, device=self.backbone.device)

    def represent(self, step: TrainingStep) -> Tensor:
        """Return the module's representations `[n, R]` of a step's examples."""
        return self.module.represent(step.batch)

    def replayed(self, step: TrainingStep) -> list[int]:
        """Return the rows of a step's old examples in `Rehearsal.states`."""
        return [row - self.new_count for row in step.rows[step.new_count :]]

    def _new_rows(self, number: int, count: int) -> list[int]:
        """Return the new examples of a step, in shuffled passes over all of them."""
        per_epoch = -(-self.new_count // count)
        epoch = number // per_epoch
        if epoch not in self._epochs:
            lengths = [len(encoded.ids) for encoded in self.states.encoded[: self.new_count]]
            generator = torch.Generator().manual_seed(self.context.seed + epoch)
            self._epochs = {epoch: epoch_batches(lengths, count, generator)}
        return self._epochs[epoch][number % per_epoch]
