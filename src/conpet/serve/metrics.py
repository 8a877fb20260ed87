"""Metrics for Prometheus, right also over several processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import product
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from conpet.cost import Meter
from conpet.jobs.records import ENDED, Job, JobKind, JobState
from conpet.serve.settings import SHARED_FOLDER
from conpet.types import Decision, Prediction
from conpet.watching.report import WatchReport

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_JOB_SECONDS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)
_WATCHED = {
    "alarm": "1 if the signal has an alarm since the last change, otherwise 0.",
    "evidence": "Evidence of a change, as a share of what raises an alarm.",
    "value": "Value of the signal in the last inputs.",
    "reference": "Value of the signal in the reference.",
}
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one server process; an `Observer` of its batches."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._signals_shown: set[str] = set()
        self._requests = Counter(
            "conpet_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "conpet_request_seconds", "Time to answer a request.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._batch_inputs = Histogram("conpet_batch_inputs", "Inputs in a batch.", buckets=_SIZES, registry=registry)
        self._batch_requests = Histogram(
            "conpet_batch_requests", "Requests in a batch.", buckets=_SIZES, registry=registry
        )
        self._batch_seconds = Histogram(
            "conpet_batch_seconds", "Time to answer a batch.", buckets=_SECONDS, registry=registry
        )
        self._tokens = Counter(
            "conpet_tokens", "Tokens of the backbone, computed or from a cache.", ["source"], registry=registry
        )
        self._lookups = Counter("conpet_cache_lookups", "Module outputs looked up.", ["result"], registry=registry)
        self._queue = Gauge("conpet_queue_inputs", "Inputs that wait.", registry=registry, multiprocess_mode="livesum")
        self._generation = Gauge(
            "conpet_generation", "Generation that answers.", registry=registry, multiprocess_mode="livemin"
        )
        self._swaps = Counter("conpet_swaps", "New generations put in, or failed to.", ["result"], registry=registry)
        self._jobs = Gauge(
            "conpet_jobs", "Jobs by state.", ["state"], registry=registry, multiprocess_mode="mostrecent"
        )
        self._jobs_ended = Counter("conpet_jobs_ended", "Jobs that ended.", ["kind", "state"], registry=registry)
        self._job_seconds = Histogram(
            "conpet_job_seconds", "Time to run a job.", ["kind"], buckets=_JOB_SECONDS, registry=registry
        )
        self._answers = Counter("conpet_answers", "Answers by task.", ["task"], registry=registry)
        self._decisions = Counter("conpet_decisions", "Answers by decision.", ["decision"], registry=registry)
        self._watched = {
            name: Gauge(f"conpet_watch_{name}", meaning, ["signal"], registry=registry, multiprocess_mode="mostrecent")
            for name, meaning in _WATCHED.items()
        }
        self._watch_alarms = Gauge(
            "conpet_watch_alarms",
            "Signals with an alarm since the last change.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._watch_inputs = Gauge(
            "conpet_watch_inputs",
            "Inputs watched since the last change.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._recorded = Counter(
            "conpet_recorded_predictions", "Predictions recorded, or lost.", ["result"], registry=registry
        )
        self._begin()

    def _begin(self) -> None:
        """Begin the counters at 0: Prometheus sees no increase in one that appears with its first failure."""
        for decision in get_args(Decision):
            self._decisions.labels(decision)
        for result in ("done", "failed"):
            self._swaps.labels(result)
        for result in ("written", "lost"):
            self._recorded.labels(result)
        for kind, state in product(JobKind, ENDED):
            self._jobs_ended.labels(str(kind), str(state))

    def request_done(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch_done(self, inputs: int, requests: int, seconds: float, cost: Meter) -> None:
        """Count a batch."""
        self._batch_inputs.observe(inputs)
        self._batch_requests.observe(requests)
        self._batch_seconds.observe(seconds)
        self._tokens.labels("computed").inc(cost.tokens)
        self._tokens.labels("cached").inc(cost.cached_tokens)
        self._lookups.labels("hit").inc(cost.output_hits)
        self._lookups.labels("miss").inc(cost.output_lookups - cost.output_hits)

    def queue_changed(self, inputs: int) -> None:
        """Set the number of inputs that wait."""
        self._queue.set(inputs)

    def swapped(self, generation: int) -> None:
        """Count a generation that was put in."""
        self._swaps.labels("done").inc()
        self._generation.set(generation)

    def swap_failed(self) -> None:
        """Count a generation that could not be put in."""
        self._swaps.labels("failed").inc()

    def answered(self, predictions: Iterable[Prediction]) -> None:
        """Count answers by task and by decision."""
        for prediction in predictions:
            self._answers.labels(prediction.task).inc()
            self._decisions.labels(prediction.decision).inc()

    def watched(self, report: WatchReport) -> None:
        """Set what watching found; of single labels only those with an alarm. Signals that are gone have no alarm."""
        self._watch_alarms.set(len(report.alarms))
        self._watch_inputs.set(report.inputs)
        for name in self._signals_shown.difference(signal.name for signal in report.signals):
            self._set_signal(name, alarm=False, evidence=0.0, value=None, reference=None)
        for signal in report.signals:
            shown = signal.alarm or not signal.name.startswith("label ")
            if shown or signal.name in self._signals_shown:
                self._signals_shown.add(signal.name)
                evidence = signal.evidence / signal.threshold
                self._set_signal(
                    signal.name, alarm=signal.alarm, evidence=evidence, value=signal.value, reference=signal.reference
                )

    def _set_signal(self, name: str, **values: float | None) -> None:
        for gauge, value in values.items():
            self._watched[gauge].labels(name).set(float("nan") if value is None else value)

    def recorded(self, predictions: int, *, written: bool) -> None:
        """Count predictions that were recorded, or could not be."""
        self._recorded.labels("written" if written else "lost").inc(predictions)

    def job_ended(self, job: Job, seconds: float) -> None:
        """Count a job that ended."""
        self._jobs_ended.labels(str(job.kind), str(job.state)).inc()
        self._job_seconds.labels(str(job.kind)).observe(seconds)

    def jobs_counted(self, counts: Mapping[JobState, int]) -> None:
        """Set the number of jobs in each state."""
        for state, number in counts.items():
            self._jobs.labels(str(state)).set(number)

    def render(self) -> bytes:
        """Return the metrics of all processes of the server, in Prometheus' text format."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
