"""Which methods a state allows, and one fitted classifier of each, whoever asks for it."""

from __future__ import annotations

from collections.abc import Collection

from conpet.features import CLASSIFIERS
from conpet.features.classifiers import ClosedFormClassifier
from conpet.features.feature_map import View
from conpet.features.statistics import ClosedFormState


def methods_of(views: Collection[View]) -> tuple[str, ...]:
    """Return the names of `CLASSIFIERS` that can be computed from statistics of these views."""
    return tuple(name for name in CLASSIFIERS if CLASSIFIERS[name].view in views)


def fitted(state: ClosedFormState, method: str) -> ClosedFormClassifier:
    """Return the classifier of a method in `CLASSIFIERS`, computed once and kept for as long as the state is.

    Raises:
        UnknownNameError: There is no such method.
        ConfigError: The state does not keep the view that the method reads; see `methods_of`.
        DataError: The state holds no label.
    """
    if method not in state.fitted:
        state.fitted[method] = CLASSIFIERS[method]().fit(state)
    classifier: ClosedFormClassifier = state.fitted[method]
    return classifier
