"""Watch the recorded predictions of a workspace, or inputs that it has not answered yet."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from conpet.commands.rows import stored_answers, stored_held_out
from conpet.config import Settings
from conpet.data import Example
from conpet.errors import ConfigError, DataError, ReadOnlyError
from conpet.evaluation.history import LOG, TUNE
from conpet.refusal.calibration import Calibration
from conpet.state.slots import REFUSAL
from conpet.store import ActionLog, Snapshot, Store
from conpet.store.prediction_log import Judged, PredictionLog, Watched
from conpet.types import LogEntry, Prediction
from conpet.watching.feedback import accuracy_of
from conpet.watching.report import WatchOptions, WatchReport
from conpet.watching.watch import Baseline, Watch

if TYPE_CHECKING:
    from conpet.evaluation.answers import AnsweredExample
    from conpet.state.live import Live

NOT_RECORDED = (
    "no predictions are recorded here: turn the record on with `conpet audit log WORKSPACE --predictions hash`, or "
    "name a file of inputs with -i"
)
_QUIET = frozenset({LOG, TUNE})
"""Verbs of events that change no answer and no decision."""
_CHUNK = 256
_NO_LIMIT = 1_000_000


class Epoch(NamedTuple):
    """What is watched together: the answers since the last change.

    Attributes:
        generation: The generation that the last change made.
        after: Number of the entry of the record after which watching begins.
    """

    generation: int
    after: int


def baseline_of(snapshot: Snapshot) -> Baseline:
    """Return what inputs are compared with."""
    stored = snapshot.shared.get(REFUSAL)
    calibration = Calibration() if stored is None else Calibration.from_json(stored.document(REFUSAL))
    held_out = stored_held_out(snapshot) or stored_answers(snapshot)
    margins = Settings.parse(snapshot.header.settings).gate
    return Baseline(
        {task.name: task.active.labels for task in snapshot.tasks},
        {kind: fitted.scores for kind, fitted in calibration.kinds.items()},
        _answered(held_out),
        margins.whole_margin / 100,
        {name: _answered(list(of_task)) for name, of_task in groupby(held_out, lambda one: str(one.task))},
        margins.task_margin / 100,
    )


def _answered(examples: Sequence[AnsweredExample]) -> tuple[int, int]:
    """Return the number of examples, and of those that were answered right."""
    return len(examples), sum(one.correct for one in examples)


class LogWatch:
    """Watches the record of a workspace; `look` reads only what is new.

    Args:
        store: The workspace's store.
        log: The record.
        options: How to watch.
    """

    def __init__(self, store: Store, log: PredictionLog, options: WatchOptions) -> None:
        self._store = store
        self._log = log
        self._options = options
        self._epoch: Epoch | None = None
        self._last_event = self._changed = 0
        self._watch = Watch(Baseline({}), options)
        self._last = self._last_feedback = 0
        self._judged: list[Judged] = []

    def look(self) -> WatchReport:
        """Return what was found up to now."""
        epoch = self._present()
        if epoch != self._epoch:
            with self._store.snapshot() as snapshot:
                baseline = baseline_of(snapshot)
            self._watch = Watch(baseline, self._options, epoch.generation, epoch.after + 1)
            self._epoch, self._last, self._last_feedback, self._judged = epoch, epoch.after, 0, []
        self._watch.add(self._new(epoch))
        judged = list(self._new_feedback(epoch))
        self._watch.add_feedback(judged)
        self._judged += judged
        report = self._watch.report()
        return replace(report, accuracy=accuracy_of(self._judged, 0)) if self._judged else report

    def _present(self) -> Epoch:
        """Return what is to be watched now."""
        for event in self._store.events(self._last_event):
            self._last_event = event.id
            if event.verb not in _QUIET:
                self._changed = event.id
        return Epoch(self._changed, self._log.watch_after())

    def _new(self, epoch: Epoch) -> Iterable[Watched]:
        for entry in self._log.watched(self._last, generations=epoch.generation):
            self._last = entry.id
            yield entry

    def _new_feedback(self, epoch: Epoch) -> Iterable[Judged]:
        for number, judged in self._log.judged(self._last_feedback, epoch.generation, epoch.after):
            self._last_feedback = number
            yield judged


def watch_log(store: Store, log: PredictionLog, options: WatchOptions) -> WatchReport:
    """Watch the record of a workspace.

    Raises:
        DataError: No predictions are recorded.
    """
    if not log.exists:
        raise DataError(NOT_RECORDED)
    return LogWatch(store, log, options).look()


def restart_watch(log: PredictionLog, actions: ActionLog, by: str) -> None:
    """Let watching begin anew: the inputs from now on are the reference.

    Args:
        log: The record of predictions.
        actions: The trail of actions.
        by: Who wants it.

    Raises:
        DataError: No predictions are recorded.
    """
    if not log.exists:
        raise DataError(NOT_RECORDED)
    log.restart_watch()
    actions.append(by, "watching-restarted")


def watch_inputs(
    live: Live, examples: Iterable[Example], options: WatchOptions, times: Sequence[datetime] | None = None
) -> WatchReport:
    """Watch inputs in their order: answer them, without recording the answers.

    Args:
        live: The state that answers.
        examples: The inputs.
        options: How to watch.
        times: When each input came, if that is known.

    Raises:
        ConfigError: A length of time is given without times, or there are not as many times as inputs.
        DataError: An input cannot be answered, or is earlier than the one before it.
    """
    from conpet.state.engine import answer

    rest = list(examples)
    if times is None and (options.reference_seconds or options.window_seconds):
        raise ConfigError(
            "reference and window can be lengths of time only if the time of each input is known: give numbers of "
            "inputs, or a file with a column `time` (ISO 8601, or seconds since 1970)"
        )
    if times is not None and len(times) != len(rest):
        raise ConfigError(f"{len(times):,} times are given for {len(rest):,} inputs; give one for each")
    for number, (former, following) in enumerate(pairwise(times or ()), start=2):
        if following.timestamp() < former.timestamp():
            raise DataError(
                f"input {number} ({following}) is earlier than the input before it ({former}), but inputs are watched "
                "in their order: sort them by time"
            )
    watch = Watch(baseline_of(live.snapshot), options, live.generation)
    for start in range(0, len(rest), _CHUNK):
        chunk = rest[start : start + _CHUNK]
        predictions = answer(live, chunk, top_n=1, traced=True)
        own = [None] * len(chunk) if times is None else [one.timestamp() for one in times[start : start + _CHUNK]]
        watch.add(watched(chunk, predictions, own, start))
    return watch.report()


def watched(
    examples: Sequence[Example], predictions: Sequence[Prediction], times: Sequence[float | None], start: int = 0
) -> list[Watched]:
    """Return answers as watching needs them.

    Args:
        examples: The inputs.
        predictions: Their answers.
        times: When each came, in seconds since 1970.
        start: Number of inputs before them.
    """
    return [
        Watched(
            number,
            time,
            str(example.kind),
            one.generation,
            one.task,
            one.label,
            one.in_scope,
            one.confidence,
            one.decision,
            one.trace.selector if one.trace else None,
            one.trace.scope if one.trace else None,
        )
        for number, (example, one, time) in enumerate(zip(examples, predictions, times, strict=True), start=start + 1)
    ]


@dataclass(frozen=True, slots=True)
class Feedback:
    """Recorded answers whose right labels are given.

    Attributes:
        judged: The answers.
        right: The right label of each, by the number of its entry.
        missing: Number of labelled inputs that are not in the record.
    """

    judged: tuple[Judged, ...] = ()
    right: Mapping[int, str] = field(default_factory=dict)
    missing: int = 0

    def __or__(self, other: Feedback) -> Feedback:
        return Feedback(self.judged + other.judged, {**self.right, **other.right}, self.missing + other.missing)

    def require_some(self) -> Feedback:
        """Return it; raise `DataError` if none of the inputs is in the record."""
        if not self.judged:
            raise DataError(
                f"none of {self.missing:,} labelled inputs is in the record: are these the inputs that were answered, "
                "and were they answered while predictions were recorded?"
            )
        return self


def find_feedback(log: PredictionLog, examples: Iterable[Example], *, by_request: bool = False) -> Feedback:
    """Find the recorded answers to inputs whose right labels are known; the newest answer to each.

    Args:
        log: The record.
        examples: Inputs with their right labels.
        by_request: Whether the text of each is the id of a request instead, with `/N` for input N of several.

    Raises:
        DataError: An example has no label, or nothing is recorded.
    """
    if not log.exists:
        raise DataError(NOT_RECORDED)
    judged, right, missing = [], {}, 0
    for number, example in enumerate(examples, start=1):
        if example.label is None:
            raise DataError(f"row {number} of the feedback has no label")
        entry = _of_request(log, example.text) if by_request else _of_input(log, example)
        if entry is None:
            missing += 1
        else:
            judged.append(Judged(entry.time.timestamp(), entry.task, entry.label, example.label))
            right[entry.id] = example.label
    return Feedback(tuple(judged), right, missing)


def keep_feedback(log: PredictionLog, feedback: Feedback) -> None:
    """Keep right labels with the record, so that watching knows them from now on; warn if it cannot be written."""
    try:
        log.require_writable()
        log.add_feedback(feedback.right)
    except ReadOnlyError as error:
        warnings.warn(f"the feedback is not kept, so it raises no alarm: {error}", stacklevel=2)


def with_feedback(report: WatchReport, feedback: Feedback) -> WatchReport:
    """Add the accuracy of the answers whose right labels are given."""
    return replace(report, accuracy=accuracy_of(feedback.judged, feedback.missing))


def _of_input(log: PredictionLog, example: Example) -> LogEntry | None:
    found = log.entries(input_hash=log.hash_of(example), limit=1)
    return found[0] if found else None


def _of_request(log: PredictionLog, named: str) -> LogEntry | None:
    request, _, place = named.partition("/")
    found = log.entries(request=request, limit=_NO_LIMIT)
    if place:
        found = [entry for entry in found if str(entry.place) == place]
    return found[0] if len(found) == 1 else None
