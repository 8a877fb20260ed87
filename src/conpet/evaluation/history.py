"""A workspace's history as the metrics see it; loads no torch, so that reading a workspace stays quick."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.evaluation.metrics import AccuracyMatrix, Measurement, Row, Tally
from conpet.store import EventRecord
from conpet.types import ACCURACY

CACHE = "cache"
"""Key of an event's detail: how many states the cache was asked for, and how many of them it had."""
BATCH = "batch"
"""Key of an event's detail: the tasks learned in the same change, of whose cost the event has the task's share."""
DESIGN = "design"
"""Key of an event's detail: a `TuneReport`, of a search for a design."""
TUNE = "tune"
"""Verb of such an event: it changes the settings, and no answer that the workspace gives."""

_ANEW = frozenset({"learn", "split", "retire"})


def matrix_of(events: Sequence[EventRecord]) -> AccuracyMatrix:
    """Return the accuracy matrix of a workspace's history; events without an evaluation have no row."""
    return AccuracyMatrix(tuple(row_of(event) for event in events if event.metrics))


def row_of(event: EventRecord) -> Row:
    """Return an event's row of the accuracy matrix."""
    right = {one.task: Measurement(one.value, one.n).tally for one in event.metrics if one.metric == ACCURACY}
    return Row(learned_by(event), right)


def learned_by(event: EventRecord) -> str | None:
    """Return the task that is another than before, so that its earlier accuracies do not compare; None for none."""
    return event.task if event.verb in _ANEW else None


def metrics_of(event: EventRecord) -> dict[str, dict[str, Measurement]]:
    """Return an event's metrics by task and name."""
    found: dict[str, dict[str, Measurement]] = {}
    for one in event.metrics:
        found.setdefault(one.task, {})[one.metric] = Measurement(one.value, one.n)
    return found


class Standing:
    """Follows a history row by row and keeps of it only what forgetting and backward transfer need.

    Working these out after each of n events from the whole matrix would take n times as long.
    """

    def __init__(self) -> None:
        self._first: dict[str, Tally] = {}
        self._best: dict[str, Tally] = {}

    def followed_by(self, row: Row) -> AccuracyMatrix:
        """Take a row in; return a matrix of three rows that has the whole matrix's forgetting and backward transfer."""
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
