"""Read records from the database."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import TypeVar

from sqlalchemy import Connection, Text, cast, func, or_, select

from conpet.store.records import Cost, EventRecord, EventSummary, Header, Metric, Reference
from conpet.store.schema import (
    SCHEMA_VERSION,
    CostRow,
    EventRow,
    HeaderRow,
    LedgerRow,
    MetricRow,
    ReferenceRow,
)

LAST = 2**63 - 1
"""A number that no event reaches."""
RecordT = TypeVar("RecordT", Metric, Reference, Cost)


def read_generation(connection: Connection) -> int:
    """Return the id of the last event."""
    return connection.execute(select(func.max(EventRow.id))).scalar_one() or 0


def read_header(connection: Connection) -> Header:
    """Return the header of the workspace."""
    row = connection.execute(select(HeaderRow)).one()
    return Header(SCHEMA_VERSION, row.settings, row.backbone, row.created, row.conpet_version)


def read_events(connection: Connection, after: int, until: int = LAST) -> list[EventRecord]:
    """Return all events later than `after`, up to `until`, oldest first."""
    metrics = _read_ledger(connection, MetricRow, Metric, after, until)
    references = _read_ledger(connection, ReferenceRow, Reference, after, until)
    costs = _read_ledger(connection, CostRow, Cost, after, until)
    rows = connection.execute(select(EventRow).where(EventRow.id > after, EventRow.id <= until).order_by(EventRow.id))
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


def read_measured(connection: Connection, task: str, metric: str) -> dict[int, Metric]:
    """Return a metric of a task after each event that measured it, by the id of the event, oldest first."""
    columns = [getattr(MetricRow, column.name) for column in fields(Metric)]
    rows = connection.execute(
        select(MetricRow.event_id, *columns)
        .where(MetricRow.task == task, MetricRow.metric == metric)
        .order_by(MetricRow.event_id)
    )
    return {event_id: Metric(*values) for event_id, *values in rows}


def read_history(connection: Connection, *, before: int | None, limit: int | None, search: str) -> list[EventSummary]:
    """Return events without their measurements, newest first; arguments as in `Store.history`."""
    event = EventRow.__table__.c
    spent = select(func.sum(CostRow.seconds)).where(CostRow.event_id == event.id).scalar_subquery()
    names = ("id", "time", "verb", "task", "version", "detail", "actor", "written", "digest")
    query = select(*(event[name] for name in names), func.coalesce(spent, 0.0).label("seconds"))
    query = query.order_by(event.id.desc()).limit(limit)
    if before is not None:
        query = query.where(event.id < before)
    for word in search.split():
        texts = (event.verb, event.task, event.actor, cast(event.detail, Text), event.digest)
        query = query.where(or_(*(text.icontains(word, autoescape=True) for text in texts)))
    return [EventSummary(**row) for row in connection.execute(query).mappings()]


def _read_ledger(
    connection: Connection, table: type[LedgerRow], record: type[RecordT], after: int, until: int
) -> dict[int, list[RecordT]]:
    columns = [getattr(table, column.name) for column in fields(record)]
    rows = connection.execute(
        select(table.event_id, *columns)
        .where(table.event_id > after, table.event_id <= until)
        .order_by(table.event_id, table.position)
    )
    ledger: dict[int, list[RecordT]] = defaultdict(list)
    for event_id, *values in rows:
        ledger[event_id].append(record(*values))
    return ledger
