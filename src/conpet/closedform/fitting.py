"""One fitted classifier of a method for each state, whoever asks for it."""

from __future__ import annotations

from conpet.closedform import METHODS
from conpet.closedform.classifiers import ClosedFormClassifier
from conpet.closedform.statistics import ClosedFormState


def fitted(state: ClosedFormState, method: str) -> ClosedFormClassifier:
    """Return the classifier of a method in `METHODS`, computed once and kept for as long as the state is.

    Raises:
        UnknownNameError: There is no such method.
        DataError: The state holds no label.
    """
    if method not in state.fitted:
        state.fitted[method] = METHODS[method]().fit(state)
    classifier: ClosedFormClassifier = state.fitted[method]
    return classifier
