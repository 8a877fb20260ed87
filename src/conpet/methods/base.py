"""The contract of every continual-learning method: its inputs and its results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import MethodConfig, Settings, TaskSettings
from conpet.context import TrainContext
from conpet.data import Example, Kind
from conpet.errors import ConfigError
from conpet.features.feature_map import FeatureMap, View
from conpet.features.scope import Scope
from conpet.features.statistics import ClassSums, ClosedFormState, Gram
from conpet.heads.base import Head
from conpet.heads.labels import LabelHead, indices_of
from conpet.heads.stored import make_head
from conpet.replay.memory import StoredExamples, Subset, states_of
from conpet.state.inputs import EncodedInputs
from conpet.state.logistic import LogisticTrainer, Rows
from conpet.state.slots import LOGISTIC, MODULE, REFIT, STATISTICS
from conpet.state.state import SCOPES, Names, State, TaskState
from conpet.state.statistics import (
    Examples,
    StatisticsReader,
    classes_of,
    features_of,
    gram_artifact,
    learned_from_validation,
    logistic_artifact,
    logistic_weights,
    remaining_rows,
    statistics_tensors,
    updated_gram,
)
from conpet.state.update import SharedUpdate, TaskUpdate

_CHUNK = 512
"""Most validation examples whose prefix states are in memory at once."""


@dataclass(frozen=True, eq=False)
class TaskData:
    """One task to learn, with the prefix states of its training examples.

    Attributes:
        task: The task as the state will hold it; not learned yet.
        settings: Its settings.
        source: Its examples, without test labels.
        train: Prefix states of its training examples.
    """

    task: TaskState
    settings: TaskSettings
    source: StoredExamples
    train: States

    @classmethod
    def of(
        cls, task: TaskState, settings: Settings, source: StoredExamples, backbone: Backbone, **reading: Any
    ) -> Self:
        """Pass a task's training examples through the prefix.

        Args:
            task: The task as the state will hold it.
            settings: Settings of the workspace.
            source: Its examples.
            backbone: The frozen model.
            reading: Further arguments of `Backbone.states`.
        """
        states = source.states(backbone, Subset.TRAIN, **reading)
        return cls(task, settings.for_task(task.settings), source, states)

    @cached_property
    def answers(self) -> list[str]:
        """Correct answers of the training examples: labels, or values for a head without labels."""
        return self.source.labels(Subset.TRAIN)

    @cached_property
    def classes(self) -> list[str]:
        """Class of each training example, for the statistics."""
        return self.task.classes_for(self.answers)

    @cached_property
    def head(self) -> Head:
        """A new head of the task's kind."""
        return make_head(self.settings.head)

    @property
    def targets(self) -> Tensor:
        """Labels of the training examples as indices into the task's labels `[n]`, int64."""
        return indices_of(self.answers, self.task.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How a method scores n examples over all C classes and T tasks.

    Attributes:
        classes: Log-probabilities of the classes `[n, C]`, float32; the probabilities of a row sum to 1.
        tasks: Log-probabilities of the tasks by the selector `[n, T]`, or None for a method without one.
        selected: Indices of the pre-selected tasks `[n, k]`, best first, or None.
        ran: True for each class whose module was run `[n, C]`, or None for a method without modules.
    """

    classes: Tensor
    tasks: Tensor | None = None
    selected: Tensor | None = None
    ran: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """New objects of learned tasks, not committed yet.

    Attributes:
        objects: New objects of each task's active version, by task and slot.
        shared: New shared objects, by slot.
        state: The state with these objects.
        steps: Optimiser steps taken.
    """

    objects: Mapping[str, Mapping[str, Artifact]]
    shared: Mapping[str, Artifact | None]
    state: State
    steps: int


class Method(ABC):
    """Learns tasks over a frozen backbone and scores inputs.

    A method holds no learned state: every call takes the `State` to work on, and learning returns the parts of the next
    one. One object therefore serves all threads and all generations. It holds only caches: modules in memory, outputs
    of frozen modules, the statistics read last.

    Args:
        backbone: The frozen model.
        settings: Settings of the workspace.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    """The method's own options (`Settings.method`)."""
    views: ClassVar[tuple[View, ...]] = (View.RAW,)
    """Views of the frozen features with statistics; they decide which reference classifiers can be fitted."""
    trains_logistic: ClassVar[bool] = True
    """Whether learning trains a logistic regression on the frozen features of all tasks."""
    tunes: ClassVar[bool] = True
    """Whether the method trains a PET module; one that does not needs no suffix."""
    module_per_task: ClassVar[bool] = False
    """Whether each task has its own module, of any shape, and any head."""
    retrains: ClassVar[bool] = False
    """Whether each task is learned together with all earlier ones, so that evaluating after the last is enough."""
    consolidates: ClassVar[bool] = False
    """Whether `consolidate` is defined."""
    refits: ClassVar[bool] = False
    """Whether answers come from classifiers that learn from validation examples, too (`State.refitted`)."""
    sections: ClassVar[frozenset[str]] = frozenset(
        {"module", "head", "training", "selector", "fusion", "replay", "consolidation"}
    )
    """Sections of the settings that the method reads, in addition to those that every workspace reads."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        self.backbone = backbone
        self.settings = settings
        self.config = settings.method
        features = settings.features
        feature_map = FeatureMap(backbone.feature_size, features.projection, settings.seed, views=self.views)
        self.statistics_reader = StatisticsReader(feature_map, solve_at_once=backbone.deterministic)
        self._logistic_trainers = {slot: LogisticTrainer() for slot in (LOGISTIC, REFIT)}

    @classmethod
    def unused_sections(cls, settings: Settings) -> frozenset[str]:
        """Return the sections of the settings that have no effect with this method."""
        warmup = frozenset() if settings.backbone.warmup == "none" else frozenset({"module", "training"})
        return Method.sections - cls.sections - warmup

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` if a task with settings `task` cannot be learned in a workspace with `settings`."""
        if not cls.module_per_task and task.head.name != LabelHead.name:
            raise ConfigError(
                f"head.name={task.head.name}: method {cls.name!r} answers with labels only; use method 'dynamic'"
            )

    # Learning

    @abstractmethod
    def learn_task(self, state: State, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Learn a new task, or a new version of a learned one."""

    def batch_blocker(self, state: State) -> str | None:
        """Return why several tasks cannot be learned in one batch, or None if they can."""
        return f"method {self.name!r} starts each task from the result of the previous one"

    def learn_batch(
        self, state: State, batch: Sequence[TaskData], contexts: Sequence[TrainContext]
    ) -> list[TaskUpdate]:
        """Learn several independent tasks at once; the last update holds the shared objects.

        Call it only if `batch_blocker` returns None.

        Args:
            state: The present state.
            batch: The tasks.
            contexts: One for each task. Their seeds count; costs, checkpoints and progress are taken from the first. No
                memory contains a task of the batch.
        """
        raise NotImplementedError(self.batch_blocker(state))

    @abstractmethod
    def update_shared(
        self, state: State, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> SharedUpdate:
        """Return the shared objects of the state in which `added`, if any, replaces `removed`."""

    def consolidate(self, state: State, batch: Sequence[TaskData], context: TrainContext) -> Rebuilt:
        """Learn all tasks of a workspace again, at once, after a consolidation changed the backbone.

        Call it only if `consolidates`.

        Args:
            state: A state of the new backbone, without tasks.
            batch: All tasks, in the order in which they were learned.
            context: Costs, checkpoints, progress; the examples of all tasks.
        """
        raise NotImplementedError(f"method {self.name!r} does not consolidate")

    def relabel(self, state: State, task: TaskState, names: Names, context: TrainContext) -> TaskUpdate:
        """Return a new version of a task with labels renamed or removed; its module is not trained.

        The statistics equal those of learning without the examples of the removed labels. A method that stores anything
        else by label overrides `reduce` and adds it.

        Args:
            state: The present state.
            task: The task in its active version.
            names: New names of its labels; at least one label remains.
            context: Past examples; those of this task have their new labels.
        """
        update = self.reduce(state, task, names, remaining_rows(task, names), context)
        if None not in names.values():
            return update
        fitted = self.fit_again(state.apply(update), {task.kind}, context)
        return update.plus(fitted)

    def reduce(
        self, state: State, task: TaskState, names: Names, stay: Sequence[int], context: TrainContext
    ) -> TaskUpdate:
        """Return a new version of a task with some of its training examples; nothing is trained or fitted again.

        The statistics equal those of learning without the other examples. A method that stores anything else by label
        or example overrides this and adds it. `fit_again` does the rest, once for all changed tasks.

        Args:
            state: The present state.
            task: The task in its active version.
            names: New names of its labels; at least one label remains.
            stay: Rows of the training examples that remain; they have no label that `names` removes.
            context: Past examples; those of this task have their new labels.
        """
        with context.costs.stage("statistics"):
            features, gram = features_of(task), self.gram(state)
            gone = sorted(set(range(len(features))).difference(stay))
            present = classes_of(task)
            classes = [str(names.get(present[row], present[row])) for row in stay]
            sums = ClassSums.of(gram.feature_map, features[stay], classes)
            renamed = task.renamed(names)
            source = next(source for source in context.memory if source.task == task.name)
            tensors = self._statistics_tensors(sums, (features[stay], classes), renamed, source)
            left = gram.minus(features[gone]) if gone else None
            shared: dict[str, Artifact | None] = {STATISTICS: gram_artifact(left)} if left else {}
            for slot in (slot for slot in (LOGISTIC, REFIT) if slot in state.shared):
                weights = logistic_weights(state, refit=slot == REFIT)
                if task.kind in weights:
                    weights[task.kind] = weights[task.kind].renamed(names)
                    shared = {**shared, slot: logistic_artifact(weights)}
        return TaskUpdate(
            renamed,
            {MODULE: Artifact(tensors=tensors)},
            shared,
            fits={"gram": left or gram},
        )

    def trained_with(self, state: State, names: Collection[str]) -> Collection[str] | None:
        """Return the names of the tasks whose modules were trained on examples of some tasks, also indirectly.

        None if it may be all of them: then everything has to be learned again to forget an example.
        """
        return None

    def train_again(self, state: State, batch: Sequence[TaskData], contexts: Sequence[TrainContext]) -> Rebuilt:
        """Train the modules of tasks anew on other examples; the statistics do not change.

        Call it only with all tasks that remain of those that `trained_with` returns.

        Args:
            state: The present state.
            batch: The tasks.
            contexts: One for each task, as in `learn_batch`; their memory has the examples of all tasks.
        """
        raise NotImplementedError(f"method {self.name!r} learns all tasks again")

    def fit_again(self, state: State, kinds: Collection[Kind], context: TrainContext) -> SharedUpdate:
        """Return what is fitted on the examples of all tasks, fitted again after examples were removed.

        The logistic regression keeps no trace of them, up to a number of examples (`conpet.state.logistic.MAX_ANEW`).

        Args:
            state: The state without these examples.
            kinds: The kinds of removed training and validation examples.
            context: The validation examples of all tasks.
        """
        if not (trained := logistic_weights(state).keys() & kinds):
            return SharedUpdate()
        with context.costs.stage("statistics"):
            return SharedUpdate(self._train_logistic(state, trained, removed=True))

    def prune_labels(
        self, state: State, before: Sequence[TaskState], after: Sequence[TaskState]
    ) -> Mapping[str, Artifact | None]:
        """Return each shared module that now serves fewer labels, without the others; None if it serves none.

        Args:
            state: The present state.
            before: All stored versions, active or not, before a change.
            after: All stored versions after it.
        """
        return {}

    def gram(self, state: State) -> Gram:
        """Return the Gram matrix, the statistics whose size does not depend on the number of tasks."""
        return self.statistics_reader.gram(state)

    def statistics(self, state: State) -> ClosedFormState:
        """Return the statistics of all tasks, from which the closed-form classifiers are fitted."""
        return self.statistics_reader.statistics(state)

    def scope(self, state: State, kind: Kind) -> tuple[Tensor, Scope]:
        """Return the columns of the classes of a kind `[C]`, and the score of belonging to one of them.

        It is calibrated on validation examples, so it is that of `State.held_out` for every input.
        """
        state = state.held_out
        scopes: dict[Kind, tuple[Tensor, Scope]] = state.fitted(SCOPES, dict)
        if kind not in scopes:
            kinds = [task.kind is kind for task in state.tasks]
            columns = torch.tensor(kinds)[state.owner].nonzero().squeeze(1)
            scopes[kind] = columns, Scope.fit(self.statistics(state), columns)
        return scopes[kind]

    def add_to_statistics(
        self, state: State, batch: Sequence[TaskData]
    ) -> tuple[list[dict[str, Mapping[str, Tensor]]], SharedUpdate]:
        """Add tasks to the statistics; return the tensors stored with each task, and the shared statistics."""
        gram = self.gram(state)
        features = [data.train.features for data in batch]
        stored = []
        for task_features, data in zip(features, batch, strict=True):
            sums = ClassSums.of(gram.feature_map, task_features, data.classes)
            stored.append(self._statistics_tensors(sums, (task_features, data.classes), data.task, data.source))
        names = [data.task.name for data in batch]
        updated = updated_gram(gram, state.known(*names), features)
        shared: dict[str, Artifact | None] = {STATISTICS: gram_artifact(updated)}
        if self.trains_logistic:
            tasks = [
                replace(data.task, objects={MODULE: InMemoryObject(Artifact(tensors=tensors))})
                for data, tensors in zip(batch, stored, strict=True)
            ]
            kinds = {data.task.kind for data in batch}
            shared |= self._train_logistic(state, kinds, without=names, added=tasks)
        return stored, SharedUpdate(shared, {"gram": updated})

    def _statistics_tensors(
        self, sums: ClassSums, train: Examples, task: TaskState, source: StoredExamples
    ) -> dict[str, Mapping[str, Tensor]]:
        """Return the statistics to store with a task; see `statistics_tensors`."""
        validation = self._validation_examples(task, source) if self.settings.features.refit else None
        return statistics_tensors(sums, train, validation, keep_validation=self.trains_logistic)

    def _validation_examples(self, task: TaskState, source: StoredExamples) -> Examples | None:
        """Return features and classes of the validation examples of a task; None if it has none."""
        classes = task.classes_for(source.labels(Subset.VALIDATION))
        if not classes:
            return None
        starts = range(0, len(classes), _CHUNK)
        chunks = [range(start, min(start + _CHUNK, len(classes))) for start in starts]
        features = [
            states_of([(source, rows)], self.backbone, Subset.VALIDATION, features_first=True).features
            for rows in chunks
        ]
        return torch.cat(features), classes

    def updated_statistics(
        self, state: State, removed: Sequence[TaskState], added: Sequence[TaskState]
    ) -> SharedUpdate:
        """Return the shared statistics without the `removed` tasks and with the `added` ones."""
        gram = updated_gram(self.gram(state), removed, [features_of(task) for task in added])
        shared: dict[str, Artifact | None] = {STATISTICS: gram_artifact(gram)}
        if self.trains_logistic:
            kinds = {task.kind for task in (*removed, *added)}
            without = [task.name for task in removed]
            shared |= self._train_logistic(state, kinds, without=without, added=added, removed=True)
        return SharedUpdate(shared, {"gram": gram})

    def _train_logistic(
        self,
        state: State,
        kinds: Collection[Kind],
        *,
        without: Collection[str] = (),
        added: Sequence[TaskState] = (),
        removed: bool = False,
    ) -> dict[str, Artifact | None]:
        """Train the logistic regression after a change: on training examples, and on validation examples, too.

        Args:
            state: The state before the change.
            kinds: As in `LogisticTrainer.train`.
            without: Names of its tasks that are gone or replaced.
            added: Tasks that join the others.
            removed: As in `LogisticTrainer.train`.

        Returns:
            The shared objects of the weights, by slot.
        """
        others = [task for task in state.tasks if task.name not in without]
        shared: dict[str, Artifact | None] = {}
        refits = any(learned_from_validation(task.objects) for task in (*others, *added))
        for slot in (LOGISTIC, REFIT) if refits else (LOGISTIC,):
            refit = slot == REFIT
            sums = self.statistics_reader.class_sums(others, refit=refit)
            rows = [Rows(task, known, refit) for task, known in zip(others, sums, strict=True)]
            weights = self._logistic_trainers[slot].train(
                logistic_weights(state, refit=refit),
                rows + [Rows.stored(task, refit=refit) for task in added],
                [task.name for task in added],
                kinds,
                block=self.backbone.hidden_size,
                last_layer=self.backbone.features_reach_last_layer,
                seed=self.settings.seed,
                removed=removed,
            )
            shared[slot] = logistic_artifact(weights)
        return shared if refits or REFIT not in state.shared else {**shared, REFIT: None}

    # Answering

    @abstractmethod
    def score(self, state: State, inputs: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind; classes of tasks of another kind get -inf."""

    def prepare(self, state: State) -> None:
        """Fit everything that the first prediction from a state needs, so that it does not have to wait."""
        if state.tasks:
            self.statistics(state.refitted)
            for kind in {task.kind for task in state.tasks}:
                self.scope(state, kind)

    def within_task(self, state: State, inputs: EncodedInputs, owners: Tensor) -> Tensor:
        """Return log-probabilities over the classes `[n, C]` given each example's true task `[n]` (others -inf).

        They are uniform over the task's classes where `score` gives all of them -inf.
        """
        scores = self.score(state, inputs, state.tasks[int(owners[0])].kind).classes
        inside = state.owner == owners.unsqueeze(1)
        own = scores.masked_fill(~inside, -torch.inf)
        impossible = (own == -torch.inf).all(dim=1, keepdim=True)
        return torch.log_softmax(own.masked_fill(inside & impossible, 0.0), dim=1)

    def answers(self, state: State, inputs: EncodedInputs, rows: Sequence[int], task: int) -> list[Any]:
        """Return the answers of a task without labels.

        Args:
            state: The present state.
            inputs: The encoded examples.
            rows: Rows to answer.
            task: Index of the task.

        Returns:
            A `conpet.heads.base.Answer` for each row.
        """
        raise NotImplementedError(f"method {self.name!r} answers with labels only")

    def encode(self, state: State, examples: Sequence[Example], kind: Kind, *, keep: bool) -> EncodedInputs:
        """Pass examples of one kind through the prefix, once for each template in use for that kind.

        Args:
            state: The present state.
            examples: n examples.
            kind: Their kind.
            keep: Whether to read and fill the state cache.
        """
        return {template: self.backbone.states(examples, template, keep=keep) for template in state.templates(kind)}

    def encode_stored(
        self, state: State, drawn: Sequence[tuple[StoredExamples, Sequence[int]]], subset: Subset
    ) -> EncodedInputs:
        """Encode stored examples as `encode` does: the drawn rows of tasks of one kind."""
        kind = drawn[0][0].kind
        return {
            template: states_of(drawn, self.backbone, subset, template, features_first=True)
            for template in state.templates(kind)
        }
