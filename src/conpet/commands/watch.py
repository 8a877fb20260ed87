"""Watch the recorded predictions of a workspace, or inputs that it has not answered yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conpet.data import Example
from conpet.errors import DataError
from conpet.evaluation.history import LOG, TUNE
from conpet.refusal.calibration import Calibration
from conpet.state.slots import REFUSAL
from conpet.store import Snapshot, Store
from conpet.store.prediction_log import PredictionLog, Watched
from conpet.types import Prediction
from conpet.watching.feedback import Accuracy, Judged, accuracy_of
from conpet.watching.report import WatchOptions, WatchReport
from conpet.watching.watch import Baseline, Watch

if TYPE_CHECKING:
    from conpet.state.live import Live

NOT_RECORDED = (
    "no predictions are recorded here: turn the record on with `conpet audit log WORKSPACE --predictions hash`, or "
    "name a file of inputs with -i"
)
_QUIET = frozenset({LOG, TUNE})
"""Verbs of events that change no answer and no decision."""
_CHUNK = 256
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is watched together: the answers since the last change.

    Attributes:
        generation: The generation that the last change made.
        after: Number of the entry of the record after which watching begins.
    """

    generation: int
    after: int


def epoch_of(store: Store, log: PredictionLog) -> Epoch:
    """Return what is to be watched now."""
    changes = [event.id for event in store.events() if event.verb not in _QUIET]
    return Epoch(changes[-1], log.watch_after())


def baseline_of(snapshot: Snapshot) -> Baseline:
    """Return what inputs are compared with."""
    stored = snapshot.shared.get(REFUSAL)
    calibration = Calibration() if stored is None else Calibration.from_json(stored.document(REFUSAL))
    return Baseline(
        {task.name: task.active.labels for task in snapshot.tasks},
        {kind: fitted.scores for kind, fitted in calibration.kinds.items()},
    )


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
        self._watch = Watch(Baseline({}), options)
        self._last = 0

    def look(self) -> WatchReport:
        """Return what was found up to now."""
        epoch = epoch_of(self._store, self._log)
        if epoch != self._epoch:
            with self._store.snapshot() as snapshot:
                baseline = baseline_of(snapshot)
            self._watch = Watch(baseline, self._options, epoch.generation, epoch.after + 1)
            self._epoch, self._last = epoch, epoch.after
        self._watch.add(self._new(epoch))
        return self._watch.report()

    def _new(self, epoch: Epoch) -> Iterable[Watched]:
        for entry in self._log.watched(self._last, generations=epoch.generation):
            self._last = entry.id
            yield entry


def watch_log(store: Store, log: PredictionLog, options: WatchOptions) -> WatchReport:
    """Watch the record of a workspace.

    Raises:
        DataError: No predictions are recorded.
    """
    if not log.exists:
        raise DataError(NOT_RECORDED)
    return LogWatch(store, log, options).look()


def restart_watch(log: PredictionLog) -> None:
    """Let watching begin anew: the inputs from now on are the reference.

    Raises:
        DataError: No predictions are recorded.
    """
    if not log.exists:
        raise DataError(NOT_RECORDED)
    log.restart_watch()


def watch_inputs(live: Live, examples: Iterable[Example], options: WatchOptions) -> WatchReport:
    """Watch inputs in their order: answer them, without recording the answers.

    Raises:
        DataError: An input cannot be answered.
    """
    from conpet.state.engine import answer

    watch = Watch(baseline_of(live.snapshot), options, live.generation)
    rest = list(examples)
    for start in range(0, len(rest), _CHUNK):
        chunk = rest[start : start + _CHUNK]
        predictions = answer(live, chunk, top_n=1, traced=True)
        watch.add(watched(chunk, predictions, start))
    return watch.report()


def watched(examples: Sequence[Example], predictions: Sequence[Prediction], start: int = 0) -> list[Watched]:
    """Return answers as watching needs them; `start` is the number of inputs before them."""
    now = time.time()
    return [
        Watched(
            number,
            now,
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
        for number, (example, one) in enumerate(zip(examples, predictions, strict=True), start=start + 1)
    ]


def with_feedback(
    report: WatchReport, log: PredictionLog, examples: Iterable[Example], *, by_request: bool = False
) -> WatchReport:
    """Add the accuracy of recorded answers whose right labels are known.

    Args:
        report: The report.
        log: The record.
        examples: Inputs with their right labels. The newest answer to each is judged.
        by_request: Whether the text of each is the id of a request instead, with `/N` for input N of several.

    Raises:
        DataError: An example has no label, or none is found in the record.
    """
    judged, missing, total = [], 0, 0
    for total, example in enumerate(examples, start=1):
        if example.label is None:
            raise DataError(f"row {total} of the feedback has no label")
        found = _of_request(log, example.text) if by_request else _of_input(log, example)
        if found is None:
            missing += 1
        else:
            judged.append(Judged(found[0], found[1], found[2], example.label))
    if not judged:
        raise DataError(
            f"none of {total:,} labelled inputs is in the record: are these the inputs that were answered, and were "
            "they answered while predictions were recorded?"
        )
    accuracy: Accuracy = accuracy_of(judged, missing)
    return replace(report, accuracy=accuracy)


def _of_input(log: PredictionLog, example: Example) -> tuple[float, str, str | None] | None:
    found = log.entries(input_hash=log.hash_of(example), limit=1)
    return (found[0].time.timestamp(), found[0].task, found[0].label) if found else None


def _of_request(log: PredictionLog, named: str) -> tuple[float, str, str | None] | None:
    request, _, place = named.partition("/")
    found = log.entries(request=request, limit=_NO_LIMIT)
    if place:
        found = [entry for entry in found if str(entry.place) == place]
    return (found[0].time.timestamp(), found[0].task, found[0].label) if len(found) == 1 else None
