"""What a learner stores for the closed forms: features and class sums with each task, one Gram matrix for all."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.config import Settings
from conpet.features.feature_map import FeatureMap, View
from conpet.features.statistics import ClassSums, Gram, Scatter
from conpet.state.state import MODULE, Names, TaskState

STATISTICS = "statistics"
"""Shared slot, and stem in it, of the Gram matrix."""
CLASSES = "classes"
FEATURES = "features"
_ANSWERS = "answers"


def outputs_of(answers: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Return the index of each of n answers among `labels`, which is its output in a head for them: `[n]`, int64."""
    column = {label: index for index, label in enumerate(labels)}
    return torch.tensor([column[answer] for answer in answers], dtype=torch.int64)


def empty_gram(backbone: Backbone, settings: Settings, views: tuple[View, ...]) -> Gram:
    """Return the statistics, over some views of the features, of a workspace that has learned nothing."""
    return Gram.zero(FeatureMap(backbone.feature_size, settings.features.projection, settings.seed, views=views))


def statistics_tensors(
    feature_map: FeatureMap, features: Tensor, labels: Sequence[str]
) -> Mapping[str, Mapping[str, Tensor]]:
    """Return what is kept with a task, by stem: features `[n, F]` and labels, to take out examples by, and sums."""
    sums = ClassSums.of(feature_map, features, labels)
    return {FEATURES: {FEATURES: features, _ANSWERS: outputs_of(labels, sums.labels)}, CLASSES: sums.to_tensors()}


def classes_of(task: TaskState) -> ClassSums:
    """Read a task's class sums."""
    return ClassSums.from_tensors(task.objects[MODULE].tensors(CLASSES), task.labels)


class ClassSumsCache:
    """Reads class sums, but for those of the tasks it was last asked for: one state differs from the next in few.

    Attributes:
        scatter: What is kept of them beside.
    """

    def __init__(self) -> None:
        self.scatter = Scatter()
        self._last: Mapping[Hashable, ClassSums] = {}

    def of(self, tasks: Sequence[TaskState]) -> tuple[ClassSums, ...]:
        """Return the class sums of some tasks."""
        last = self._last  # another thread may exchange it meanwhile
        found = {}
        for task in tasks:
            key = task.objects[MODULE].folder
            found[key] = last.get(key) or classes_of(task)
        self._last = found
        return tuple(found.values())


def features_of(task: TaskState) -> Tensor:
    """Read the features `[n, F]` a task was learned from."""
    return task.objects[MODULE].tensors(FEATURES)[FEATURES]


def staying(task: TaskState, names: Names) -> list[int]:
    """Return the rows of the examples a task was learned from whose label is not gone under new names."""
    return [row for row, label in enumerate(answers_of(task)) if names.get(label, label) is not None]


def statistics_alone(task: TaskState) -> Artifact:
    """Return of what is stored with a task that which the closed forms need, without its module."""
    return Artifact(tensors={stem: task.objects[MODULE].tensors(stem) for stem in (FEATURES, CLASSES)})


def answers_of(task: TaskState) -> list[str]:
    """Read the label of each example a task was learned from, in the order of its features."""
    return [task.labels[index] for index in task.objects[MODULE].tensors(FEATURES)[_ANSWERS].tolist()]
