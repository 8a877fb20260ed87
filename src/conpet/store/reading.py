"""Read records from the database."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import TypeVar

from sqlalchemy import Connection, func, select

from conpet.store.records import Cost, EventRecord, Header, Metric, Reference
from conpet.store.schema import (
    SCHEMA_VERSION,
    CostRow,
    EventRow,
    HeaderRow,
    LedgerRow,
    MetricRow,
    ReferenceRow,
)

RecordT = TypeVar("RecordT", Metric, Reference, Cost)


def read_generation(connection: Connection) -> int:
    """Return the id of the last event."""
    return connection.execute(select(func.max(EventRow.id))).scalar_one() or 0


def read_header(connection: Connection) -> Header:
    """Return the header of the workspace."""
    row = connection.execute(select(HeaderRow)).one()
    return Header(SCHEMA_VERSION, row.settings, row.backbone, row.created, row.conpet_version)


def read_events(connection: Connection, after: int) -> list[EventRecord]:
    """Return all events later than `after`, oldest first."""
    metrics = _read_ledger(connection, MetricRow, Metric, after)
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
            metrics=tuple(metrics[row.id]),
            references=tuple(references[row.id]),
            costs=tuple(costs[row.id]),
            confusion=row.confusion,
            bytes_stored=row.bytes_stored,
            restores=row.restores,
            actor=row.actor,
            written=row.written,
            digest=row.digest,
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
