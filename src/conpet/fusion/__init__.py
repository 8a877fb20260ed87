"""Fusion: how scores of selector, modules and classifiers become one ranking over all labels."""

from conpet.registry import Registry

FUSIONS = Registry(
    "fusion",
    "conpet.fusion",
    {"paper": "conpet.fusion.paper:PaperFusion", "calibrated": "conpet.fusion.calibrated:CalibratedFusion"},
)
