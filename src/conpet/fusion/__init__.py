"""Fusion: combine the scores of selector, modules and classifiers into one ranking over all labels."""

from conpet.registry import Registry

FUSIONS = Registry(
    "fusion",
    "conpet.fusion",
    {"paper": "conpet.fusion.paper:PaperFusion", "calibrated": "conpet.fusion.calibrated:CalibratedFusion"},
    base="conpet.fusion.base:Fusion",
    configs={"calibrated": "conpet.fusion.settings:CalibratedFusionConfig"},
)
