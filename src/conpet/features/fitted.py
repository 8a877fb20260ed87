"""The registered classifiers, fitted to statistics."""

from __future__ import annotations

from conpet.features import CLASSIFIERS
from conpet.features.classifiers import ClosedFormClassifier
from conpet.features.logistic import LogisticRegression
from conpet.features.statistics import ClosedFormState


def classifiers_for(state: ClosedFormState) -> tuple[str, ...]:
    """Return the names in `CLASSIFIERS` that can be fitted to these statistics."""
    return tuple(
        name
        for name in CLASSIFIERS
        if CLASSIFIERS[name].view in state.feature_map.views and (state.logistic or name != LogisticRegression.name)
    )


def fitted_classifier(state: ClosedFormState, name: str) -> ClosedFormClassifier:
    """Return the classifier with this name, fitted on first use and kept with the statistics.

    Raises:
        UnknownNameError: No classifier has that name.
        ConfigError: The statistics do not include the view it reads; see `classifiers_for`.
        DataError: The statistics have no labels.
    """
    if name not in state.fitted:
        state.fitted[name] = CLASSIFIERS[name]().fit(state)
    classifier: ClosedFormClassifier = state.fitted[name]
    return classifier
