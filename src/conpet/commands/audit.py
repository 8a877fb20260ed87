"""Check, trace and export the history of a workspace; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.store import EventSummary, Store
from conpet.store.chain import Break, breaks, to_json
from conpet.store.prediction_log import PredictionLog


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of a history, and its digest, which stands for the whole history up to it.

    Attributes:
        generation: Id of the event.
        digest: Its digest, 64 hexadecimal digits.
    """

    generation: int
    digest: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read `str(head)`.

        Raises:
            ConfigError: It is something else.
        """
        generation, _, digest = text.strip().partition(":")
        if not generation.isdecimal() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ConfigError(f"{text!r:.80} is not GENERATION:DIGEST as `conpet audit head` prints it")
        return cls(int(generation), digest)

    def __str__(self) -> str:
        return f"{self.generation}:{self.digest}"


def head(store: Store) -> Head:
    """Return the head of a workspace's history."""
    event = store.events()[-1]
    return Head(event.id, event.digest)


def verify_workspace(store: Store, heads: Sequence[Head] = (), log: PredictionLog | None = None) -> list[Break]:
    """Check that a workspace, its history and the record of its predictions are what was recorded.

    Args:
        store: The workspace's store.
        heads: Heads of this history that were noted earlier. Without one, a history that was written anew as a whole,
            or cut at its end, cannot be told from the true one.
        log: The record of predictions, if it lies outside the workspace's folder.
    """
    events = [to_json(event) for event in store.events()]
    damaged = [Break(None, str(problem)) for problem in store.verify()]
    predictions = [Break(None, reason) for reason in (log or PredictionLog(store.path)).breaks()]
    return [*store.history_breaks(), *_against(events, heads), *damaged, *predictions]


def verify_export(path: Path, heads: Sequence[Head] = ()) -> list[Break]:
    """Check a history that `export` wrote; arguments as in `verify_workspace`.

    Raises:
        DataError: The file is something else.
    """
    events = _exported(path)
    return [*breaks(events), *_against(events, heads)]


def export(store: Store) -> Iterator[str]:
    """Yield the history, one JSON object per event, oldest first."""
    for event in store.events():
        yield json.dumps(to_json(event), ensure_ascii=False)


def trace(store: Store, task: str, version: int | None = None) -> dict[str, Any]:
    """Return what is recorded of a version of a task: who made it, when, from which data, and what happened to it.

    Args:
        store: The workspace's store.
        task: Name of the task; it may have been removed.
        version: Number of the version; by default the active one, or the last one of a removed task.

    Returns:
        A JSON-ready dictionary.

    Raises:
        UnknownNameError: There was no such task or version.
    """
    events = store.history()[::-1]
    learned = [event for event in events if event.task == task and event.written.get("version")]
    made = {event.version: event for event in learned if event.version is not None}
    if not made:
        raise UnknownNameError(f"no task {task!r} was ever learned in this workspace")
    with store.snapshot() as snapshot:
        present = {each.number: each for each in snapshot.versions if each.task == task}
        active = next((number for number in present if snapshot.task(task).active.number == number), None)
    number = version or active or max(made)
    if number not in made:
        have = ", ".join(map(str, made))
        raise UnknownNameError(f"task {task!r} has had no version {number}; it has had: {have}")
    stored = present.get(number)
    files = {} if stored is None else {reader.folder.name: slot for slot, reader in stored.objects.items()}
    hashes = {folder: value for event in events for folder, value in event.written.get("objects", {}).items()}
    return {
        "task": task,
        "version": number,
        "active": number == active,
        "data": made[number].written["version"]["data"],
        "labels": None if stored is None else list(stored.labels),
        "number_of_labels": made[number].written["version"]["labels"],
        "made": _entry(made[number]),
        "examples": {} if stored is None else dict(stored.description.get("counts", {})),
        "objects": [{"slot": slot, "folder": folder, "sha256": hashes[folder]} for folder, slot in files.items()],
        "events": [_entry(event) for event in events if task in (event.task, *event.detail.get("tasks", ()))],
    }


def _entry(event: EventSummary) -> dict[str, Any]:
    return {
        "generation": event.id,
        "time": event.time.isoformat(),
        "actor": event.actor,
        "verb": event.verb,
        "version": event.version,
        "detail": dict(event.detail),
        "seconds": round(event.seconds, 3),
        "digest": event.digest,
    }


def _against(events: Sequence[dict[str, Any]], heads: Sequence[Head]) -> Iterator[Break]:
    digests = {event["id"]: event["digest"] for event in events}
    for noted in heads:
        if noted.generation not in digests:
            yield Break(noted.generation, "was noted, but is not in the history")
        elif digests[noted.generation] != noted.digest:
            yield Break(noted.generation, "has another digest than was noted: the history up to it was written anew")


def _exported(path: Path) -> list[dict[str, Any]]:
    wrong = f"{path} is not a history that `conpet audit export` wrote"
    try:
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{wrong}: {error}") from None
    if not events:
        raise DataError(f"{path} is empty")
    for number, event in enumerate(events, start=1):
        if not isinstance(event, dict) or not isinstance(event.get("id"), int) or "digest" not in event:
            raise DataError(f"{wrong}: line {number} has no event")
    return events
