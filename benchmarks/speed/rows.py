"""All rows, in the order of the page. To add a row, write a `Row` and list it here."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.speed.learning import LearnAllLayers, LearnLateTask, LearnSameLayers, LearnTogether
from benchmarks.speed.memory import OpenManyModules, Stream
from benchmarks.speed.predicting import (
    HalfFormat,
    MixedBatch,
    OneText,
    Predict,
    PredictEncoder,
    PredictManyTasks,
    PredictTopThree,
)
from benchmarks.speed.row import Row

ROWS: dict[str, type[Row]] = {
    row.name: row
    for row in (
        LearnSameLayers,
        LearnAllLayers,
        LearnLateTask,
        LearnTogether,
        Predict,
        PredictEncoder,
        PredictManyTasks,
        PredictTopThree,
        MixedBatch,
        HalfFormat,
        OneText,
        OpenManyModules,
        Stream,
    )
}
GOALS = {key: goal for row in ROWS.values() for key, goal in row.goals.items()}
"""All goals by their keys in the result file, in the order of the page."""
MEASURED_BY = {key: row.name for row in ROWS.values() for key in row.goals}
"""The name of the row that measures a goal, by the goal's key."""


def rows_named(names: Sequence[str]) -> list[str]:
    """Return distinct rows by their names or the keys of their goals, in the order of the page."""
    wanted = {MEASURED_BY.get(name, name) for name in names}
    return [name for name in ROWS if name in wanted]
