"""Watches the record of the workspace that is served: gauges, the log, and a webhook."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from contextlib import suppress

from conpet.commands.watch import LogWatch
from conpet.errors import ConfigError, is_out_of_memory, reason_of
from conpet.serve.background import Background
from conpet.serve.logs import Log
from conpet.serve.metrics import Metrics
from conpet.serve.settings import ServeSettings
from conpet.store import Store
from conpet.store.prediction_log import PredictionLog
from conpet.watching.report import WatchOptions, WatchReport
from conpet.watching.webhook import keep_alarms, send_alarms

FRESH_SECONDS = 10.0
"""Age from which a report for pages is made anew."""
LOCK = "predictions.watch"
"""File beside the record whose lock the process holds that watches it."""


class Watcher:
    """Watches the record every `watch_seconds`, in a thread of one of the server's processes, and on request.

    Args:
        settings: The server's settings.
        predictions: The record.
        metrics: The process's metrics.
        log: The process's log.

    Attributes:
        report: The last report, for those who cannot wait until the record is read.
    """

    def __init__(self, settings: ServeSettings, predictions: PredictionLog, metrics: Metrics, log: Log) -> None:
        self._settings = settings
        self._predictions = predictions
        self._metrics = metrics
        self._log = log
        self._looking = threading.Lock()
        self._watch: LogWatch | None = None
        self._stop = threading.Event()
        self._known: set[tuple[int, str]] = set()
        self._kept: set[tuple[int, str]] = set()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="conpet-drift", daemon=True)
        self.report: Background[WatchReport] = Background(self.look, FRESH_SECONDS)

    def start(self) -> None:
        """Begin to watch, if the settings say so."""
        if self._settings.watch_seconds is not None:
            self._thread.start()

    def close(self, seconds: float) -> None:
        """Stop within some seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def look(self) -> WatchReport:
        """Return what was found up to now; only what is new is read."""
        with self._looking:
            if self._watch is None:
                settings = self._settings
                options = WatchOptions.of(settings.watch_false_alarm, settings.watch_reference, settings.watch_window)
                self._watch = LogWatch(Store.open(settings.workspace), self._predictions, options)
            report = self._watch.look()
        self._keep(report)
        return report

    def _keep(self, report: WatchReport) -> None:
        """Keep new alarms in the record, if it can be written."""
        new = [signal for signal in report.alarms if (report.start, signal.name) not in self._kept]
        if new:
            with suppress(OSError, ConfigError, sqlite3.Error):
                keep_alarms(report, self._predictions)
                self._kept |= {(report.start, signal.name) for signal in new}

    def _run(self) -> None:
        lock: int | None = None
        while not self._stop.wait(self._settings.watch_seconds):
            try:
                if self._predictions.exists:
                    lock = self._locked() if lock is None else lock
                    if lock is not None:
                        self._tell(self.look())
                self._problem = ""
            except Exception as error:  # noqa: BLE001 - answers go on, and watching is tried again
                reason = reason_of(error)
                if reason != self._problem:
                    self._log.error("watching failed", exc_info=not is_out_of_memory(error), reason=reason)
                self._problem = reason
        if lock is not None:
            os.close(lock)

    def _locked(self) -> int | None:
        """Return the lock, or None if another process of the server holds it."""
        held = os.open(self._predictions.file.with_name(LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return None
        return held

    def _tell(self, report: WatchReport) -> None:
        self._metrics.watched(report)
        for signal in report.alarms:
            if (report.start, signal.name) not in self._known:
                self._known.add((report.start, signal.name))
                self._log.warning(
                    "alarm", signal=signal.name, since=str(signal.since), value=signal.value, reference=signal.reference
                )
        if self._settings.watch_webhook is not None:
            name = self._settings.workspace.resolve().name
            pause = self._stop.wait
            for sent in send_alarms(report, name, self._predictions, self._settings.watch_webhook, pause=pause):
                self._log.info("alarm sent", signal=sent)
