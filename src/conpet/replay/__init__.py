"""Replay: retentions decide which past examples are stored, schedules which of them are drawn for training."""

from conpet.registry import Registry

SCHEDULES = Registry(
    "replay schedule",
    "conpet.schedules",
    {
        "fixed": "conpet.replay.fixed:FixedReplay",
        "dynamic": "conpet.replay.dynamic:DynamicReplay",
    },
    base="conpet.replay.rehearsal:Rehearsal",
)

RETENTIONS = Registry(
    "retention",
    "conpet.retentions",
    {
        "reservoir": "conpet.replay.retention:Reservoir",
        "class-balanced": "conpet.replay.retention:ClassBalanced",
        "k-means": "conpet.replay.retention:KMeans",
    },
)
