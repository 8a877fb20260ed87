"""Several server processes on one socket, restarted when they die."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from tempfile import TemporaryDirectory
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from conpet.errors import BackboneError
from conpet.serve.logs import make_log
from conpet.serve.settings import SHARED_FOLDER, ServeSettings
from conpet.serve.worker import CANNOT_LOAD, work

_LOOK_SECONDS = 0.5
_SHORT_LIFE_SECONDS = 10.0
"""A process that dies sooner is restarted only after a pause, which doubles each time."""
_LONGEST_PAUSE_SECONDS = 30.0
_GRACE_SECONDS = 5.0
"""Time, beyond that for finishing requests, after which a process that does not stop is killed."""


@dataclass
class _Worker:
    process: SpawnProcess
    started: float
    pause: float = 0.0


class Supervisor:
    """Starts `workers` processes that listen on one socket, and restarts those that die.

    Processes are spawned, not forked, because the threads of a model do not survive a fork.

    Args:
        settings: The server's settings.
        listening: The socket.
    """

    def __init__(self, settings: ServeSettings, listening: socket.socket) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = settings.threads or max(1, cores // settings.workers)
        self._settings = settings.model_copy(update={"threads": threads})
        self._listening = listening
        self._log = make_log(settings.log_level)
        self._stop = threading.Event()
        self._failed = False

    def run(self) -> None:
        """Serve until a stop is requested, then let every process finish what it accepted.

        Raises:
            BackboneError: The processes cannot load the workspace; their logs say why.
        """
        former = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with TemporaryDirectory(prefix="conpet-metrics-") as folder:
                os.environ[SHARED_FOLDER] = folder
                self._supervise(folder)
        finally:
            os.environ.pop(SHARED_FOLDER, None)
            for number, handler in former.items():
                signal.signal(number, handler)
        if self._failed:
            raise BackboneError("the server processes cannot load the workspace; the lines above say why")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _supervise(self, folder: str) -> None:
        workers = [self._start() for _ in range(self._settings.workers)]
        while not self._stop.is_set():
            wait([worker.process.sentinel for worker in workers], timeout=_LOOK_SECONDS)
            workers = [self._kept_alive(worker, folder) for worker in workers]
        self._listening.close()
        self._finish([worker.process for worker in workers])

    def _start(self, pause: float = 0.0) -> _Worker:
        process = get_context("spawn").Process(target=work, args=(self._settings, self._listening), name="conpet-serve")
        process.start()
        return _Worker(process, time.monotonic(), pause)

    def _kept_alive(self, worker: _Worker, folder: str) -> _Worker:
        """Return a worker, or a new one in its place if it died."""
        if worker.process.is_alive() or self._stop.is_set():
            return worker
        pid, status = worker.process.pid, worker.process.exitcode
        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
        self._log.error("a process died", pid=pid, status=status)
        if status == CANNOT_LOAD and not worker.pause:
            self._failed = True
            self._stop.set()
            return worker
        short = time.monotonic() - worker.started < _SHORT_LIFE_SECONDS
        pause = min(max(1.0, 2 * worker.pause), _LONGEST_PAUSE_SECONDS) if short else 0.1
        self._stop.wait(pause)
        return worker if self._stop.is_set() else self._start(pause)

    def _finish(self, processes: list[SpawnProcess]) -> None:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + self._settings.drain_seconds + _GRACE_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
