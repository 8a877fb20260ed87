"""The hash chain of a workspace's history: every event holds a hash of itself and of the hash before it."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from conpet.artifact import Manifest
from conpet.store.change import Change
from conpet.store.plan import Plan
from conpet.store.reading import read_events
from conpet.store.records import EventRecord
from conpet.store.schema import EventRow, HeaderRow, ObjectRow, TaskRow, VersionRow

ACTOR = "CONPET_ACTOR"
"""Environment variable that names who makes the changes of this process."""


@dataclass(frozen=True, slots=True)
class Break:
    """A place where a history, or what it describes, is not what was recorded.

    Attributes:
        event: Id of the event; None for a file that is not what the database says.
        reason: What is wrong.
    """

    event: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.event is None else f"event {self.event}: {self.reason}"


def actor() -> str:
    """Return who makes the changes of this process: `CONPET_ACTOR`, or the name of the user."""
    if named := os.environ.get(ACTOR, "").strip():
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def written_by(connection: Connection, change: Change, plan: Plan, manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Return the hashes of what a change wrote, and of the tasks and settings after it.

    Args:
        connection: The transaction of the change, which was applied.
        change: The change.
        plan: Its plan.
        manifests: One for each placement of the plan.
    """
    new = change.new_version
    return {
        "version": None if new is None else _version(new.digest, new.labels),
        "objects": {
            placement.folder: _hash(manifest.to_json())
            for placement, manifest in zip(plan.placements, manifests, strict=True)
        },
        **_present(connection),
    }


def seal(connection: Connection, event_id: int, written: Mapping[str, Any]) -> None:
    """Complete an event: store what it wrote, and its digest, which nothing may change afterwards."""
    this = EventRow.id == event_id
    connection.execute(update(EventRow).where(this).values(written=dict(written)))
    previous = select(EventRow.digest).where(EventRow.id < event_id).order_by(EventRow.id.desc()).limit(1)
    (event,) = read_events(connection, after=event_id - 1)
    digest = digest_of(connection.execute(previous).scalar() or "", to_json(event))
    connection.execute(update(EventRow).where(this).values(digest=digest))


def create(connection: Connection) -> None:
    """Complete the first event of a new workspace."""
    seal(connection, connection.execute(select(func.max(EventRow.id))).scalar_one(), _present(connection))


def to_json(event: EventRecord) -> dict[str, Any]:
    """Return everything that is recorded of an event, its digest included, JSON-ready."""
    return {**asdict(event), "time": event.time.isoformat()}


def digest_of(previous: str, event: Mapping[str, Any]) -> str:
    """Return the digest of an event in JSON, given the digest before it ("" for the first)."""
    return _hash([previous, {key: value for key, value in event.items() if key != "digest"}])


def breaks(events: Sequence[Mapping[str, Any]]) -> Iterator[Break]:
    """Yield where a history in JSON, from the first event on, is not what was recorded.

    What is missing at its end can only be seen by a digest that was noted elsewhere.
    """
    previous, last = "", 0
    for event in events:
        number = event["id"]
        missing = list(range(last + 1, number))
        if missing:
            yield Break(
                missing[0], f"{_numbers(missing)} missing" if last else f"{_numbers(missing)} missing at the start"
            )
        elif number <= last:
            yield Break(number, f"stands after event {last}: events were put in another order")
        elif digest_of(previous, event) != event["digest"]:
            yield Break(number, "was changed after it was recorded")
        previous, last = event["digest"], number


def differences(connection: Connection, events: Sequence[EventRecord]) -> Iterator[Break]:
    """Yield where tasks, versions, settings and objects in the database are not what the history recorded.

    The files of the objects are compared with their hashes in the database by `Store.verify`.
    """
    last = events[-1]
    present = _present(connection)
    for what, name in (("tasks", "the active versions of the tasks"), ("settings", "the settings")):
        if present[what] != last.written.get(what):
            yield Break(last.id, f"{name} differ from those it recorded")
    recorded = {(event.task, event.version): event for event in events if event.written.get("version")}
    versions = select(TaskRow.name, VersionRow.number, VersionRow.digest, VersionRow.labels).join(TaskRow)
    for task, number, digest, labels in connection.execute(versions):
        event = recorded.get((task, number))
        if event is None:
            yield Break(last.id, f"version {number} of task {task!r} is in no event")
        elif event.written["version"] != _version(digest, labels):
            yield Break(event.id, f"version {number} of task {task!r} has other data or labels than it recorded")
    by_id = {event.id: event for event in events}
    for folder, manifest, created in connection.execute(
        select(ObjectRow.folder, ObjectRow.manifest, ObjectRow.created_event)
    ):
        maker = by_id.get(created)
        if maker is None or maker.written["objects"].get(folder) != _hash(manifest):
            yield Break(created, f"objects/{folder} has other content than it recorded")


def _version(digest: str, labels: Sequence[str]) -> dict[str, Any]:
    """Return what is recorded of a version; its labels only as a hash, because they may be retired."""
    return {"data": digest, "labels": len(labels), "labels_hash": _hash(list(labels))}


def _present(connection: Connection) -> dict[str, str]:
    """Return hashes of the tasks with their active versions, and of the settings."""
    tasks = (
        select(TaskRow.name, VersionRow.number)
        .join(VersionRow, (VersionRow.task_id == TaskRow.id) & VersionRow.active)
        .order_by(TaskRow.position)
    )
    return {
        "tasks": _hash([list(row) for row in connection.execute(tasks)]),
        "settings": _hash(connection.execute(select(HeaderRow.settings)).scalar_one()),
    }


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _numbers(events: Sequence[int]) -> str:
    first, *more = events
    return f"events {first} to {more[-1]} are" if more else f"event {first} is"
