"""The hash chain of a workspace's history: every event holds a hash of itself and of the hash before it."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, func, select, update

from conpet.artifact import Manifest
from conpet.store.change import Change
from conpet.store.plan import Plan
from conpet.store.reading import read_events
from conpet.store.records import EventRecord
from conpet.store.schema import (
    EventRow,
    HeaderRow,
    ObjectRow,
    SharedRow,
    TaskRow,
    VersionObjectRow,
    VersionRow,
)

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
        "version": None
        if new is None
        else _version(new.digest, new.labels, new.description, new.parameters, new.head_parameters),
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
        if number > last + 1:
            more = f", and so are those up to {number - 1}" if number > last + 2 else ""
            yield Break(last + 1, f"is missing{'' if last else ' at the start'}{more}")
        elif number <= last:
            yield Break(number, f"stands after event {last}: events were put in another order")
        elif digest_of(previous, event) != event["digest"]:
            yield Break(number, "was changed after it was recorded")
        previous, last = event["digest"], number


def differences(connection: Connection, events: Sequence[EventRecord]) -> Iterator[Break]:
    """Yield where the header, tasks, versions, settings and objects in the database are not what the history recorded.

    The files of the objects are compared with their hashes in the database by `Store.verify`.
    """
    if not events:
        yield Break(None, "the history is empty")
        return
    last = events[-1]
    present = _present(connection)
    for what, name in _PRESENT.items():
        # An event has what the version of conpet recorded that wrote it.
        if what in last.written and present[what] != last.written[what]:
            yield Break(last.id, f"{name} differ from those it recorded")
    fixed = [event for event in events if "header" in event.written]
    for before, event in pairwise(fixed):
        if event.written["header"] != before.written["header"]:
            yield Break(event.id, f"{_PRESENT['header']} differ from those recorded before it")
    yield from _version_differences(connection, events)
    by_id = {event.id: event for event in events}
    for folder, manifest, created in connection.execute(
        select(ObjectRow.folder, ObjectRow.manifest, ObjectRow.created_event)
    ):
        maker = by_id.get(created)
        if maker is None or maker.written.get("objects", {}).get(folder) != _hash(manifest):
            yield Break(created, f"objects/{folder} has other content than it recorded")


def _version_differences(connection: Connection, events: Sequence[EventRecord]) -> Iterator[Break]:
    recorded = {(event.task, event.version): event for event in events if event.written.get("version")}
    rows = select(TaskRow.name, *VersionRow.__table__.c).join_from(VersionRow, TaskRow)
    for row in connection.execute(rows).mappings():
        task, number = row["name"], row["number"]
        if (task, number) not in recorded:
            yield Break(events[-1].id, f"version {number} of task {task!r} is in no event")
            continue
        event = recorded[task, number]
        described = (row["description"], row["parameters"], row["head_parameters"])
        stored, written = _version(row["digest"], row["labels"], *described), event.written["version"]
        wrong = {what for what, value in written.items() if stored.get(what) != value}
        if wrong - {"description"}:
            yield Break(event.id, f"version {number} of task {task!r} has other data or labels than it recorded")
        if "description" in wrong or row["created"] != event.time:
            yield Break(event.id, f"version {number} of task {task!r} is described otherwise than it recorded")


def _version(
    digest: str, labels: Sequence[str], description: Mapping[str, Any], parameters: int, head_parameters: int
) -> dict[str, Any]:
    """Return what is recorded of a version; its labels and description only as hashes, because they may be deleted."""
    return {
        "data": digest,
        "labels": len(labels),
        "labels_hash": _hash(list(labels)),
        "description": _hash([dict(description), parameters, head_parameters]),
    }


_PRESENT = {
    "header": "the backbone or other fixed properties of the workspace",
    "tasks": "the active versions of the tasks",
    "settings": "the settings",
    "slots": "the objects of versions and of the workspace",
}
"""What every event records of the state after it, and its name in messages."""


def _present(connection: Connection) -> dict[str, str]:
    """Return hashes of what `_PRESENT` names."""
    tasks = (
        select(TaskRow.name, VersionRow.number)
        .join(VersionRow, (VersionRow.task_id == TaskRow.id) & VersionRow.active)
        .order_by(TaskRow.position)
    )
    of_versions = (
        select(TaskRow.name, VersionRow.number, VersionObjectRow.slot, ObjectRow.folder)
        .join_from(VersionObjectRow, VersionRow)
        .join(TaskRow)
        .join(ObjectRow, ObjectRow.id == VersionObjectRow.object_id)
        .order_by(TaskRow.name, VersionRow.number, VersionObjectRow.slot)
    )
    shared = select(SharedRow.slot, ObjectRow.folder).join(ObjectRow).order_by(SharedRow.slot)
    header = connection.execute(select(HeaderRow)).one()
    return {
        "header": _hash([header.backbone, header.created.isoformat(), header.conpet_version]),
        "tasks": _hash([list(row) for row in connection.execute(tasks)]),
        "settings": _hash(header.settings),
        "slots": _hash([[list(row) for row in connection.execute(query)] for query in (of_versions, shared)]),
    }


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
