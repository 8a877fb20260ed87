"""What the endpoints of one server process share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request, Response

from conpet.api import ConPET
from conpet.commands.accuracy_history import AccuracyHistory, Point
from conpet.commands.audit import verify_workspace
from conpet.commands.cost import cost_report
from conpet.config import Settings
from conpet.evaluation.cost_report import CostReport
from conpet.jobs.queue import JobQueue
from conpet.jobs.runner import JobRunner
from conpet.problem_details import ApiProblem, too_busy
from conpet.review.review import Review
from conpet.serve.background import Background
from conpet.serve.batching import Batcher
from conpet.serve.buffer import Buffer
from conpet.serve.keys import KeyStore
from conpet.serve.logs import Log, make_log
from conpet.serve.metrics import Metrics
from conpet.serve.rates import RateLimiter
from conpet.serve.recording import AnswerRecorder
from conpet.serve.serving import Serving
from conpet.serve.settings import ServeSettings
from conpet.serve.watching import Watcher
from conpet.store import ActionLog, Store
from conpet.store.chain import Break
from conpet.store.prediction_log import PredictionLog

REFUSALS_PER_SECOND = 1 / 60
"""Refused keys that are recorded in the trail of actions, over all addresses."""
FAILURES_PER_SECOND = 0.2
"""Wrong keys that an address may send, after a burst of `FAILURE_BURST`."""
FAILURE_BURST = 10
VERIFIED_AT_ONCE = 2
_COST_SECONDS = 10.0
_ACCURACY_SECONDS = 2.0
_VERIFIED_SECONDS = 24 * 3600.0
"""Age from which costs, accuracy over time and a verification are computed anew when a page shows them."""
CHECKED_AT_ONCE = 2
"""Uploads that are checked at once; each check may take a core and gigabytes."""


class Pages(Protocol):
    """The pages that a server shows beside its API."""

    def covers(self, path: str) -> bool:
        """Return whether an address belongs to the pages."""

    def error(self, request: Request, problem: ApiProblem) -> Response:
        """Return the page of a problem."""


@dataclass(eq=False)
class ServerContext:
    """What the endpoints of one server process share; `app.state.context`.

    Attributes:
        settings: The server's settings.
        actions: What people did beside the changes of the history.
        keys: The API keys.
        rates: The rate limit of each key, or None.
        failures: Limits guesses at keys, by address.
        refusals: Limits how often it is recorded that a key was refused.
        log: The process's log.
        metrics: The process's metrics.
        serving: The workspace as it is served.
        jobs: The workspace's jobs.
        runner: Runs them, unless another process does.
        recorder: Records the answers.
        watcher: Watches the record.
        buffer: Counts the bodies and responses in memory.
        cost: What the workspace has cost, for those who cannot wait.
        accuracy: Accuracy over time; as `cost`.
        verification: Where the history, the content or the record is not what was recorded; as `cost`.
        uploads: Number of uploads being received or checked.
        followers: Number of clients that follow jobs.
        verifying: Limits how many new keys are verified at once.
        checking: Limits how many uploads are checked at once.
        stopping: Whether a stop was requested: nothing new is accepted.
        pages: The pages for people, if there are any.
    """

    settings: ServeSettings
    actions: ActionLog
    keys: KeyStore
    rates: RateLimiter | None
    log: Log
    metrics: Metrics
    serving: Serving
    jobs: JobQueue
    runner: JobRunner
    recorder: AnswerRecorder
    watcher: Watcher
    buffer: Buffer
    cost: Background[CostReport]
    accuracy: Background[tuple[Point, ...]]
    verification: Background[list[Break]]
    failures: RateLimiter = field(default_factory=lambda: RateLimiter(FAILURES_PER_SECOND, FAILURE_BURST))
    refusals: RateLimiter = field(default_factory=lambda: RateLimiter(REFUSALS_PER_SECOND, 1))
    uploads: int = 0
    followers: int = 0
    verifying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(VERIFIED_AT_ONCE))
    checking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CHECKED_AT_ONCE))
    stopping: bool = False
    pages: Pages | None = None

    @classmethod
    def of(cls, settings: ServeSettings, on_failure: Callable[[Exception], None]) -> ServerContext:
        """Return the context of a new process.

        Args:
            settings: The server's settings.
            on_failure: Called if the workspace cannot be loaded.
        """
        rates = None
        if settings.rate_limit is not None:
            burst = max(1, settings.rate_burst // settings.workers)
            rates = RateLimiter(settings.rate_limit / settings.workers, burst)
        log, metrics = make_log(settings.log_level), Metrics()
        recorder = AnswerRecorder(settings, log, metrics)
        watcher = Watcher(settings, recorder.predictions, metrics, log)
        serving = Serving(settings, metrics, log, on_failure, recorder)
        actions = ActionLog(settings.workspace, settings.log_to)
        jobs = JobQueue(settings.workspace, settings.max_jobs)
        runner = JobRunner(
            settings.workspace,
            jobs,
            backbone=settings.backbone,
            device=settings.device,
            log_to=settings.log_to,
            threads=settings.threads,
            on_end=metrics.job_ended,
        )
        keys, buffer = KeyStore(settings.keys, actions), Buffer(settings.buffer_bytes)

        def cost() -> CostReport:
            serving.write_usage(now=True)
            return cost_report(Store.open(settings.workspace))

        def verification() -> list[Break]:
            return verify_workspace(
                Store.open(settings.workspace), log=recorder.predictions, backbone=settings.backbone
            )

        return cls(
            settings,
            actions,
            keys,
            rates,
            log,
            metrics,
            serving,
            jobs,
            runner,
            recorder,
            watcher,
            buffer,
            Background(cost, _COST_SECONDS),
            Background(AccuracyHistory(settings.workspace).points, _ACCURACY_SECONDS),
            Background(verification, _VERIFIED_SECONDS),
        )

    def ready(self) -> Batcher:
        """Return what answers.

        Raises:
            ApiProblem: The first generation is not loaded yet, or the server is stopping.
        """
        if self.stopping:
            raise too_busy(503, "stopping", "the server is stopping")
        if self.serving.batcher is None:
            raise too_busy(503, "not-ready", "the server is loading the workspace")
        return self.serving.batcher

    def opened(self) -> ConPET:
        """Return the workspace; errors as in `ready`."""
        self.ready()
        workspace = self.serving.workspace
        assert workspace is not None  # noqa: S101 - it is ready
        return workspace

    def review(self) -> Review:
        """Return the review of the workspace's answers; errors as in `ready`."""
        store = self.opened().store
        return Review(store, self.recorder.predictions, self.settings.log_predictions)

    def recording(self) -> str:
        """Return what is recorded of predictions now: "off", "hash" or "text"; errors as in `ready`."""
        stored = Settings.parse(self.opened().store.header().settings).log.predictions
        return self.settings.log_predictions or stored

    def record(self) -> PredictionLog:
        """Return the record of predictions.

        Raises:
            ApiProblem: Nothing is recorded.
        """
        record = self.recorder.predictions
        if not record.exists:
            if self.recording() != "off":
                raise ApiProblem(409, "nothing-recorded", "no prediction was recorded so far")
            raise ApiProblem(409, "no-record", "no predictions are recorded: serve with --log-predictions hash")
        return record


def context_of(request: Request) -> ServerContext:
    """Return the context of the process that handles a request."""
    context: ServerContext = request.app.state.context
    return context
