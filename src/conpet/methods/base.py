"""The contract of every learner: what it is given, what it hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import MethodConfig, Settings, TaskSettings
from conpet.context import TrainContext
from conpet.data import Example, Kind
from conpet.features.feature_map import View
from conpet.features.statistics import ClosedFormState, Gram
from conpet.replay.memory import StoredExamples, Subset, states_of
from conpet.state.state import MODULE, Names, State, TaskState
from conpet.state.statistics import (
    STATISTICS,
    ClassSumsCache,
    answers_of,
    empty_gram,
    features_of,
    outputs_of,
    statistics_tensors,
    staying,
)

EncodedInputs = Mapping[str | None, States]
"""The same n examples as read through each template in use (None: the default one of their kind)."""


@dataclass(frozen=True, eq=False)
class TaskData:
    """One task to be learned, its training examples already through the prefix.

    Attributes:
        task: The task as it will be known; there is nothing learned of it yet.
        settings: Its settings.
        source: Its examples, all of them, blind to test labels.
        train: States of its training examples.
    """

    task: TaskState
    settings: TaskSettings
    source: StoredExamples
    train: States

    @classmethod
    def of(
        cls, task: TaskState, settings: Settings, source: StoredExamples, backbone: Backbone, **reading: Any
    ) -> Self:
        """Read a task's training examples through the prefix.

        Args:
            task: The task as it will be known.
            settings: Settings of the workspace.
            source: Its examples.
            backbone: The frozen model.
            reading: Further arguments of `Backbone.states`.
        """
        states = source.states(backbone, Subset.TRAIN, **reading)
        return cls(task, settings.for_task(task.settings), source, states)

    @cached_property
    def answers(self) -> list[str]:
        """Labels of the training examples."""
        return self.source.labels(Subset.TRAIN)

    @property
    def targets(self) -> Tensor:
        """Labels of the training examples as indices into the task's labels `[n]`, int64."""
        return outputs_of(self.answers, self.task.labels)


@dataclass(frozen=True, slots=True, eq=False)
class TaskUpdate:
    """What learning one task produced; nothing of it is in force until the store has it.

    Attributes:
        objects: The new version's objects, by slot: what the workspace stores of it beside its examples.
        shared: New shared objects, by slot.
        parameters: Trained parameters of the PET module.
        head_parameters: Trained parameters of the head.
        detail: Anything worth a line in the history (JSON-ready).
        representations: Computes how the learner represents the training examples now `[n, R]`, for who needs it; None
            for a learner that does not represent them otherwise than by their frozen features.
    """

    objects: Mapping[str, Artifact]
    shared: Mapping[str, Artifact | None]
    parameters: int
    head_parameters: int
    detail: Mapping[str, Any] = field(default_factory=dict)
    representations: Callable[[], Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a learner says of n examples, over all L labels and T tasks seen.

    Attributes:
        labels: Log-probabilities of the labels `[n, L]`, float32; one row sums to 1.
        tasks: Log-probabilities of the tasks by the selector `[n, T]`, or None for a method without one.
        selected: Indices of the pre-selected tasks `[n, k]`, best first, or None.
    """

    labels: Tensor
    tasks: Tensor | None = None
    selected: Tensor | None = None


class Method(ABC):
    """Learns one task after another over a frozen backbone.

    A learner object stands for one state and never changes it: `learn` and `update_shared` return what the next state is made
    of; when the store has it, `with_state` gives the learner of that state. So reading threads need no lock.

    Args:
        backbone: The frozen model.
        settings: Settings of the workspace.
        state: What was learned so far.
        sums: Reads class sums; learners of states that follow one another share it.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    """The method's own options (`Settings.method`)."""
    views: ClassVar[tuple[View, ...]] = (View.RAW, View.PROJECTED)
    """Views of the frozen features that statistics are kept of: they decide which references can be computed."""
    tunes: ClassVar[bool] = True
    """Whether it trains a PET module; one that does not needs no suffix."""
    module_per_task: ClassVar[bool] = False
    """Whether each task has a module of its own, of its own shape."""
    retrains: ClassVar[bool] = False
    """Whether every task is learned anew with all before it, so that only what stands in the end need be measured."""
    sections: ClassVar[frozenset[str]] = frozenset({"module", "head", "training", "selector", "fusion", "replay"})
    """Sections of the settings that the method reads, beside those every workspace reads."""

    def __init__(
        self, backbone: Backbone, settings: Settings, state: State, sums: ClassSumsCache | None = None
    ) -> None:
        self.backbone = backbone
        self.settings = settings
        self.config = settings.method
        self.state = state
        self.sums = sums or ClassSumsCache()

    @classmethod
    def unused_sections(cls, settings: Settings) -> frozenset[str]:
        """Return the sections of the settings that nothing reads in a workspace of this method."""
        warmup = frozenset() if settings.backbone.warmup == "none" else frozenset({"module", "training"})
        return Method.sections - cls.sections - warmup

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` unless a task of these settings can be learned in a workspace of those."""

    @abstractmethod
    def with_state(self, state: State) -> Self:
        """Return the learner of another state, with what can be kept in memory kept."""

    @abstractmethod
    def learn(self, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Learn a task: one that is new, or one whose present version is to be replaced."""

    @property
    def batch_blocker(self) -> str | None:
        """Why several tasks cannot be learned in one go, or None if they can."""
        return f"method={self.name} learns every task on from the one before"

    def learn_batch(self, tasks_data: Sequence[TaskData], contexts: Sequence[TrainContext]) -> list[TaskUpdate]:
        """Learn several tasks, none of which builds on another, in one go.

        What they share, the last of what is returned has. Not to be called if there is a reason `batch_blocker`.

        Args:
            lessons: The tasks.
            works: For each its seed; costs, checkpoints and progress are those of the first, and no task is in the
                memory of any.
        """
        raise NotImplementedError(self.batch_blocker)

    @abstractmethod
    def update_shared(
        self, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> Mapping[str, Artifact | None]:
        """Return new shared objects for when `removed` is taken out and `added`, if any, put in its place.

        None takes an object away.
        """

    def relabel(self, known: TaskState, names: Names, context: TrainContext) -> TaskUpdate:
        """Return a new version of a task in which labels have other names, or are gone; nothing is trained.

        The statistics come out as if the examples of labels that go had never been there. This suits a method that is
        computed from them; one that stores more by label adds to it.

        Args:
            known: The task in its active version.
            names: Its labels' new names; one label at least stays.
            work: Past examples, those of this task under their new labels.
        """
        with context.costs.stage("statistics"):
            features, gram, stay = features_of(known), self.gram, staying(known, names)
            gone = sorted(set(range(len(features))).difference(stay))
            answers = [label for one in answers_of(known) if (label := names.get(one, one)) is not None]
            kept = statistics_tensors(gram.feature_map, features[stay], answers)
            left = {STATISTICS: gram.minus(features[gone]).to_tensors()} if gone else {}
        shared = {STATISTICS: Artifact(tensors=left)} if left else {}
        return TaskUpdate({MODULE: Artifact(tensors=kept)}, shared, parameters=0, head_parameters=0)

    def prune_labels(self, before: Sequence[TaskState], after: Sequence[TaskState]) -> Mapping[str, Artifact | None]:
        """Return the shared modules that serve fewer labels than before, without those labels; None: it serves none.

        Args:
            before: All versions stored, in use or not, before a change.
            after: All of them after it.
        """
        return {}

    @cached_property
    def gram(self) -> Gram:
        """The part of the closed-form statistics that is of one size however many tasks there are."""
        stored = self.state.shared.get(STATISTICS)
        if stored is None:
            return empty_gram(self.backbone, self.settings, self.views)
        return Gram.from_tensors(stored.tensors(STATISTICS))

    @cached_property
    def closed(self) -> ClosedFormState:
        """The closed-form statistics over all tasks, of which the references are computed; to learn takes `gram`."""
        return ClosedFormState(self.gram, self.sums.of(self.state.tasks), self.sums.scatter)

    def statistics(self, removed: Sequence[TaskState], added: Sequence[Tensor]) -> dict[str, Artifact | None]:
        """Return the shared statistics without some tasks and with the features `[n, F]` of others."""
        gram = self.gram
        if removed:
            gram = gram.minus(torch.cat([features_of(task) for task in removed]))
        if added:
            gram = gram.plus(torch.cat(list(added)) if len(added) > 1 else added[0])
        return {STATISTICS: Artifact(tensors={STATISTICS: gram.to_tensors()})}

    def add_to_statistics(
        self, tasks_data: Sequence[TaskData]
    ) -> tuple[list[Mapping[str, Mapping[str, Tensor]]], dict[str, Artifact | None]]:
        """Return what is kept of the statistics with each of some tasks, and the shared ones with all of them in."""
        features = [task_data.train.features for task_data in tasks_data]
        kept = [
            statistics_tensors(self.gram.feature_map, some, task_data.answers)
            for some, task_data in zip(features, tasks_data, strict=True)
        ]
        return kept, self.statistics(self.known(*(task_data.task.name for task_data in tasks_data)), features)

    @abstractmethod
    def score(self, readings: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind; labels of tasks of another kind get -inf."""

    def within_task(self, readings: EncodedInputs, owners: Tensor) -> Tensor:
        """Return log-probabilities over the labels `[n, L]` given each example's true task `[n]` (others -inf)."""
        scores = self.score(readings, self.state.tasks[int(owners[0])].kind).labels
        return torch.log_softmax(scores.masked_fill(self.owner != owners.unsqueeze(1), -torch.inf), dim=1)

    def readings(self, examples: Sequence[Example], kind: Kind, *, keep: bool) -> EncodedInputs:
        """Read examples of one kind through every template in use for it: one prefix pass each.

        Args:
            examples: n examples.
            kind: Their kind.
            keep: Whether what is computed goes into the state cache.
        """
        return {template: self.backbone.states(examples, template, keep=keep) for template in self.templates(kind)}

    def encode_stored(self, drawn: Sequence[tuple[StoredExamples, Sequence[int]]], subset: Subset) -> EncodedInputs:
        """Read stored examples of past tasks of one kind, some rows of each, as `readings` does."""
        return {
            template: states_of(drawn, self.backbone, subset, template) for template in self.templates(drawn[0][0].kind)
        }

    def templates(self, kind: Kind) -> dict[str | None, None]:
        """Return the templates in use for a kind, each once."""
        return dict.fromkeys(task.template for task in self.state.tasks if task.kind is kind)

    def known(self, *names: str) -> list[TaskState]:
        """Return those of the tasks of these names that were learned already."""
        return [task for task in self.state.tasks if task.name in names]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels seen, task by task: the columns of scores."""
        return tuple(label for task in self.state.tasks for label in task.labels)

    @cached_property
    def owner(self) -> Tensor:
        """Index of the task each label belongs to `[L]`, int64."""
        sizes = torch.tensor([len(task.labels) for task in self.state.tasks], dtype=torch.int64)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    @cached_property
    def label_templates(self) -> tuple[str | None, ...]:
        """The template each label's task is read with."""
        return tuple(task.template for task in self.state.tasks for _ in task.labels)

    @cached_property
    def other_kind(self) -> Mapping[Kind, Tensor]:
        """For each kind, which tasks are of another `[T]`, bool."""
        kinds = [task.kind for task in self.state.tasks]
        return {kind: torch.tensor([one is not kind for one in kinds], dtype=torch.bool) for kind in Kind}


def by_template(templates: Sequence[str | None], readings: EncodedInputs, score: Callable[[States], Tensor]) -> Tensor:
    """Score columns (labels or tasks), each from the states its own template gives.

    Args:
        templates: The template each of C columns is read with.
        readings: The examples' states by template; a column whose template is not among them gets -inf.
        score: States to scores of all columns `[n, C]`.
    """
    if len(set(templates)) == 1 and templates[0] in readings:
        return score(readings[templates[0]])
    scores = torch.full((count(readings), len(templates)), -torch.inf)
    for template, states in readings.items():
        columns = [index for index, used in enumerate(templates) if used == template]
        if columns:
            scores[:, columns] = score(states)[:, columns]
    return scores


def count(readings: EncodedInputs) -> int:
    """Return the number of examples read."""
    return len(next(iter(readings.values())))
