"""What is recorded of predictions: set, shown, traced, pruned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from conpet.commands.audit import trace
from conpet.config import Settings
from conpet.config.duration import ago
from conpet.data import Example
from conpet.errors import ConfigError, UnknownNameError
from conpet.evaluation.history import LOG
from conpet.review.queue import ReviewQueue
from conpet.state.slots import MEMORY
from conpet.store import Change, Store
from conpet.store.prediction_log import PredictionLog
from conpet.types import LogEntry

MOST = 1000
"""Most entries of a request that are shown."""


def set_log(
    store: Store, wait_seconds: float | None = None, *, predictions: str | None = None, keep_days: int | None = None
) -> None:
    """Store what is recorded of predictions; see `ConPET.set_log`.

    Raises:
        ConfigError: Nothing is given, or a value is out of range.
    """
    changes: dict[str, Any] = {} if predictions is None else {"predictions": predictions}
    if keep_days is not None:
        changes["keep_days"] = keep_days or None
    if not changes:
        raise ConfigError('give what to record ("off", "hash" or "text"), or the days to keep it')
    with store.write(LOG, wait_seconds) as writer:
        settings = Settings.parse(store.header().settings).changed({"log": changes})
        writer.commit(Change(LOG, settings=settings.to_json(), detail={"log": settings.log.model_dump()}))


def shown_log(store: Store, log: PredictionLog) -> dict[str, Any]:
    """Return what is recorded, how much there is, and what is missing; JSON-ready."""
    config = Settings.parse(store.header().settings).log
    oldest = log.oldest()
    return {
        "predictions": config.predictions,
        "keep_days": config.keep_days,
        "file": str(log.file) if log.exists else None,
        "entries": log.total(),
        "bytes": log.size,
        "oldest": None if oldest is None else oldest.isoformat(),
        "missing": [
            {"time": note.time.isoformat(), "what": note.what, "number": note.number, "actor": note.actor}
            for note in log.notes()
        ],
    }


def trace_request(store: Store, log: PredictionLog, request: str) -> list[dict[str, Any]]:
    """Return what is recorded of the answers to a request; see `ConPET.trace_request`."""
    return _traced(store, sorted(log.entries(request=request, limit=MOST), key=lambda entry: entry.id))


def trace_entry(store: Store, log: PredictionLog, number: int) -> dict[str, Any]:
    """Return what is recorded of an answer, by the number of its entry.

    Raises:
        UnknownNameError: There is no such entry, or it was deleted.
    """
    found = log.entries(before=number + 1, limit=1)
    if not found or found[0].id != number:
        raise UnknownNameError(f"no prediction has the number {number}; it may have been deleted")
    return _traced(store, found)[0]


def trace_input(store: Store, log: PredictionLog, item: str | Example, limit: int) -> list[dict[str, Any]]:
    """Return what is recorded of the answers to an input; see `ConPET.trace_input`."""
    return _traced(store, log.entries(input_hash=log.hash_of(item), limit=limit)) if log.exists else []


def prune(store: Store, log: PredictionLog, older_than: str | None) -> int:
    """Delete the entries that are older than a duration (90d), also in review; return how many entries there were.

    Args:
        store: The workspace's store.
        log: The record.
        older_than: The duration; None for the days that the workspace keeps entries (`log.keep_days`).

    Raises:
        ConfigError: It is no duration, or entries are kept without a limit.
    """
    if older_than is not None:
        return _pruned(log, ago(older_than, "older than"))
    days = Settings.parse(store.header().settings).log.keep_days
    if days is None:
        raise ConfigError(
            "this workspace keeps recorded predictions without a limit: give an age (--older-than 90d), or set one "
            "(`conpet audit log WORKSPACE --keep-days 90`)"
        )
    return _pruned(log, datetime.now(UTC) - timedelta(days=days))


def _pruned(log: PredictionLog, before: datetime) -> int:
    ReviewQueue(log).prune(before)
    return log.prune(before)


def _rows(store: Store, task: str, version: int) -> dict[str, list[Any]]:
    """Return the stored training examples of a version by label, each as its id, or its number from 1 without one."""
    from conpet.replay.memory import Subset
    from conpet.replay.memory_writer import examples_without_test_labels

    with store.snapshot() as snapshot:
        stored = next((one for one in snapshot.versions if (one.task, one.number) == (task, version)), None)
        if stored is None or MEMORY not in stored.objects:
            return {}
        examples = examples_without_test_labels(stored)
        found: dict[str, list[Any]] = {}
        ids = [] if examples.latent else [example.id for example in examples.examples(Subset.TRAIN)]
        for number, label in enumerate(examples.labels(Subset.TRAIN), start=1):
            own = ids[number - 1] if ids else None
            found.setdefault(label, []).append(number if own is None else own)
        return found


def _traced(store: Store, entries: Sequence[LogEntry]) -> list[dict[str, Any]]:
    versions: dict[tuple[str, int], dict[str, Any] | None] = {}
    for entry in entries:
        for made in ((entry.task, entry.version), *entry.modules):
            if made not in versions:
                try:
                    versions[made] = trace(store, *made)
                except UnknownNameError:  # the log was copied from another workspace
                    versions[made] = None
    rows = {made: _rows(store, *made) for made in {(entry.task, entry.version) for entry in entries}}
    return [
        entry.to_json()
        | {
            "learned_from": rows[entry.task, entry.version].get(entry.label or "", []),
            "answered_by": versions[entry.task, entry.version],
            "modules": [
                {"task": task, "version": version, "objects": (versions[task, version] or {}).get("objects", [])}
                for task, version in entry.modules
            ],
        }
        for entry in entries
    ]
