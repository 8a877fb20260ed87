"""Snapshots that cost what is new: what never changes in the database is read once and kept in memory.

Rows of versions and objects are written once, and their ids never come again. What can change is which of them there
are, which version of a task is active and which object stands in which slot: of that, ids alone are read, and only when
there was an event since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from conpet.artifact import ArtifactReader, Manifest
from conpet.store.leases import Lease
from conpet.store.reading import read_generation, read_header
from conpet.store.records import Header, Snapshot, TaskRecord, VersionRecord
from conpet.store.schema import ObjectRow, SharedRow, TaskRow, VersionObjectRow, VersionRow

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """An object, as all its readers see it; it keeps no lease."""

    folder: Path
    manifest: Manifest
    documents: dict[str, Any] = field(default_factory=dict)

    def reader(self, lease: Lease) -> ArtifactReader:
        return ArtifactReader(self.folder, self.manifest, lease, self.documents)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """One generation, without a lease.

    Attributes:
        generation: Id of its last event.
        header: What the workspace is made of.
        objects: The objects in use, by id.
        columns: The columns of each version that never change, by id.
        tasks: Id, name, position and ids of the versions of each task, by position.
        active: Ids of the active versions.
        slots: The objects of each version, by its id.
        shared: The objects that belong to no task.
    """

    generation: int
    header: Header
    objects: Mapping[int, _Object]
    columns: Mapping[int, Mapping[str, Any]]
    tasks: tuple[tuple[int, str, int, list[int]], ...]
    active: frozenset[int]
    slots: Mapping[int, Mapping[str, _Object]]
    shared: Mapping[str, _Object]

    def snapshot(self, lease: Lease) -> Snapshot:
        """Return it as records whose readers keep a lease."""
        tasks = tuple(
            TaskRecord(id_, name, position, tuple(self._version(version, name, lease) for version in versions))
            for id_, name, position, versions in self.tasks
        )
        shared = {slot: one.reader(lease) for slot, one in self.shared.items()}
        return Snapshot(self.generation, self.header, tasks, shared, lease)

    def _version(self, id_: int, task: str, lease: Lease) -> VersionRecord:
        objects = {slot: one.reader(lease) for slot, one in self.slots.get(id_, {}).items()}
        return VersionRecord(id=id_, task=task, active=id_ in self.active, objects=objects, **self.columns[id_])


class Index:
    """Reads snapshots, each from what it knows of the last one; safe for threads, for a state is never changed.

    Args:
        objects: The folder of all objects.
    """

    def __init__(self, objects: Path) -> None:
        self._folder = objects
        self._last: _State | None = None

    def snapshot(self, connection: Connection, lease: Lease) -> Snapshot:
        """Return everything but contents, in a number of queries that does not depend on how much was learned."""
        state = self._last  # another thread may exchange it meanwhile
        generation = read_generation(connection)
        if state is None or state.generation != generation:
            state = self._last = self._read(connection, generation, state)
        return state.snapshot(lease)

    def _read(self, connection: Connection, generation: int, last: _State | None) -> _State:
        links = connection.execute(
            select(VersionObjectRow.version_id, VersionObjectRow.slot, VersionObjectRow.object_id).order_by(
                VersionObjectRow.version_id, VersionObjectRow.slot
            )
        ).all()
        shared = connection.execute(select(SharedRow.slot, SharedRow.object_id).order_by(SharedRow.slot)).all()
        present = connection.execute(
            select(VersionRow.id, VersionRow.task_id, VersionRow.active).order_by(VersionRow.number)
        ).all()
        tasks = connection.execute(select(TaskRow.id, TaskRow.name, TaskRow.position).order_by(TaskRow.position))
        used = [link.object_id for link in (*links, *shared)]
        objects = _kept(used, last.objects if last else {}, lambda after: self._objects(connection, after))
        slots: dict[int, dict[str, _Object]] = defaultdict(dict)
        for version, slot, object_id in links:
            slots[version][slot] = objects[object_id]
        versions: dict[int, list[int]] = defaultdict(list)
        for id_, task, _ in present:
            versions[task].append(id_)
        return _State(
            generation,
            read_header(connection),
            objects,
            _kept((row.id for row in present), last.columns if last else {}, lambda after: _columns(connection, after)),
            tuple((id_, name, position, versions[id_]) for id_, name, position in tasks),
            frozenset(row.id for row in present if row.active),
            slots,
            {slot: objects[object_id] for slot, object_id in shared},
        )

    def _objects(self, connection: Connection, after: int) -> dict[int, _Object]:
        query = select(ObjectRow.id, ObjectRow.folder, ObjectRow.manifest).where(ObjectRow.id > after)
        return {
            id_: _Object(self._folder / folder, Manifest.from_json(manifest))
            for id_, folder, manifest in connection.execute(query)
        }


def _kept(used: Iterable[int], known: Mapping[int, Row], read: Callable[[int], Mapping[int, Row]]) -> dict[int, Row]:
    """Return the rows in use, by id: those that are known, and the later ones as they are read."""
    later = read(max(known, default=0))
    return {id_: known[id_] if id_ in known else later[id_] for id_ in used}


def _columns(connection: Connection, after: int) -> dict[int, dict[str, Any]]:
    """Read what never changes of later versions, as arguments of `VersionRecord`."""
    return {
        row.id: {
            "number": row.number,
            "digest": row.digest,
            "labels": tuple(row.labels),
            "description": row.description,
            "parameters": row.parameters,
            "head_parameters": row.head_parameters,
            "created": row.created,
        }
        for row in connection.execute(select(VersionRow).where(VersionRow.id > after))
    }
