"""Train modules with their heads: a pure function of the backbone, the examples, the settings and the seed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import TaskSettings
from conpet.pet.kinds import PET_KINDS
from conpet.pet.kinds.base import PetKind
from conpet.pet.module import PetModule
from conpet.training import READ_STEPS, Course, Plan, TrainLog, epoch_batches, optimise_together, steps_of

Watch = Callable[[int, PetModule, nn.Linear], None]
"""Looks at a module and its head in training: called with the number of steps done. It may raise."""


ROWS_TOGETHER = 64
"""Examples up to which modules go through a step together: by then the machine is busy, and more only takes memory."""
PADDED_TOGETHER = 1.25
"""Padded tokens of a step together, at most, as a multiple of those of its modules alone: more would cost the gain."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What one module and its head are to learn.

    Attributes:
        states: Prefix states of n examples.
        targets: Index of each one's label `[n]`.
        labels: Number of labels.
        settings: Module, epochs, rates.
        seed: Seed of the first weights and of the order of examples.
        others: Fixed logits of the labels of older tasks `[n, O]` that stand beside the new ones in the softmax (the
            paper's training at k > 1), or None.
        name: What messages call it, or None where there is but one.
    """

    states: States
    targets: Tensor
    labels: int
    settings: TaskSettings
    seed: int
    others: Tensor | None = None
    name: str | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps it takes."""
        return steps_of(len(self.states), self.settings)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(one.ids) for one in self.states.encoded]

    @property
    def rows(self) -> int:
        """Examples of a step, at most."""
        return min(self.settings.batch_size, len(self.states))

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(self.lengths)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModule:
    """A module with its linear head, and how training went."""

    module: PetModule
    head: nn.Linear
    log: TrainLog


def train_module(
    backbone: Backbone,
    states: States,
    targets: Tensor,
    labels: int,
    settings: TaskSettings,
    seed: int,
    *,
    others: Tensor | None = None,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    watch: Watch | None = None,
) -> TrainedModule:
    """Train a new module and head by cross-entropy.

    Args:
        backbone: The frozen model.
        states: As in `Subject`.
        targets: As in `Subject`.
        labels: As in `Subject`.
        settings: As in `Subject`.
        seed: As in `Subject`.
        others: As in `Subject`.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called with the number of steps done and of all steps.
        watch: Called behind every step; what it raises ends the training.
    """
    pupil = _Pupil(backbone, Subject(states, targets, labels, settings, seed, others))

    def report(done: int) -> None:
        if on_step:
            on_step(done, pupil.course.plan.steps)
        if watch:
            watch(done, pupil.module, pupil.head)

    return _train(backbone, [pupil], checkpoint, report, read_steps=1 if watch else READ_STEPS)[0]


def train_modules(
    backbone: Backbone,
    subjects: Sequence[Subject],
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
    sets = sets_of(subjects)
    total, before = sum(subjects[first].steps for first, *_ in sets), 0
    for number, some in enumerate(sets):
        folder = checkpoint if checkpoint is None or len(sets) == 1 else checkpoint / f"set-{number}"
        pupils = [_Pupil(backbone, subjects[index]) for index in some]
        report = partial(_tell, on_step, total, before)
        found |= dict(zip(some, _train(backbone, pupils, folder, report), strict=True))
        before += subjects[some[0]].steps
    return [found[index] for index in range(len(subjects))]


def sets_of(subjects: Sequence[Subject]) -> list[list[int]]:
    """Return which subjects are trained together, by index; in each set those of most steps come first."""
    order = sorted(range(len(subjects)), key=lambda index: (-subjects[index].steps, subjects[index].longest))
    sets: list[list[int]] = []
    open_sets: dict[Hashable, list[int]] = {}
    for index in order:
        shape = tuple(sorted(subjects[index].settings.shape.items()))
        some = open_sets.get(shape)
        if some is None or not _fit_together([subjects[one] for one in (*some, index)]):
            some = open_sets[shape] = []
            sets.append(some)
        some.append(index)
    return sets


def _fit_together(subjects: Sequence[Subject]) -> bool:
    """Tell whether subjects of one shape can, and should, go through a step together."""
    kind: PetKind = PET_KINDS[subjects[0].settings.pet]()
    if any(one.others is not None or not kind.trains_together(one.settings) for one in subjects):
        return False
    rows = sum(one.rows for one in subjects)
    tokens = rows * max(one.longest for one in subjects)
    bounds: list[float] = [one.settings.training_tokens for one in subjects if one.settings.training_tokens is not None]
    bounds.append(PADDED_TOGETHER * sum(one.rows * one.longest for one in subjects))
    return rows <= ROWS_TOGETHER and all(tokens <= bound for bound in bounds)


class _Pupil:
    """A subject while its module is trained."""

    def __init__(self, backbone: Backbone, subject: Subject) -> None:
        settings = subject.settings
        self.subject = subject
        self.module = PetModule(backbone, settings, subject.seed)
        self.head = zero_head(backbone, subject.labels)
        head = {f"head.{name}": value for name, value in self.head.named_parameters()}
        plan = Plan(subject.steps, settings.learning_rate, settings.weight_decay, seed=subject.seed)
        self.course = Course({**self.module.parameters, **head}, plan, subject.name)
        self._per_epoch = ceil(len(subject.states) / settings.batch_size)
        self._orders: dict[int, list[list[int]]] = {}

    def rows(self, step: int) -> list[int]:
        """Return the examples of a step; none where there are no steps left."""
        if not self.course.lasts(step):
            return []
        epoch = step // self._per_epoch
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(self.subject.seed + epoch)
            batches = epoch_batches(self.subject.lengths, self.subject.settings.batch_size, generator)
            self._orders = {epoch: batches}
        return self._orders[epoch][step % self._per_epoch]

    def loss(self, represented: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the loss of some examples, given their representations."""
        logits, others = self.head(represented), self.subject.others
        if others is not None:
            logits = torch.cat([logits, others[rows].to(logits.device)], dim=1)
        return nn.functional.cross_entropy(logits, self.subject.targets[rows].to(logits.device))


def _train(
    backbone: Backbone,
    pupils: Sequence[_Pupil],
    checkpoint: Path | None,
    report: Callable[[int], None],
    read_steps: int = READ_STEPS,
) -> list[TrainedModule]:
    """Train modules in passes of the first, which must have most steps."""
    states = [pupil.subject.states for pupil in pupils]
    joined = States.concatenated(states) if len(states) > 1 else states[0]
    starts = [0, *accumulate(map(len, states))]
    first = pupils[0].module
    first.stand_beside([pupil.module for pupil in pupils[1:]])

    def losses(step: int) -> Tensor:
        rows = [pupil.rows(step) for pupil in pupils]
        everywhere = [start + row for start, some in zip(starts, rows, strict=False) for row in some]
        batch = joined.collate(everywhere, pad=backbone.encoder.pad, device=backbone.device)
        first.share([len(some) for some in rows])
        represented = first.represent(batch).split([len(some) for some in rows])
        of_each = zip(pupils, represented, rows, strict=True)
        backbone.meter.steps += sum(bool(some) for some in rows)
        return torch.stack([pupil.loss(part, some) for pupil, part, some in of_each if some])

    for pupil in pupils:
        pupil.module.train()
    logs = optimise_together(
        [pupil.course for pupil in pupils],
        losses,
        checkpoint=checkpoint,
        on_step=lambda step: report(step + 1),
        read_steps=read_steps,
    )
    first.stand_beside([])
    for pupil in pupils:
        pupil.module.train(False)
    return [TrainedModule(pupil.module, pupil.head, log) for pupil, log in zip(pupils, logs, strict=True)]


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


def zero_head(backbone: Backbone, outputs: int) -> nn.Linear:
    """Return a head of zeros: its first prediction is uniform, and nothing is drawn from the global generator."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, backbone.representation_size, outputs, device=backbone.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def linear_head(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the head of a weight `[labels, R]` and a bias `[labels]`."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head
