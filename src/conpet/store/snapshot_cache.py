"""Incremental snapshots: rows that never change are read once and kept in memory.

Rows of versions and objects are written once, and their ids are never reused. Only three things change: which rows
exist, which version of a task is active, and which object is in which slot. A task with a new object or another active
version is found by its new objects or by its name in the history. If rows were deleted, there are fewer than known, and
all ids are read again. A restored generation brings deleted rows back, so everything is read again after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, true

from conpet.artifact import ArtifactReader, Manifest
from conpet.store.leases import Lease
from conpet.store.pins import read_pin
from conpet.store.reading import read_generation, read_header
from conpet.store.records import Header, Snapshot, TaskRecord, VersionRecord
from conpet.store.schema import (
    EventRow,
    ObjectRow,
    PinObjectRow,
    SharedRow,
    TaskRow,
    VersionObjectRow,
    VersionRow,
)

_COLUMNS = ("number", "digest", "description", "parameters", "head_parameters")
"""Immutable columns of a version that are used as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """An object shared by all its readers, without a lease."""

    id: int
    folder: Path
    manifest: Manifest
    documents: dict[str, Any] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)

    def reader(self, lease: Lease, remedy: str) -> ArtifactReader:
        return ArtifactReader(self.folder, self.manifest, lease, self.documents, checked=self.checked, remedy=remedy)


class _Readers(Mapping[str, ArtifactReader]):
    """Readers by slot, with a lease; each is created on first access."""

    __slots__ = ("_created", "_lease", "_objects", "_remedy")

    def __init__(self, objects: Mapping[str, _Object], lease: Lease, remedy: Callable[[], str]) -> None:
        self._objects = objects
        self._lease = lease
        self._remedy = remedy
        self._created: dict[str, ArtifactReader] = {}

    def __getitem__(self, slot: str) -> ArtifactReader:
        if slot not in self._created:
            self._created[slot] = self._objects[slot].reader(self._lease, self._remedy())
        return self._created[slot]

    def __contains__(self, slot: object) -> bool:
        return slot in self._objects

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)


@dataclass(frozen=True, slots=True, eq=False)
class _Version:
    """A version; `columns` are its immutable columns, as arguments of `VersionRecord`."""

    id: int
    active: bool
    columns: Mapping[str, Any]
    objects: Mapping[str, _Object]


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    id: int
    name: str
    position: int
    versions: tuple[_Version, ...]

    def record(self, lease: Lease) -> TaskRecord:
        versions = tuple(
            VersionRecord(
                id=version.id,
                task=self.name,
                active=version.active,
                objects=_Readers(version.objects, lease, partial(self._remedy, version)),
                **version.columns,
            )
            for version in self.versions
        )
        return TaskRecord(self.id, self.name, self.position, versions)

    def _remedy(self, damaged: _Version) -> str:
        """Return how to get back an object of a version."""
        numbers = [version.columns["number"] for version in self.versions if version is not damaged]
        back = f"make version {numbers[-1]} active (`conpet modules rollback`), " if damaged.active and numbers else ""
        return (
            f"it belongs to version {damaged.columns['number']} of task {self.name!r}: {back}restore the folder from a "
            "backup, or remove the task (`conpet modules remove`) and learn it again"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """One generation, without a lease.

    Attributes:
        generation: Id of its last event.
        header: The description of the workspace.
        tasks: Its tasks by id, in the order of their positions.
        shared: The objects that belong to no task.
        versions_read: Id of the last version read.
        objects_read: Id of the last object read.
    """

    generation: int
    header: Header
    tasks: Mapping[int, _Task]
    shared: Mapping[str, _Object]
    versions_read: int
    objects_read: int


class Index:
    """Reads snapshots incrementally. Thread-safe, because a state is never changed.

    Args:
        objects: The folder of all objects.
    """

    def __init__(self, objects: Path) -> None:
        self._folder = objects
        self._last: _State | None = None

    def snapshot(self, connection: Connection, lease: Lease) -> Snapshot:
        """Return everything except contents, with a constant number of queries."""
        state = self._last  # another thread may replace it meanwhile
        generation = read_generation(connection)
        if state is None or state.generation != generation:
            state = self._last = self._read(connection, generation, state)
        tasks = tuple(task.record(lease) for task in state.tasks.values())
        return Snapshot(state.generation, state.header, tasks, _Readers(state.shared, lease, _shared_remedy), lease)

    def pinned(self, connection: Connection, generation: int, lease: Lease) -> Snapshot:
        """Return a pinned generation; `UnknownNameError` if it is not pinned."""
        state = read_pin(connection, generation)
        query = _OBJECT.join(PinObjectRow, PinObjectRow.object_id == ObjectRow.id)
        objects = self._objects(connection, query.where(PinObjectRow.generation == generation))
        tasks = [
            _Task(
                task["id"],
                task["name"],
                task["position"],
                tuple(_pinned_version(version, objects) for version in task["versions"]),
            ).record(lease)
            for task in state["tasks"]
        ]
        shared = {slot: objects[id_] for slot, id_ in state["shared"].items()}
        header = replace(read_header(connection), settings=state["settings"])
        return Snapshot(generation, header, tuple(tasks), _Readers(shared, lease, _shared_remedy), lease)

    def _read(self, connection: Connection, generation: int, last: _State | None) -> _State:
        if last and _restored(connection, last.generation):
            last = None
        new = self._objects(connection, _OBJECT.where(ObjectRow.id > (last.objects_read if last else 0)))
        columns = _columns(connection, last.versions_read if last else 0)
        tasks: dict[int, _Task] = {}
        if last:
            touched = _touched(connection, last)
            updated = _tasks(
                connection, [last.tasks[id_] for id_ in touched if id_ in last.tasks], columns, new, touched
            )
            tasks = {**last.tasks, **updated}
        if _counted(tasks) != _count(connection):  # rows were deleted, or nothing is known yet
            tasks = _tasks(connection, last.tasks.values() if last else (), columns, new)
        slots = connection.execute(select(SharedRow.slot, SharedRow.object_id).order_by(SharedRow.slot))
        known = {stored.id: stored for stored in last.shared.values()} if last else {}
        return _State(
            generation,
            read_header(connection),
            tasks,
            {slot: known.get(id_) or new[id_] for slot, id_ in slots},
            max(columns, default=last.versions_read if last else 0),
            max(new, default=last.objects_read if last else 0),
        )

    def _objects(self, connection: Connection, query: Select[Any]) -> dict[int, _Object]:
        return {
            id_: _Object(id_, self._folder / folder, Manifest.from_json(manifest))
            for id_, folder, manifest in connection.execute(query)
        }


def _shared_remedy() -> str:
    return (
        "it belongs to all tasks: restore the folder from a backup, or go back to a kept generation (`conpet "
        "generations` lists them)"
    )


_OBJECT = select(ObjectRow.id, ObjectRow.folder, ObjectRow.manifest)


def _pinned_version(version: Mapping[str, Any], objects: Mapping[int, _Object]) -> _Version:
    columns = {name: version[name] for name in _COLUMNS}
    columns |= {"labels": tuple(version["labels"]), "created": datetime.fromisoformat(version["created"])}
    slots = {slot: objects[id_] for slot, id_ in version["objects"].items()}
    return _Version(version["id"], version["active"], columns, slots)


def _restored(connection: Connection, after: int) -> bool:
    """Return whether an event later than `after` restored a generation."""
    later = select(EventRow.id).where(EventRow.id > after, EventRow.restores.is_not(None))
    return connection.execute(later.limit(1)).first() is not None


def _touched(connection: Connection, last: _State) -> list[int]:
    """Return the ids of the tasks with new objects or another active version."""
    named = select(TaskRow.id).join(EventRow, EventRow.task == TaskRow.name).where(EventRow.id > last.generation)
    filled = (
        select(VersionRow.task_id)
        .join(VersionObjectRow, VersionObjectRow.version_id == VersionRow.id)
        .where(VersionObjectRow.object_id > last.objects_read)
    )
    return list(connection.execute(named.union(filled)).scalars())


def _tasks(
    connection: Connection,
    known: Iterable[_Task],
    columns: Mapping[int, Mapping[str, Any]],
    new: Mapping[int, _Object],
    only: Iterable[int] | None = None,
) -> dict[int, _Task]:
    """Read the current tasks by id, in the order of their positions.

    Args:
        connection: An open transaction.
        known: The tasks in the last state.
        columns: The columns of all newer versions, by id.
        new: All newer objects, by id.
        only: Ids of the tasks to read; None for all.
    """
    versions = {version.id: version for task in known for version in task.versions}
    objects = {stored.id: stored for version in versions.values() for stored in version.objects.values()} | dict(new)
    which: ColumnElement[bool] = true() if only is None else TaskRow.id.in_(only)
    slots: dict[int, dict[str, _Object]] = defaultdict(dict)
    for id_, slot, object_id in connection.execute(
        select(VersionObjectRow.version_id, VersionObjectRow.slot, VersionObjectRow.object_id)
        .join(VersionRow, VersionRow.id == VersionObjectRow.version_id)
        .join(TaskRow, TaskRow.id == VersionRow.task_id)
        .where(which)
        .order_by(VersionObjectRow.slot)
    ):
        slots[id_][slot] = objects[object_id]
    members: dict[int, list[_Version]] = defaultdict(list)
    for id_, task, active in connection.execute(
        select(VersionRow.id, VersionRow.task_id, VersionRow.active)
        .join(TaskRow, TaskRow.id == VersionRow.task_id)
        .where(which)
        .order_by(VersionRow.number)
    ):
        fixed = versions[id_].columns if id_ in versions else columns[id_]
        members[task].append(_Version(id_, active, fixed, slots[id_]))
    rows = select(TaskRow.id, TaskRow.name, TaskRow.position).where(which).order_by(TaskRow.position)
    return {id_: _Task(id_, name, position, tuple(members[id_])) for id_, name, position in connection.execute(rows)}


def _columns(connection: Connection, after: int) -> dict[int, dict[str, Any]]:
    """Read the immutable columns of newer versions."""
    return {
        row.id: {name: getattr(row, name) for name in _COLUMNS} | {"labels": tuple(row.labels), "created": row.created}
        for row in connection.execute(select(VersionRow).where(VersionRow.id > after))
    }


def _counted(tasks: Mapping[int, _Task]) -> tuple[int, int, int]:
    """Return the number of known tasks, versions and filled slots."""
    versions = [version for task in tasks.values() for version in task.versions]
    return len(tasks), len(versions), sum(len(version.objects) for version in versions)


def _count(connection: Connection) -> tuple[int, int, int]:
    """Return the same numbers from the database. All rows there are known, so equal numbers mean equal rows."""
    counts = (select(func.count()).select_from(table) for table in (TaskRow, VersionRow, VersionObjectRow))
    tasks, versions, slots = connection.execute(select(*(count.scalar_subquery() for count in counts))).one()
    return tasks, versions, slots
