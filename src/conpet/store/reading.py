"""Reads of the database, as records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select

from conpet.artifact import ArtifactReader, Manifest
from conpet.store.leases import Lease
from conpet.store.records import Cost, Evaluation, EventRecord, Header, Reference, Snapshot, TaskRecord, VersionRecord
from conpet.store.schema import (
    SCHEMA_VERSION,
    CostRow,
    EvaluationRow,
    EventRow,
    HeaderRow,
    LedgerRow,
    ObjectRow,
    ReferenceRow,
    SharedRow,
    TaskRow,
    VersionObjectRow,
    VersionRow,
)

RecordT = TypeVar("RecordT", Evaluation, Reference, Cost)


def read_generation(connection: Connection) -> int:
    """Return the id of the last event."""
    return connection.execute(select(func.max(EventRow.id))).scalar_one() or 0


def read_header(connection: Connection) -> Header:
    """Return what the workspace was created with."""
    row = connection.execute(select(HeaderRow)).one()
    return Header(SCHEMA_VERSION, row.settings, row.backbone, row.created, row.conpet_version)


def read_snapshot(connection: Connection, objects: Path, lease: Lease) -> Snapshot:
    """Return everything but contents, in a number of queries that does not depend on how much was learned."""

    def reader(folder: str, manifest: dict[str, Any]) -> ArtifactReader:
        return ArtifactReader(objects / folder, Manifest.from_json(manifest), lease)

    versions = _read_versions(connection, reader)
    tasks = connection.execute(select(TaskRow.id, TaskRow.name, TaskRow.position).order_by(TaskRow.position))
    shared = connection.execute(
        select(SharedRow.slot, ObjectRow.folder, ObjectRow.manifest)
        .join(ObjectRow, ObjectRow.id == SharedRow.object_id)
        .order_by(SharedRow.slot)
    )
    return Snapshot(
        generation=read_generation(connection),
        header=read_header(connection),
        tasks=tuple(TaskRecord(id_, name, position, tuple(versions[id_])) for id_, name, position in tasks),
        shared={slot: reader(folder, manifest) for slot, folder, manifest in shared},
        lease=lease,
    )


def _read_versions(
    connection: Connection, reader: Callable[[str, dict[str, Any]], ArtifactReader]
) -> dict[int, list[VersionRecord]]:
    objects: dict[int, dict[str, ArtifactReader]] = defaultdict(dict)
    for version_id, slot, folder, manifest in connection.execute(
        select(VersionObjectRow.version_id, VersionObjectRow.slot, ObjectRow.folder, ObjectRow.manifest)
        .join(ObjectRow, ObjectRow.id == VersionObjectRow.object_id)
        .order_by(VersionObjectRow.slot)
    ):
        objects[version_id][slot] = reader(folder, manifest)
    versions: dict[int, list[VersionRecord]] = defaultdict(list)
    for row in connection.execute(
        select(VersionRow, TaskRow.name).join(TaskRow, TaskRow.id == VersionRow.task_id).order_by(VersionRow.number)
    ):
        version = VersionRecord(
            id=row.id,
            task=row.name,
            number=row.number,
            active=row.active,
            digest=row.digest,
            labels=tuple(row.labels),
            description=row.description,
            parameters=row.parameters,
            head_parameters=row.head_parameters,
            created=row.created,
            objects=objects[row.id],
        )
        versions[row.task_id].append(version)
    return versions


def read_events(connection: Connection, after: int) -> list[EventRecord]:
    """Return all events later than `after`, oldest first."""
    evaluations = _read_ledger(connection, EvaluationRow, Evaluation, after)
    references = _read_ledger(connection, ReferenceRow, Reference, after)
    costs = _read_ledger(connection, CostRow, Cost, after)
    rows = connection.execute(select(EventRow).where(EventRow.id > after).order_by(EventRow.id))
    return [
        EventRecord(
            id=row.id,
            time=row.time,
            verb=row.verb,
            task=row.task,
            version=row.version,
            detail=row.detail,
            evaluations=tuple(evaluations[row.id]),
            references=tuple(references[row.id]),
            costs=tuple(costs[row.id]),
            confusion=row.confusion,
            bytes_stored=row.bytes_stored,
        )
        for row in rows
    ]


def _read_ledger(
    connection: Connection, table: type[LedgerRow], record: type[RecordT], after: int
) -> dict[int, list[RecordT]]:
    columns = [getattr(table, column.name) for column in fields(record)]
    rows = connection.execute(
        select(table.event_id, *columns).where(table.event_id > after).order_by(table.event_id, table.position)
    )
    ledger: dict[int, list[RecordT]] = defaultdict(list)
    for event_id, *values in rows:
        ledger[event_id].append(record(*values))
    return ledger
