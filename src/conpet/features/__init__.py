"""Classifiers that are computed, not trained, from exact additive statistics of frozen features."""

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
    },
)
"""Name to the class of a `ClosedFormEstimator`; every one can be built without arguments."""
