"""The examples of benchmarks/accuracy.yaml, in one piece per subset: the data of everything that is retrained."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

from conpet.bench.experiment import Experiment
from conpet.bench.run import read_source, stream_of_run
from conpet.data import Example, Kind

EXPERIMENT = Path(__file__).with_name("accuracy.yaml")


class Everything(NamedTuple):
    """All examples of a data set after the last task."""

    tasks: int
    train: list[Example]
    validation: list[Example]
    test: list[Example]


def everything(kinds: Container[Kind] = (Kind.TEXT,)) -> tuple[str, dict[str, Everything]]:
    """Return the backbone's name, and the examples of each data set of these kinds."""
    experiment = Experiment.read(EXPERIMENT)
    runs = {run.data: run for run in experiment.runs("accuracy") if run.order == 0}
    found: dict[str, Everything] = {}
    for data, run in runs.items():
        tasks = stream_of_run(run, read_source(data, ()))
        if tasks[0].train[0].kind in kinds:
            train, validation, test = (
                [one for task in tasks for one in getattr(task, subset)] for subset in ("train", "validation", "test")
            )
            found[data] = Everything(len(tasks), train, validation, test)
    return experiment.backbone, found
