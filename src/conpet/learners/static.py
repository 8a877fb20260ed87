"""Static methods: one PET module and one head for all tasks, trained on and on."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.config import Settings, TaskSettings
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.learners.base import SELECTING, Learned, Learner, Lesson, Readings, Scores, count
from conpet.learners.memo import RememberingBank
from conpet.learners.session import Session, Step, Trained
from conpet.learners.state import MODULE, STATIC, UNIT, KnownTask, LearnerState, Names, unit_artifact
from conpet.learners.statistics import ClassSumsMemo, features_of, staying
from conpet.learners.units import LABELS, Units, reheaded
from conpet.pet.adapter import ADAPTER_TENSORS, Adapter
from conpet.pet.bank import ModuleBank
from conpet.pet.module import HEAD, PetModule, adapter_artifact
from conpet.pet.train import represented, zero_head
from conpet.readable import Readable
from conpet.training import Plan, TrainLog, optimise
from conpet.work import Work

METHOD = "method"
"""Stem, in that slot, of the tensors a method keeps from one task to the next."""
PER_LABEL = "label."
"""Names of those tensors that have one row for each of the head's labels begin so."""


class StaticLearner(Learner, ABC):
    """One PET module and one head over all labels, updated for every task (Static ConPET, Song et al. 2023, 3.2).

    This class is the frame: it grows the head, draws batches (half new, half old where the method replays), trains
    within the task's budget and stores the result. A method says what is minimised, and what it does before and after.
    With the frame alone, a method minimises the cross-entropy over all labels seen.

    Scores of the labels are the softmax of the one head's outputs; there is no selector. A version of a task holds no
    module: going back to another version learns that version's stored examples anew, and what the module has seen of a
    removed task cannot be told apart from the rest.
    """

    unused: ClassVar[frozenset[str]] = SELECTING
    replays: ClassVar[bool] = True
    """Whether half of a batch is old examples."""
    resumable: ClassVar[bool] = True
    """Whether a step's loss depends on weights and step alone. If not, training that was interrupted begins anew."""

    def __init__(
        self,
        backbone: Backbone,
        settings: Settings,
        state: LearnerState,
        sums: ClassSumsMemo | None = None,
        bank: RememberingBank | None = None,
    ) -> None:
        super().__init__(backbone, settings, state, sums)
        self.bank = bank or RememberingBank(ModuleBank(backbone))
        self.options = self.Options.parse(settings.options)

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` if a task asks for a module of its own: there is one for all."""
        own = [name for name, value in task.shape.items() if value != getattr(settings, name)]
        if own:
            raise ConfigError(
                f"{', '.join(own)}: method {cls.name!r} trains one module for all tasks, so a task cannot have its "
                "own; leave it out, or set it for the workspace (`conpet init`)"
            )

    def renewed(self, state: LearnerState) -> Self:
        """Return the learner of another state."""
        return type(self)(self.backbone, self.settings, state, self.sums, self.bank)

    # What a method may say

    def before(self, session: Session) -> None:
        """Look at the module as it was left by the tasks before; nothing was trained yet."""

    def loss(self, session: Session, step: Step) -> Tensor:
        """Return what is minimised at a step, a scalar."""
        logits = session.head(session.represent(step))
        return session.reduced(step, nn.functional.cross_entropy(logits, step.targets, reduction="none"))

    def after_backward(self, session: Session, step: int) -> None:
        """Change the gradients of a step, if the method does."""

    def after(self, session: Session) -> None:
        """Work on what was trained: it will not be trained any more for this task."""

    def extra_parameters(self, session: Session) -> Mapping[str, nn.Parameter]:
        """Return what is trained beside the module and the head, by name."""
        return {}

    def answering(self, session: Session) -> Adapter:
        """Return the module that answers are given with."""
        return session.module.adapter()

    def readout(self, session: Session) -> nn.Linear:
        """Return the linear map from representations to scores of the labels that answers are given with."""
        return session.head

    def kept(self, session: Session) -> Mapping[str, Tensor]:
        """Return what the method needs of this task when it learns the next one, but not to answer."""
        return {}

    def kept_with_task(
        self, session: Session, representations: Callable[[], Tensor]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return tensors by stem that belong to the task just learned and go with it.

        Args:
            session: The task, trained.
            representations: Computes, once, how the module represents its training examples now `[n, R]`, on the CPU.
        """
        return {}

    def kept_relabelled(
        self, known: KnownTask, names: Names, stay: Sequence[int]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return what `kept_with_task` kept with a task, for when its labels have other names, or are gone.

        Args:
            known: The task in its active version.
            names: Its labels' new names.
            stay: Rows of the training examples whose label is not gone.
        """
        return {}

    # Answering

    def score(self, readings: Readings, kind: Kind) -> Scores:
        """Score n examples of one kind by the one module; labels of tasks of another kind get -inf."""
        the_one = torch.zeros(count(readings), 1, dtype=torch.int64)
        return Scores(torch.log_softmax(self.units.run(readings, kind, the_one), dim=1))

    @cached_property
    def units(self) -> Units:
        """The one module, and the tasks it serves."""
        return Units(self.state, self.bank)

    # Learning

    def learn(self, lesson: Lesson, work: Work) -> Learned:
        """Learn a task within its budget of steps."""
        with work.costs.stage("statistics"):
            (statistics,), shared = self.counted_in([lesson])
        with work.costs.stage("replay"):
            session = self.session(lesson, work)
        with work.costs.stage("module"):
            log = self._trained(session)
            representations = cache(lambda: represented(self.backbone, session.module, lesson.train))
            with_task = self.kept_with_task(session, representations)
        beside = {**session.head_parameters, **self.extra_parameters(session)}
        readout = self.readout(session)
        kept = self.kept(session)
        head = {LABELS: list(session.labels)}
        more = {METHOD: kept} if kept else {}
        shared |= {STATIC: adapter_artifact(self.answering(session), readout, head, **more)}
        return Learned(
            objects={
                MODULE: Artifact(tensors={**statistics, **with_task}),
                UNIT: unit_artifact(STATIC),
            },
            shared=shared,
            parameters=sum(parameter.numel() for parameter in session.module.parameters.values()),
            head_parameters=sum(parameter.numel() for parameter in beside.values()),
            detail={"steps": log.steps, "final_loss": log.losses[-1]},
            representations=representations,
        )

    def revise(self, leaving: KnownTask, coming: KnownTask | None, work: Work) -> Mapping[str, Artifact | None]:
        """Return new shared objects for when `leaving` is taken out and `coming`, if any, put in its place.

        The head loses the labels of `leaving`; the stored examples of `coming` are learned anew.
        """
        with work.costs.stage("statistics"):
            shared = self.statistics([leaving], [])
        labels = [label for task in self.state.tasks if task.name != leaving.name for label in task.labels]
        shared[STATIC] = self.narrowed({label: label for label in labels}) if labels or coming else None
        if coming is None:
            return shared
        source = next(one for one in work.memory if one.task == coming.name)
        lesson = Lesson.of(coming, self.settings, source, self.backbone)
        others = replace(work, memory=[one for one in work.memory if one is not source])
        learned = self.renewed(self.state.without(leaving.name, shared)).learn(lesson, others)
        return shared | dict(learned.shared) | self.statistics([leaving], [features_of(coming)])

    def frozen(self) -> Mapping[str, Artifact | None]:
        """Return the shared objects for when the module is not trained any more, by whatever method goes on."""
        if self.last is None or not self.last.has(METHOD):
            return {}
        return {STATIC: reheaded(self.last, {label: label for label in self.last.document(HEAD)[LABELS]})}

    def relabelled(self, known: KnownTask, names: Names, work: Work) -> Learned:
        """Return a new version of a task in which labels have other names, or are gone; the head follows."""
        learned = super().relabelled(known, names, work)
        labels = {label: names.get(label, label) for task in self.state.tasks for label in task.labels}
        shared = self.narrowed({new: old for old, new in labels.items() if new is not None})
        module = learned.objects[MODULE]
        kept = replace(module, tensors={**module.tensors, **self.kept_relabelled(known, names, staying(known, names))})
        return replace(
            learned, objects={MODULE: kept, UNIT: unit_artifact(STATIC)}, shared={**learned.shared, STATIC: shared}
        )

    def narrowed(self, outputs: Mapping[str, str]) -> Artifact:
        """Return the stored module with a head for some labels alone, each given with its name in the present head."""
        assert self.last is not None, "a task leaves that was never learned"  # noqa: S101
        module, kept = reheaded(self.last, outputs), self.carried(list(outputs.values()))
        return replace(module, tensors={**module.tensors, METHOD: kept}) if kept else module

    # Parts

    def session(self, lesson: Lesson, work: Work) -> Session:
        """Return the task as it is to be trained on: the last module and head, grown; new and drawn old examples."""
        labels = self.labels_with(lesson)
        trained = Trained(self.started(work.seed), self.grown(labels))
        return Session.begun(trained, self.settings, lesson, work, labels, replays=self.replays)

    def labels_with(self, lesson: Lesson) -> tuple[str, ...]:
        """Return the labels of all other tasks, then those of the one to be learned."""
        others = [label for task in self.state.tasks if task.name != lesson.task.name for label in task.labels]
        return (*others, *lesson.task.labels)

    @property
    def last(self) -> Readable | None:
        """The stored module, or None before the first task."""
        return self.state.shared.get(STATIC)

    def started(self, seed: int) -> PetModule:
        """Return the module with its last weights, or its first ones, drawn from a seed."""
        module = PetModule(self.backbone, self.settings.for_task({}), seed)
        if self.last is not None:
            module.load(self.last.tensors(ADAPTER_TENSORS))
        return module

    def grown(self, labels: Sequence[str]) -> nn.Linear:
        """Build a head for these labels: rows of the last head where it has them, zeros for new ones."""
        head = zero_head(self.backbone, len(labels))
        if self.last is not None:
            known, last = self.last.document(HEAD)[LABELS], self.last_head(self.last)
            with torch.no_grad():
                head.weight.copy_(_of_labels(last["weight"], known, labels))
                head.bias.copy_(_of_labels(last["bias"], known, labels))
        return head

    def last_head(self, stored: Readable) -> Mapping[str, Tensor]:
        """Return the weight and bias of the head that training goes on from: here the one that answers."""
        return stored.tensors(HEAD)

    def carried(self, labels: Sequence[str]) -> dict[str, Tensor]:
        """Return what the method kept of the tasks before, its rows for these labels: zeros for new ones."""
        if self.last is None or not self.last.has(METHOD):
            return {}
        known = self.last.document(HEAD)[LABELS]
        return {
            name: _of_labels(value, known, labels) if name.startswith(PER_LABEL) else value
            for name, value in self.last.tensors(METHOD).items()
        }

    def _trained(self, session: Session) -> TrainLog:
        self.before(session)
        session.module.train()
        settings, work = session.lesson.settings, session.work
        log = optimise(
            {**session.parameters, **self.extra_parameters(session)},
            lambda step: self.loss(session, session.step(step)),
            Plan(session.steps, settings.learning_rate, settings.weight_decay, seed=work.seed),
            checkpoint=work.scratch / STATIC if work.scratch and self.resumable and session.resumable else None,
            on_gradient=lambda step: self.after_backward(session, step),
            on_step=lambda step: work.progress("module", (step + 1) / session.steps),
        )
        session.module.train(False)
        self.backbone.meter.steps += log.steps - log.resumed_at
        self.after(session)
        return log


def _of_labels(rows: Tensor, known: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Return the rows of `labels` `[L, ...]` out of those of `known` labels; zeros for labels that are not known."""
    row_of = {label: row for row, label in enumerate(known)}
    pairs = [(row, row_of[label]) for row, label in enumerate(labels) if label in row_of]
    found = rows.new_zeros(len(labels), *rows.shape[1:])
    found[[row for row, _ in pairs]] = rows[[row for _, row in pairs]]
    return found
