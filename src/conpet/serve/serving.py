"""The workspace as it is served: loaded, watched for new generations, answered from."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import torch

from conpet.api import ConPET
from conpet.errors import ConpetError, is_out_of_memory, reason_of
from conpet.serve.batching import Batcher
from conpet.serve.logs import Log
from conpet.serve.metrics import Metrics
from conpet.serve.recording import AnswerRecorder
from conpet.serve.settings import ServeSettings
from conpet.serve.usage import ServedUsage
from conpet.serve.warming import warm
from conpet.state.live import Live
from conpet.types import Prediction

Done = TypeVar("Done")
_NICENESS = 10
"""Of the thread that loads new generations, so that it takes the time that answering leaves."""


class Serving:
    """Serves a workspace: one thread loads it and watches for new generations, another answers.

    A new generation is loaded and warmed by the watching thread and put in by exchanging one reference, so that
    requests never wait for it. If it cannot be loaded, the former one goes on answering.

    Args:
        settings: The server's settings.
        metrics: The process's metrics.
        log: The process's log.
        on_failure: Called if the workspace cannot be loaded at the start, or nothing can be answered any more.
        recorder: Records the answers.
    """

    def __init__(
        self,
        settings: ServeSettings,
        metrics: Metrics,
        log: Log,
        on_failure: Callable[[Exception], None],
        recorder: AnswerRecorder,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._on_failure = on_failure
        self._recorder = recorder
        self._workspace: ConPET | None = None
        self._batcher: Batcher | None = None
        self._usage: ServedUsage | None = None
        self._stop = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="conpet-watch", daemon=True)

    def start(self) -> None:
        """Load the workspace in the background. Call it in the event loop in which answers are waited for."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def batcher(self) -> Batcher | None:
        """What answers; None until the first generation is loaded and warmed."""
        return self._batcher

    @property
    def workspace(self) -> ConPET | None:
        """The workspace; None until it is opened."""
        return self._workspace

    @property
    def live(self) -> Live:
        """The generation that answers. Call it only once there is a batcher."""
        live = self._workspace.live.latest if self._workspace is not None else None
        if live is None:
            raise RuntimeError("no generation is loaded yet")
        return live

    @property
    def problem(self) -> str:
        """Why the newest generation cannot be loaded, or ""."""
        return self._problem

    def newest_generation(self) -> int:
        """Return the newest generation of the workspace, loaded or not."""
        return self._workspace.store.generation() if self._workspace is not None else 0

    def answered(self, predictions: Sequence[Prediction]) -> None:
        """Count answers, in the metrics and for the ledger."""
        self._metrics.answered(predictions)
        if self._usage is not None:
            self._usage.answered(predictions)

    def close(self, seconds: float) -> None:
        """Answer what waits, within some seconds, and release the workspace."""
        self._stop.set()
        if self._batcher is not None:
            self._batcher.close(seconds)
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._workspace is not None:
            self.write_usage(now=True)
            self._workspace.close()
        self._recorder.close(seconds)

    def _run(self) -> None:
        try:
            _apart(self._load)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is nothing to serve
            unexpected = not isinstance(error, ConpetError) and not is_out_of_memory(error)
            self._log.error("the workspace cannot be loaded", exc_info=unexpected, reason=reason_of(error))
            self._on_failure(error)
            return
        while not self._stop.wait(self._settings.poll_seconds):
            self._look()
            self.write_usage()

    def _load(self) -> None:
        settings = self._settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._workspace = ConPET.open(
            settings.workspace,
            backbone=settings.backbone,
            device=settings.device,
            wait_for_changes=False,
            log_to=settings.log_to,
        )
        self._recorder.check(self._workspace.settings)
        live = self._workspace.live.refresh(self._warm)
        self._metrics.swapped(live.generation)
        max_tokens = live.method.backbone.max_tokens
        self._usage = usage = ServedUsage(self._workspace.store.ledger, self._metrics)
        self._batcher = Batcher(
            lambda: self.live,
            settings,
            usage,
            max_tokens,
            self._on_failure,
            self._hand_over,
            lambda live: self._recorder.mode(live.method.settings.log) != "off",
        )
        gc.freeze()  # searching all that was imported and loaded would stop all requests for a tenth of a second
        self._log.info("ready", generation=live.generation, tasks=len(live.state.tasks))

    def _hand_over(self, deliver: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and everybody in it
            self._loop.call_soon_threadsafe(deliver)

    def _warm(self, live: Live) -> None:
        warm(live, lambda damage: self._log.error("a module cannot be read", reason=str(damage)))

    def write_usage(self, *, now: bool = False) -> None:
        """Write to the ledger what answers have cost, if that was not done for a minute, or `now`."""
        live = self._workspace.live.latest if self._workspace is not None else None
        if self._usage is not None and live is not None:
            backbone = live.method.backbone
            self._usage.flush(live.generation, suffix_share=backbone.suffix_share, gpu=backbone.on_gpu, now=now)

    def _look(self) -> None:
        """Put in the newest generation, if it is not live yet."""
        assert self._workspace is not None  # noqa: S101 - `_load` has opened it
        try:
            if self._workspace.store.generation() != self.live.generation:
                live = _apart(self._workspace.live.refresh, self._warm, initializer=_yield_to_others)
                gc.collect()  # a failed request may have left a cycle that keeps the former generation on the disk
                self._metrics.swapped(live.generation)
                self._log.info("new generation", generation=live.generation, tasks=len(live.state.tasks))
            self._problem = ""
        except Exception as error:  # noqa: BLE001 - the former generation goes on answering
            reason = reason_of(error)
            if reason != self._problem:
                self._problem = reason
                self._metrics.swap_failed()
                self._log.error("the newest generation cannot be loaded", exc_info=not is_out_of_memory(error))


def _apart(work: Callable[..., Done], *values: Any, initializer: Callable[[], None] | None = None) -> Done:
    """Do something that computes in a thread that ends with it.

    OpenMP keeps workers for every thread that has computed. As soon as there are more of them than cores, all of them
    sleep between two steps instead of waiting ready, and answering is slower for as long as they exist.
    """
    with ThreadPoolExecutor(1, initializer=initializer) as pool:
        return pool.submit(work, *values).result()


def _yield_to_others() -> None:
    """Lower the priority of this thread, where the system can do that for a thread alone."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
