"""Train modules with their heads: a pure function of backbone, examples, settings and seed."""

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
from conpet.heads.base import Head
from conpet.heads.labels import GroupedLabelHead, LabelHead, indices_of, label_document
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
"""Called during training with the number of finished steps, the module and the head. It may raise."""


MAX_BATCHED_ROWS = 64
"""Most examples in a joint step of several modules: more would only take memory, as the machine is busy by then."""
MAX_PADDING_RATIO = 1.25
"""Most padded tokens in a joint step, relative to separate steps: more padding would outweigh the gain."""


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """Data and settings to train one module and its head.

    Attributes:
        states: Prefix states of n examples.
        targets: Targets of the head's loss, one row per example `[n, ...]`.
        head: The head.
        document: The head's document.
        settings: Settings of module, head and training.
        seed: Seed of the initial weights and of the order of examples.
        competing_logits: Fixed logits `[n, K]` of the labels of older tasks, which share the softmax (the paper's
            training at top_k > 1), or None. Only `LabelHead` accepts them.
        name: Name for messages, or None for a single job.
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
        cls,
        states: States,
        answers: Sequence[str],
        labels: Sequence[str],
        settings: TaskSettings,
        seed: int,
        groups: Sequence[Hashable] | None = None,
    ) -> Self:
        """Return a job with a head over labels, given the label of each example.

        Args:
            states: Prefix states of n examples.
            answers: The label of each.
            labels: The labels, in the order of the outputs.
            settings: Settings of module and training.
            seed: See `TrainingJob`.
            groups: The group of each label, to let labels compete only within their group; None if all compete.
        """
        head = LabelHead() if groups is None else GroupedLabelHead(groups)
        return cls(states, indices_of(answers, labels), head, label_document(labels), settings, seed)

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return steps_of(len(self.states), self.settings.training)

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return [len(example.ids) for example in self.states.encoded]

    @property
    def rows(self) -> int:
        """Most examples in a step."""
        return min(self.settings.training.batch_size, len(self.states))

    @property
    def longest(self) -> int:
        """Number of tokens of the longest example."""
        return max(self.lengths)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModule:
    """A trained module with its head, and the log of the training.

    Attributes:
        module: The module.
        head: The head.
        log: Steps and losses.
        job: The training job.
    """

    module: PetModule
    head: nn.Module
    log: TrainLog
    job: TrainingJob

    @property
    def parameters(self) -> int:
        """Number of trained parameters of the module."""
        return sum(parameter.numel() for parameter in self.module.parameters.values())

    @property
    def head_parameters(self) -> int:
        """Number of trained parameters of the head."""
        return sum(parameter.numel() for parameter in self.head.parameters())

    def artifact(self, **more: Mapping[str, Tensor]) -> Artifact:
        """Return module and head in stored form, with further tensors by stem."""
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
        job: Data and settings.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called after every step with the number of finished steps and of all steps.
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
    """Train a module and head for each job, several small jobs at once; return them in the order of the jobs.

    The weights are those of separate training, up to rounding. A joint step sends the rows of several jobs through the
    frozen maps together, padded to one length, and each row through the update of its own module. Separate steps over
    few examples would leave most of the machine idle.

    Args:
        backbone: The frozen model.
        jobs: Any number.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called after every step with the number of finished steps and of all steps.
    """
    trained: dict[int, TrainedModule] = {}
    groups = group_jobs(jobs)
    total, before = sum(jobs[first].steps for first, *_ in groups), 0
    for number, group in enumerate(groups):
        folder = checkpoint if checkpoint is None or len(groups) == 1 else checkpoint / f"set-{number}"
        runs = [TrainingRun(backbone, jobs[index]) for index in group]
        report = partial(_report_step, on_step, total, before)
        trained |= dict(zip(group, _train(backbone, runs, folder, report), strict=True))
        before += jobs[group[0]].steps
    return [trained[index] for index in range(len(jobs))]


def group_jobs(jobs: Sequence[TrainingJob]) -> list[list[int]]:
    """Return groups of jobs to train together, as indices; in each group, jobs with most steps come first."""
    order = sorted(range(len(jobs)), key=lambda index: (-jobs[index].steps, jobs[index].longest))
    groups: list[list[int]] = []
    open_groups: dict[Hashable, list[int]] = {}
    for index in order:
        module_settings = jobs[index].settings.module
        group = open_groups.get(module_settings)
        if group is None or not _fit_together([jobs[member] for member in (*group, index)]):
            group = open_groups[module_settings] = []
            groups.append(group)
        group.append(index)
    return groups


def _fit_together(jobs: Sequence[TrainingJob]) -> bool:
    """Tell whether jobs with the same module settings can, and should, share their steps."""
    kind: ModuleKind = MODULE_KINDS[jobs[0].settings.module.kind]()
    if any(job.competing_logits is not None or not kind.trains_batched(job.settings.module) for job in jobs):
        return False
    rows = sum(job.rows for job in jobs)
    tokens = rows * max(job.longest for job in jobs)
    bounds: list[float] = [
        job.settings.training.micro_batch_tokens for job in jobs if job.settings.training.micro_batch_tokens is not None
    ]
    bounds.append(MAX_PADDING_RATIO * sum(job.rows * job.longest for job in jobs))
    return rows <= MAX_BATCHED_ROWS and all(tokens <= bound for bound in bounds)


class TrainingRun:
    """A job during training, with its module and head."""

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
        """Return the examples of a step; none if no steps are left."""
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
    """Train modules in passes of the first one, which must have the most steps."""
    states = [run.job.states for run in runs]
    joined = States.concatenated(states) if len(states) > 1 else states[0]
    starts = [0, *accumulate(map(len, states))]
    first = runs[0].module
    first.batch_with([run.module for run in runs[1:]])

    def losses(step: int) -> Tensor:
        rows = [run.rows(step) for run in runs]
        joined_rows = [start + row for start, own_rows in zip(starts, rows, strict=False) for row in own_rows]
        batch = joined.collate(joined_rows, pad=backbone.encoder.pad, device=backbone.device)
        sizes = [len(own_rows) for own_rows in rows]
        first.share(sizes)
        represented = first.represent(batch).split(sizes)
        parts = zip(runs, represented, rows, strict=True)
        return torch.stack([run.loss(part, own_rows) for run, part, own_rows in parts if own_rows])

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


def _report_step(on_step: Callable[[int, float], None] | None, total: int, before: int, done: int) -> None:
    if on_step:
        on_step(before + done, total)


def represented(backbone: Backbone, module: PetModule, states: States) -> Tensor:
    """Return the representations `[n, R]`, float32, of n examples by a module, without gradients."""
    out = torch.zeros(len(states), backbone.representation_size, dtype=torch.float32)
    with torch.no_grad():
        for rows, batch in backbone.batches(states):
            out[rows] = module.represent(batch)[: len(rows)].cpu()
    return out
