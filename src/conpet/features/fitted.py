"""The registered classifiers, fitted to statistics."""

from __future__ import annotations

from collections.abc import Collection

from conpet.features import CLASSIFIERS
from conpet.features.classifiers import ClosedFormClassifier
from conpet.features.feature_map import View
from conpet.features.statistics import ClosedFormState


def classifiers_for(views: Collection[View]) -> tuple[str, ...]:
    """Return the names of `CLASSIFIERS` that can be computed from statistics of these views."""
    return tuple(name for name in CLASSIFIERS if CLASSIFIERS[name].view in views)


def fitted_classifier(state: ClosedFormState, name: str) -> ClosedFormClassifier:
    """Return a classifier of `CLASSIFIERS`, fitted once and kept as long as the statistics are.

    Raises:
        UnknownNameError: There is no such classifier.
        ConfigError: The statistics do not keep the view that it reads; see `classifiers_for`.
        DataError: The statistics hold no label.
    """
    if name not in state.fitted:
        state.fitted[name] = CLASSIFIERS[name]().fit(state)
    classifier: ClosedFormClassifier = state.fitted[name]
    return classifier
