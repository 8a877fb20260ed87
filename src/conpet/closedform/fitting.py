"""Which methods a state allows, and one fitted classifier of each, whoever asks for it."""

from __future__ import annotations

from collections.abc import Collection

from conpet.closedform import METHODS
from conpet.closedform.classifiers import ClosedFormClassifier
from conpet.closedform.features import View
from conpet.closedform.statistics import ClosedFormState


def methods_of(views: Collection[View]) -> tuple[str, ...]:
    """Return the names of `METHODS` that can be computed from statistics of these views."""
    return tuple(name for name in METHODS if METHODS[name].view in views)


def fitted(state: ClosedFormState, method: str) -> ClosedFormClassifier:
    """Return the classifier of a method in `METHODS`, computed once and kept for as long as the state is.

    Raises:
        UnknownNameError: There is no such method.
        ConfigError: The state does not keep the view that the method reads; see `methods_of`.
        DataError: The state holds no label.
    """
    if method not in state.fitted:
        state.fitted[method] = METHODS[method]().fit(state)
    classifier: ClosedFormClassifier = state.fitted[method]
    return classifier
