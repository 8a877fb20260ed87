"""Classifiers of frozen features: closed forms of exact additive statistics, and logistic regression."""

from __future__ import annotations

from conpet.registry import Registry

CLASSIFIERS = Registry(
    "classifier",
    "conpet.classifiers",
    {
        "nearest-mean": "conpet.features.classifiers:NearestMean",
        "lda": "conpet.features.classifiers:LinearDiscriminant",
        "ridge": "conpet.features.classifiers:Ridge",
        "projected-ridge": "conpet.features.classifiers:ProjectedRidge",
        "klda": "conpet.features.classifiers:KernelDiscriminant",
        "logistic": "conpet.features.classifiers:TrainedLogistic",
    },
)
"""Names of the `ClosedFormEstimator` classes; each class can be built without arguments."""
