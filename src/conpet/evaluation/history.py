"""A workspace's history as the metrics need it; imports no torch, so that reading a workspace is fast."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.evaluation.metrics import AccuracyMatrix, Measurement, Row, Tally
from conpet.store import EventRecord
from conpet.types import ACCURACY

CACHE = "cache"
"""Key of an event's detail: lookups in the state cache ("asked"), and hits."""
BATCH = "batch"
"""Key of an event's detail: all tasks learned in the same change; the event has its task's share of the cost."""
JOB = "job"
"""Key of an event's detail: the id of the job that made the change."""
DESIGN = "design"
"""Key of an event's detail: the `TuneReport` of a search for a design."""
DECISION_COST = "decision_cost"
"""Key of an event's detail: mean cost of the decisions on validation examples, where an error costs 1."""
TUNE = "tune"
"""Verb of the event of a search for a design; it changes the settings, but no predictions."""
COSTS = "costs"
"""Verb of the event that sets what mistakes cost; it changes decisions, but no label and no score."""
LOG = "log"
"""Verb of the event that sets what is recorded of predictions; it changes no answer."""
SETTINGS_ONLY = frozenset({TUNE, COSTS, LOG})
"""Verbs of events that change only settings."""

_LEARNING = frozenset({"learn", "split", "retire", "forget"})


def matrix_of(events: Sequence[EventRecord]) -> AccuracyMatrix:
    """Return the accuracy matrix of a workspace's history; events without an evaluation have no row."""
    return AccuracyMatrix(tuple(row_of(event) for event in events if event.metrics))


def row_of(event: EventRecord) -> Row:
    """Return an event's row of the accuracy matrix."""
    tallies = {
        metric.task: Measurement(metric.value, metric.n).tally for metric in event.metrics if metric.metric == ACCURACY
    }
    return Row(learned_by(event), tallies)


def learned_by(event: EventRecord) -> str | None:
    """Return the task whose data the event changed, so that earlier accuracies are not comparable; None for none."""
    return event.task if event.verb in _LEARNING else None


def metrics_of(event: EventRecord) -> dict[str, dict[str, Measurement]]:
    """Return an event's metrics by task and name."""
    measurements: dict[str, dict[str, Measurement]] = {}
    for metric in event.metrics:
        measurements.setdefault(metric.task, {})[metric.metric] = Measurement(metric.value, metric.n)
    return measurements


class Standing:
    """Follows a history row by row, with only the tallies that forgetting and backward transfer need.

    Computing these from the whole matrix after each of n events would take n times as long.
    """

    def __init__(self) -> None:
        self._first: dict[str, Tally] = {}
        self._best: dict[str, Tally] = {}

    def followed_by(self, row: Row) -> AccuracyMatrix:
        """Add a row; return a matrix of three rows with the forgetting and backward transfer of the whole matrix."""
        matrix = AccuracyMatrix((Row(None, dict(self._first)), Row(None, dict(self._best)), row))
        if row.learned is not None:
            self._first.pop(row.learned, None)
            self._best.pop(row.learned, None)
        for task, tally in row.tallies.items():
            accuracy = tally.accuracy
            if accuracy is None:
                continue
            if task not in self._first:
                self._first[task] = self._best[task] = tally
            elif accuracy > (self._best[task].accuracy or 0.0):
                self._best[task] = tally
        return matrix
