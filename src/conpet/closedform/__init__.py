"""Classifiers that are computed, not trained, from exact additive statistics of frozen features."""

from __future__ import annotations

from conpet.registry import Registry

METHODS = Registry(
    "closed-form method",
    {
        "nearest-mean": "conpet.closedform.classifiers:NearestMean",
        "lda": "conpet.closedform.classifiers:LinearDiscriminant",
        "ridge": "conpet.closedform.classifiers:Ridge",
        "projected-ridge": "conpet.closedform.classifiers:ProjectedRidge",
        "klda": "conpet.closedform.classifiers:KernelDiscriminant",
    },
)
"""Name to the class of a `ClosedFormMethod`; every one can be built without arguments."""
