"""Statistics of a state: features and class sums of each task, one Gram matrix, and logistic regression weights."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from conpet.artifact import Artifact, ObjectReader
from conpet.data import Kind
from conpet.features.feature_map import FeatureMap
from conpet.features.logistic import LogisticWeights
from conpet.features.statistics import ClassSums, ClosedFormState, Gram, Scatter
from conpet.heads.labels import indices_of
from conpet.state.slots import LOGISTIC, MODULE, REFIT, STATISTICS
from conpet.state.state import Names, State, TaskState

CLASSES = "classes"
FEATURES = "features"
REFIT_CLASSES = "refit_classes"
"""Stem of the class sums over training and validation examples."""
REFIT_FEATURES = "refit_features"
"""Stem of the features of the validation examples, for the logistic regression."""
_ANSWERS = "answers"

Examples = tuple[Tensor, Sequence[str]]
"""Features `[n, F]` and the class of each example."""


class StatisticsReader:
    """Reads the statistics of states, reusing what it read for the previous state. Safe for threads.

    Args:
        feature_map: The feature map of a workspace without tasks.
        solve_at_once: See `ClosedFormState`.
    """

    def __init__(self, feature_map: FeatureMap, *, solve_at_once: bool = False) -> None:
        self._feature_map = feature_map
        self._solve_at_once = solve_at_once
        self._scatter = Scatter()
        self._last: dict[bool, Mapping[Hashable, ClassSums]] = {False: {}, True: {}}
        self._lock = threading.Lock()

    def gram(self, state: State) -> Gram:
        """Return the Gram matrix, whose size does not depend on the number of tasks."""
        return state.fitted("gram", lambda: self._read_gram(state))

    def statistics(self, state: State) -> ClosedFormState:
        """Return the statistics of all tasks, with the classifiers fitted from them so far.

        Those of a state that was refit (`State.refitted`) have the class means and the logistic regression of training
        and validation examples together.
        """
        return state.fitted(STATISTICS, lambda: self._refit(state) if state.refit else self._assembled(state))

    def _assembled(self, state: State) -> ClosedFormState:
        return ClosedFormState(
            self.gram(state),
            self.class_sums(state.tasks),
            self._scatter,
            tuple(logistic_weights(state).values()),
            factors={},
            solve_at_once=self._solve_at_once,
        )

    def _refit(self, state: State) -> ClosedFormState:
        weights = tuple(logistic_weights(state, refit=True).values())
        sums = self.class_sums(state.tasks, refit=True)
        return replace(self.statistics(state.held_out), logistic=weights, refit=sums)

    def _read_gram(self, state: State) -> Gram:
        stored = state.shared.get(STATISTICS)
        return Gram.zero(self._feature_map) if stored is None else Gram.stored(lambda: stored.tensors(STATISTICS))

    def class_sums(self, tasks: Sequence[TaskState], *, refit: bool = False) -> tuple[ClassSums, ...]:
        """Return the class sums of tasks; those read last are not read again.

        Args:
            tasks: The tasks.
            refit: Whether validation examples count, too.
        """
        last, sums = self._last[refit], {}
        for task in tasks:
            key = task.objects[MODULE].key
            sums[key] = last.get(key) or class_sums_of(task, refit=refit)
        with self._lock:
            self._last[refit] = sums
        return tuple(sums.values())


def logistic_weights(state: State, *, refit: bool = False) -> dict[Kind, LogisticWeights]:
    """Read the weights of the logistic regression by kind of input; empty if the method trains none.

    Args:
        state: The state.
        refit: Whether to read those trained on validation examples, too, where there are any.
    """
    stored = state.shared.get(REFIT if refit and REFIT in state.shared else LOGISTIC)
    if stored is None:
        return {}
    labels: Mapping[str, Sequence[str]] = stored.document(LOGISTIC)
    return {Kind(kind): LogisticWeights.from_tensors(stored.tensors(kind), names) for kind, names in labels.items()}


def logistic_artifact(weights: Mapping[Kind, LogisticWeights]) -> Artifact | None:
    """Return the shared object of the weights; None if there are none."""
    if not weights:
        return None
    return Artifact(
        tensors={str(kind): of_kind.to_tensors() for kind, of_kind in weights.items()},
        documents={LOGISTIC: {str(kind): list(of_kind.labels) for kind, of_kind in weights.items()}},
    )


def statistics_tensors(
    sums: ClassSums, train: Examples, validation: Examples | None = None, *, keep_validation: bool = True
) -> dict[str, Mapping[str, Tensor]]:
    """Return the statistics to store with a task, by stem.

    Args:
        sums: Its class sums.
        train: Its training examples, needed to remove some of them later.
        validation: Its validation examples; None if classifiers are not to learn from them.
        keep_validation: Whether to store their features, which the logistic regression needs.
    """
    tensors: dict[str, Mapping[str, Tensor]] = {
        FEATURES: _examples_tensors(train, sums.labels),
        CLASSES: sums.to_tensors(),
    }
    if validation is not None:
        both = ClassSums.of(sums.feature_map, *joined(train, validation))
        tensors[REFIT_CLASSES] = both.to_tensors()
        if keep_validation:
            tensors[REFIT_FEATURES] = _examples_tensors(validation, sums.labels)
    return tensors


def _examples_tensors(examples: Examples, labels: Sequence[str]) -> dict[str, Tensor]:
    features, classes = examples
    return {FEATURES: features, _ANSWERS: indices_of(classes, labels)}


def joined(first: Examples, second: Examples) -> Examples:
    """Return both, one after the other."""
    return torch.cat([first[0], second[0]]), [*first[1], *second[1]]


def class_sums_of(task: TaskState, *, refit: bool = False) -> ClassSums:
    """Read a task's class sums; with `refit`, those over training and validation examples, where these are stored."""
    stored = task.objects[MODULE]
    stem = REFIT_CLASSES if refit and stored.has(REFIT_CLASSES) else CLASSES
    return ClassSums.from_tensors(stored.tensors(stem), task.classes)


def learned_from_validation(objects: Mapping[str, ObjectReader]) -> bool:
    """Return whether classifiers learned from the validation examples of a version with these objects."""
    return MODULE in objects and objects[MODULE].has(REFIT_CLASSES)


def examples_of(task: TaskState, *, refit: bool = False) -> Examples:
    """Read features and classes of a task's training examples; with `refit`, of its validation examples, too."""
    train = features_of(task), classes_of(task)
    stored = task.objects[MODULE]
    if not (refit and stored.has(REFIT_FEATURES)):
        return train
    validation = stored.tensors(REFIT_FEATURES)
    classes = [task.classes[index] for index in validation[_ANSWERS].tolist()]
    return joined(train, (validation[FEATURES], classes))


def features_of(task: TaskState) -> Tensor:
    """Read the features of a task's training examples `[n, F]`."""
    return task.objects[MODULE].tensors(FEATURES)[FEATURES]


def classes_of(task: TaskState) -> list[str]:
    """Read the class of each training example of a task, in the order of `features_of`."""
    return [task.classes[index] for index in task.objects[MODULE].tensors(FEATURES)[_ANSWERS].tolist()]


def remaining_rows(task: TaskState, names: Names) -> list[int]:
    """Return the rows of a task's training examples whose labels `names` does not remove."""
    return [row for row, label in enumerate(classes_of(task)) if names.get(label, label) is not None]


def statistics_alone(task: TaskState) -> Artifact:
    """Return the statistics stored with a task, without its module."""
    stored = task.objects[MODULE]
    stems = (FEATURES, CLASSES, REFIT_CLASSES, REFIT_FEATURES)
    return Artifact(tensors={stem: stored.tensors(stem) for stem in stems if stored.has(stem)})


def updated_gram(gram: Gram, removed: Sequence[TaskState], added: Sequence[Tensor]) -> Gram:
    """Return the Gram matrix without the `removed` tasks and with the `added` features `[n, F]`."""
    if removed:
        gram = gram.minus(torch.cat([features_of(task) for task in removed]))
    if added:
        gram = gram.plus(torch.cat(list(added)) if len(added) > 1 else added[0])
    return gram


def gram_artifact(gram: Gram) -> Artifact:
    """Return the shared object of the Gram matrix."""
    return Artifact(tensors={STATISTICS: gram.to_tensors()})
