"""What a learner stores for the closed forms: features and class sums with each task, one Gram matrix for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from conpet.backbone.backbone import Backbone
from conpet.closedform.features import FeatureMap, View
from conpet.closedform.statistics import ClassSums, Gram
from conpet.config import Settings
from conpet.learners.state import MODULE, KnownTask

STATISTICS = "statistics"
"""Shared slot, and stem in it, of the Gram matrix."""
CLASSES = "classes"
FEATURES = "features"


def empty_gram(backbone: Backbone, settings: Settings, views: tuple[View, ...]) -> Gram:
    """Return the statistics, over some views of the features, of a workspace that has learned nothing."""
    return Gram.zero(FeatureMap(backbone.feature_size, settings.projection, settings.seed, views=views))


def statistics_tensors(
    feature_map: FeatureMap, features: Tensor, labels: Sequence[str]
) -> Mapping[str, Mapping[str, Tensor]]:
    """Return what is kept with a task, by stem: its features `[n, F]`, with which it can be taken out, and its sums."""
    sums = ClassSums.of(feature_map, features, labels)
    return {FEATURES: {FEATURES: features}, CLASSES: sums.to_tensors()}


def classes_of(task: KnownTask) -> ClassSums:
    """Read a task's class sums."""
    return ClassSums.from_tensors(task.objects[MODULE].tensors(CLASSES), task.labels)


def features_of(task: KnownTask) -> Tensor:
    """Read the features `[n, F]` a task was learned from."""
    return task.objects[MODULE].tensors(FEATURES)[FEATURES]
