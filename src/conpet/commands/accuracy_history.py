"""Accuracy over time, from the history; imports no torch, and holds little of a long history in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from conpet.evaluation.history import SETTINGS_ONLY, Standing, row_of
from conpet.evaluation.metrics import average_accuracy, forgetting, forgetting_by_example, whole_accuracy
from conpet.report.data import NOTABLE_FALL
from conpet.store import EventRecord, Store

_CHUNK = 50
"""Events read at once: each may have measurements of all tasks."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured after a change.

    Attributes:
        generation: The generation that it made.
        time: When, in UTC.
        verb: The change.
        task: The task changed, if it was one.
        version: The version it made or activated, if any.
        tasks: Number of tasks that were measured.
        tested: Number of test examples.
        whole: Accuracy over the test examples of all tasks, 0 to 1; None if it was not measured.
        average: Mean of the accuracies of the tasks.
        forgetting: Mean fall of older tasks from their best accuracy.
        forgetting_by_example: The same, with each task weighed by its test examples.
    """

    generation: int
    time: datetime
    verb: str
    task: str | None
    version: int | None
    tasks: int = 0
    tested: int = 0
    whole: float | None = None
    average: float | None = None
    forgetting: float | None = None
    forgetting_by_example: float | None = None

    @property
    def fell(self) -> bool:
        """Whether older tasks have lost so much that it is worth a look; tiny tasks alone are none."""
        falls = (self.forgetting, self.forgetting_by_example)
        return all(fall is not None and fall >= NOTABLE_FALL for fall in falls)


class AccuracyHistory:
    """Accuracy after each change that may alter answers; later calls read only new events.

    Args:
        workspace: The workspace's folder; it is opened with the first call.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._store: Store | None = None
        self._standing = Standing()
        self._points: list[Point] = []
        self._read = 0
        self._lock = threading.Lock()

    def points(self) -> tuple[Point, ...]:
        """Return what was measured so far, oldest first."""
        with self._lock:
            store = self._store = self._store or Store.open(self._workspace)
            last = store.generation()
            while self._read < last:
                until = min(last, self._read + _CHUNK)
                for event in store.events(self._read, until):
                    if event.verb != "create" and event.verb not in SETTINGS_ONLY:
                        self._points.append(self._point(event))
                self._read = until
            return tuple(self._points)

    def _point(self, event: EventRecord) -> Point:
        named = (event.id, event.time, event.verb, event.task, event.version)
        if not event.metrics:
            return Point(*named)
        row = row_of(event)
        matrix, now = self._standing.followed_by(row), row.tallies
        tested = sum(tally.total for tally in now.values())
        forgotten = forgetting(matrix), forgetting_by_example(matrix)
        return Point(*named, len(now), tested, whole_accuracy(now), average_accuracy(now), *forgotten)
