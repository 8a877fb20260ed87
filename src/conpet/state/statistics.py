"""Statistics of a state: features and class sums of each task, one Gram matrix, and logistic regression weights."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.data import Kind
from conpet.features.feature_map import FeatureMap
from conpet.features.logistic import LogisticWeights
from conpet.features.statistics import ClassSums, ClosedFormState, Gram, Scatter
from conpet.heads.labels import indices_of
from conpet.state.slots import LOGISTIC, MODULE, STATISTICS
from conpet.state.state import Names, State, TaskState

CLASSES = "classes"
FEATURES = "features"
_ANSWERS = "answers"


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
        self._last: Mapping[Hashable, ClassSums] = {}
        self._lock = threading.Lock()

    def gram(self, state: State) -> Gram:
        """Return the Gram matrix, whose size does not depend on the number of tasks."""
        return state.fitted("gram", lambda: self._read_gram(state))

    def statistics(self, state: State) -> ClosedFormState:
        """Return the statistics of all tasks, with the classifiers fitted from them so far."""
        return state.fitted(
            STATISTICS,
            lambda: ClosedFormState(
                self.gram(state),
                self.class_sums(state.tasks),
                self._scatter,
                tuple(logistic_weights(state).values()),
                solve_at_once=self._solve_at_once,
            ),
        )

    def _read_gram(self, state: State) -> Gram:
        stored = state.shared.get(STATISTICS)
        return Gram.zero(self._feature_map) if stored is None else Gram.stored(lambda: stored.tensors(STATISTICS))

    def class_sums(self, tasks: Sequence[TaskState]) -> tuple[ClassSums, ...]:
        """Return the class sums of tasks; those read last are not read again."""
        last, sums = self._last, {}
        for task in tasks:
            key = task.objects[MODULE].key
            sums[key] = last.get(key) or class_sums_of(task)
        with self._lock:
            self._last = sums
        return tuple(sums.values())


def logistic_weights(state: State) -> dict[Kind, LogisticWeights]:
    """Read the weights of the logistic regression by kind of input; empty if the method trains none."""
    stored = state.shared.get(LOGISTIC)
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


def statistics_tensors(sums: ClassSums, features: Tensor, classes: Sequence[str]) -> dict[str, Mapping[str, Tensor]]:
    """Return the statistics to store with a task, by stem.

    Args:
        sums: Its class sums.
        features: Features of its training examples `[n, F]`, needed to remove examples later.
        classes: The class of each example.
    """
    return {FEATURES: {FEATURES: features, _ANSWERS: indices_of(classes, sums.labels)}, CLASSES: sums.to_tensors()}


def class_sums_of(task: TaskState) -> ClassSums:
    """Read a task's class sums."""
    return ClassSums.from_tensors(task.objects[MODULE].tensors(CLASSES), task.classes)


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
    return Artifact(tensors={stem: task.objects[MODULE].tensors(stem) for stem in (FEATURES, CLASSES)})


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
