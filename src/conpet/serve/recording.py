"""Records the answers of a server process, by a thread that commits many at a time."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from conpet.config import LogConfig, Settings
from conpet.data import Example
from conpet.errors import ConfigError, reason_of
from conpet.review.queue import ReviewQueue
from conpet.serve.logs import Log
from conpet.serve.metrics import Metrics
from conpet.serve.settings import ServeSettings
from conpet.store.prediction_log import PredictionLog, Row
from conpet.types import Prediction

_WAITING = 100_000
"""Most entries that wait while they cannot be written; more are lost, and counted."""
_GATHER_SECONDS = 0.2
"""How long a commit waits for more entries."""
_RETRY_SECONDS = 5.0
_KEEP_SECONDS = 60.0
"""Seconds without answers after which entries that are too old are looked for."""


class _Answered(NamedTuple):
    request: str
    at: float
    examples: Sequence[Example]
    predictions: Sequence[Prediction]
    with_text: bool


class AnswerRecorder:
    """Appends answers to the log after they were given, so that they never wait for the disk.

    If the log cannot be written, answers are given all the same. Their entries wait for the disk, as many as fit into
    memory; what is lost is counted in a metric, and noted in the log as soon as it can be written again.

    Args:
        settings: The server's settings.
        log: The process's log.
        metrics: The process's metrics.
    """

    def __init__(self, settings: ServeSettings, log: Log, metrics: Metrics) -> None:
        self.predictions = PredictionLog(settings.workspace, settings.log_to)
        self._review = ReviewQueue(self.predictions)
        self._override = settings.log_predictions
        self._log = log
        self._metrics = metrics
        self._changed = threading.Condition()
        self._queue: deque[_Answered] = deque()
        self._waiting = 0
        self._closing = False
        self._failing = False
        self._keep_days: int | None = None
        self._thread = threading.Thread(target=self._work, name="conpet-record", daemon=True)
        self._thread.start()

    def mode(self, config: LogConfig) -> str:
        """Return what is recorded, given the settings of the workspace: "off", "hash" or "text"."""
        self._keep_days = config.keep_days
        return self._override or config.predictions

    def check(self, settings: Settings) -> None:
        """Check that answers can be recorded, if they are to be.

        Raises:
            ReadOnlyError: Nothing can be written.
            ConfigError: The file records the predictions of another workspace, or texts must not be stored.
        """
        mode = self.mode(settings.log)
        settings.check_recording(mode)
        if mode != "off":
            self.predictions.require_writable()

    def record(
        self, request: str, examples: Sequence[Example], predictions: Sequence[Prediction], config: LogConfig
    ) -> None:
        """Record the answers to a request soon, if they are to be recorded."""
        mode = self.mode(config)
        if mode == "off":
            return
        with self._changed:
            if self._waiting + len(examples) > _WAITING:
                self._lose(len(examples))
                return
            self._queue.append(_Answered(request, time.time(), examples, predictions, mode == "text"))
            self._waiting += len(examples)
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Write what waits, within some seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        self.predictions.close()

    def _work(self) -> None:
        pause = _KEEP_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing, pause)
                if self._closing and not self._queue:
                    return
                if self._queue and not self._closing:
                    self._changed.wait_for(lambda: self._closing, _GATHER_SECONDS)
                taken, self._queue = list(self._queue), deque()
            if taken:
                self._write(taken)
            pause = _GATHER_SECONDS if self._keep() else _KEEP_SECONDS

    def _write(self, taken: Sequence[_Answered]) -> None:
        """Append entries; try again until they are written, or the server stops."""
        rows: list[Row] | None = None
        number = sum(len(one.examples) for one in taken)
        while True:
            try:
                if rows is None:
                    rows = self._rows(taken)
                self.predictions.append(rows)
                break
            except (OSError, ConfigError, sqlite3.Error) as error:
                if not self._failing:
                    self._log.error(
                        "predictions cannot be recorded; they are answered all the same", reason=reason_of(error)
                    )
                self._failing = True
            with self._changed:
                if self._closing:
                    self._lose(number)
                    self._waiting -= number
                    return
                self._changed.wait_for(lambda: self._closing, _RETRY_SECONDS)
        if self._failing:
            self._log.info("predictions are recorded again")
            self._failing = False
        self._metrics.recorded(number, written=True)
        with self._changed:
            self._waiting -= number

    def _keep(self) -> bool:
        """Delete some of the entries that are too old; return whether more are left."""
        try:
            self._review.keep_for(self._keep_days)
            return self.predictions.keep_for(self._keep_days)
        except (OSError, ConfigError, sqlite3.Error) as error:
            self._log.error("recorded predictions that are too old cannot be deleted yet", reason=reason_of(error))
            return False

    def _rows(self, taken: Sequence[_Answered]) -> list[Row]:
        return [
            row
            for one in taken
            for row in self.predictions.rows(
                one.request, one.examples, one.predictions, with_text=one.with_text, at=one.at
            )
        ]

    def _lose(self, number: int) -> None:
        self.predictions.lost(number)
        self._metrics.recorded(number, written=False)
