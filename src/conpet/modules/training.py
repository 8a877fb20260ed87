"""Train modules with their heads: a pure function of the backbone, the examples, the settings and the seed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import TaskSettings
from conpet.cost import meter
from conpet.heads.base import Head
from conpet.heads.labels import LabelHead, indices_of, label_document
from conpet.modules.kinds import MODULE_KINDS
from conpet.modules.kinds.base import ModuleKind
from conpet.modules.module import PetModule, module_artifact
from conpet.modules.optimisation import (
    READ_STEPS,
    ParameterGroup,
    Schedule,
    TrainLog,
    epoch_batches,
    optimise_batch,
    steps_of,
)

Watch = Callable[[int, PetModule, nn.Module], None]
"""Looks at a module and its head in training: called with the number of steps done. It may raise."""


MAX_BATCHED_ROWS = 64
"""Examples up to which modules go through a step together: by then the machine is busy, and more only takes memory."""
MAX_PADDING_RATIO = 1.25
"""Padded tokens of a step together, at most, as a multiple of those of its modules alone: more would cost the gain."""


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """What one module and its head are to learn.

    Attributes:
        states: Prefix states of n examples.
        targets: What the head's loss compares with, a row for each example `[n, ...]`.
        head: The head.
        document: What is stored beside its tensors.
        settings: Module, epochs, rates.
        seed: Seed of the first weights and of the order of examples.
        competing_logits: Fixed logits of the labels of older tasks `[n, K]` that share the softmax (the paper's
            training at top_k > 1), or None. Only the head over labels takes them.
        name: What messages call it, or None where there is only one.
    """

    states: States
    targets: Tensor
    head: Head
    document: Mapping[str, Any]
    settings: TaskSettings
    seed: int
    competing_logits: Tensor | None = None
    name: str | None = None

    @classmethod
    def over_labels(
        cls, states: States, answers: Sequence[str], labels: Sequence[str], settings: TaskSettings, seed: int
    ) -> Self:
        """Return a job that ends in a head over labels, given each example's label."""
        return cls(states, indices_of(answers, labels), LabelHead(), label_document(labels), settings, seed)

    @property
    def steps(self) -> int:
        """Optimiser steps it takes."""
        return steps_of(len(self.states), self.settings.training)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(one.ids) for one in self.states.encoded]

    @property
    def rows(self) -> int:
        """Examples of a step, at most."""
        return min(self.settings.training.batch_size, len(self.states))

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(self.lengths)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModule:
    """A module with its head, and how training went.

    Attributes:
        module: The module.
        head: The head.
        log: Steps and losses.
        job: What was learned.
    """

    module: PetModule
    head: nn.Module
    log: TrainLog
    job: TrainingJob

    @property
    def parameters(self) -> int:
        """Trained parameters of the module."""
        return sum(parameter.numel() for parameter in self.module.parameters.values())

    @property
    def head_parameters(self) -> int:
        """Trained parameters of the head."""
        return sum(parameter.numel() for parameter in self.head.parameters())

    def artifact(self, **more: Mapping[str, Tensor]) -> Artifact:
        """Return module and head as they are stored, with further tensors by stem."""
        return module_artifact(self.module.adapter(), self.job.head.tensors(self.head), self.job.document, **more)


def train_module(
    backbone: Backbone,
    job: TrainingJob,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    watch: Watch | None = None,
) -> TrainedModule:
    """Train a new module and head.

    Args:
        backbone: The frozen model.
        job: What to learn.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called with the number of steps done and of all steps.
        watch: Called after every step; an exception it raises ends the training.
    """
    run = TrainingRun(backbone, job)

    def report(done: int) -> None:
        if on_step:
            on_step(done, run.group.schedule.steps)
        if watch:
            watch(done, run.module, run.head)

    return _train(backbone, [run], checkpoint, report, read_steps=1 if watch else READ_STEPS)[0]


def train_modules(
    backbone: Backbone,
    jobs: Sequence[TrainingJob],
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> list[TrainedModule]:
    """Train a module and head for each of several subjects, small ones several at once, to the weights each gets alone.

    To the weights but for rounding: a step's rows go through the frozen maps together, padded to one length, each
    through its own module's update. A step over few examples leaves most of a machine idle.

    Args:
        backbone: The frozen model.
        subjects: One or more.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called with the number of steps done and of all steps.
    """
    found: dict[int, TrainedModule] = {}
    sets = group_jobs(jobs)
    total, before = sum(jobs[first].steps for first, *_ in sets), 0
    for number, some in enumerate(sets):
        folder = checkpoint if checkpoint is None or len(sets) == 1 else checkpoint / f"set-{number}"
        runs = [TrainingRun(backbone, jobs[index]) for index in some]
        report = partial(_tell, on_step, total, before)
        found |= dict(zip(some, _train(backbone, runs, folder, report), strict=True))
        before += jobs[some[0]].steps
    return [found[index] for index in range(len(jobs))]


def group_jobs(jobs: Sequence[TrainingJob]) -> list[list[int]]:
    """Return which subjects are trained together, by index; in each set those of most steps come first."""
    order = sorted(range(len(jobs)), key=lambda index: (-jobs[index].steps, jobs[index].longest))
    sets: list[list[int]] = []
    open_sets: dict[Hashable, list[int]] = {}
    for index in order:
        shape = jobs[index].settings.module
        some = open_sets.get(shape)
        if some is None or not _fit_together([jobs[one] for one in (*some, index)]):
            some = open_sets[shape] = []
            sets.append(some)
        some.append(index)
    return sets


def _fit_together(jobs: Sequence[TrainingJob]) -> bool:
    """Tell whether subjects of one shape can, and should, go through a step together."""
    kind: ModuleKind = MODULE_KINDS[jobs[0].settings.module.kind]()
    if any(one.competing_logits is not None or not kind.trains_batched(one.settings.module) for one in jobs):
        return False
    rows = sum(one.rows for one in jobs)
    tokens = rows * max(one.longest for one in jobs)
    bounds: list[float] = [
        one.settings.training.micro_batch_tokens for one in jobs if one.settings.training.micro_batch_tokens is not None
    ]
    bounds.append(MAX_PADDING_RATIO * sum(one.rows * one.longest for one in jobs))
    return rows <= MAX_BATCHED_ROWS and all(tokens <= bound for bound in bounds)


class TrainingRun:
    """A subject while its module is trained."""

    def __init__(self, backbone: Backbone, job: TrainingJob) -> None:
        training = job.settings.training
        self.job = job
        self.module = PetModule(backbone, job.settings, job.seed)
        self.head = job.head.build(backbone.representation_size, job.document, backbone.device)
        head = {f"head.{name}": value for name, value in self.head.named_parameters()}
        schedule = Schedule(job.steps, training.learning_rate, training.weight_decay, seed=job.seed)
        self.group = ParameterGroup({**self.module.parameters, **head}, schedule, job.name)
        self._per_epoch = ceil(len(job.states) / training.batch_size)
        self._orders: dict[int, list[list[int]]] = {}

    def rows(self, step: int) -> list[int]:
        """Return the examples of a step; none where there are no steps left."""
        if not self.group.is_active(step):
            return []
        epoch = step // self._per_epoch
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(self.job.seed + epoch)
            batches = epoch_batches(self.job.lengths, self.job.settings.training.batch_size, generator)
            self._orders = {epoch: batches}
        return self._orders[epoch][step % self._per_epoch]

    def loss(self, represented: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the loss of some examples, given their representations."""
        job = self.job
        targets = job.targets[rows].to(represented.device)
        if job.competing_logits is None:
            return job.head.loss(self.head, represented, targets).mean()
        assert isinstance(job.head, LabelHead), "only labels compete"  # noqa: S101
        return job.head.loss(self.head, represented, targets, job.competing_logits[rows]).mean()


def _train(
    backbone: Backbone,
    runs: Sequence[TrainingRun],
    checkpoint: Path | None,
    report: Callable[[int], None],
    read_steps: int = READ_STEPS,
) -> list[TrainedModule]:
    """Train modules in passes of the first, which must have most steps."""
    states = [run.job.states for run in runs]
    joined = States.concatenated(states) if len(states) > 1 else states[0]
    starts = [0, *accumulate(map(len, states))]
    first = runs[0].module
    first.batch_with([run.module for run in runs[1:]])

    def losses(step: int) -> Tensor:
        rows = [run.rows(step) for run in runs]
        everywhere = [start + row for start, some in zip(starts, rows, strict=False) for row in some]
        batch = joined.collate(everywhere, pad=backbone.encoder.pad, device=backbone.device)
        first.share([len(some) for some in rows])
        represented = first.represent(batch).split([len(some) for some in rows])
        of_each = zip(runs, represented, rows, strict=True)
        meter().steps += sum(bool(some) for some in rows)
        return torch.stack([run.loss(part, some) for run, part, some in of_each if some])

    for run in runs:
        run.module.train()
    logs = optimise_batch(
        [run.group for run in runs],
        losses,
        checkpoint=checkpoint,
        on_step=lambda step: report(step + 1),
        read_steps=read_steps,
    )
    first.batch_with([])
    for run in runs:
        run.module.train(False)
    return [TrainedModule(run.module, run.head, log, run.job) for run, log in zip(runs, logs, strict=True)]


def _tell(on_step: Callable[[int, float], None] | None, total: int, before: int, done: int) -> None:
    if on_step:
        on_step(before + done, total)


def represented(backbone: Backbone, module: PetModule, states: States) -> Tensor:
    """Return a module's representations `[n, R]`, float32, of n examples; nothing is trained."""
    out = torch.zeros(len(states), backbone.representation_size)
    with torch.no_grad():
        for rows in backbone.batching.batches([len(one.ids) for one in states.encoded]):
            batch = states.collate(rows, pad=backbone.encoder.pad, device=backbone.device)
            out[rows] = module.represent(batch).cpu()
    return out
