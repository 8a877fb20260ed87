"""The transaction of a commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from conpet.artifact import Manifest
from conpet.errors import ConfigError
from conpet.store.chain import seal, written_by
from conpet.store.change import Change, NewVersion
from conpet.store.pins import pin_present, restore, unpin
from conpet.store.plan import Placement, Plan, Target, find_version
from conpet.store.prediction_log import RecordHead
from conpet.store.reading import read_generation
from conpet.store.records import MODULE, Cost, Metric, Reference
from conpet.store.schema import (
    CostRow,
    EventRow,
    HeaderRow,
    LedgerRow,
    MetricRow,
    ObjectRow,
    ReferenceRow,
    SharedRow,
    TaskRow,
    VersionObjectRow,
    VersionRow,
)


def apply_change(
    connection: Connection,
    change: Change,
    plan: Plan,
    manifests: Sequence[Manifest],
    actor: str,
    predictions: RecordHead | None = None,
) -> int:
    """Write all rows of a change and return the id of its event.

    Args:
        connection: An open write transaction.
        change: What to change.
        plan: Its plan, from `make_plans` in this state.
        manifests: One for each placement of the plan; the folders must already be in place.
        actor: Who makes the change.
        predictions: The last entry of the workspace's record of predictions, which the event notes.
    """
    now, present = datetime.now(UTC), read_generation(connection)
    event_id = _add_event(connection, change, plan, actor, now)
    if change.pin:
        pin_present(connection, present)
    unpin(connection, change.unpinned)
    returned = 0 if change.restore is None else restore(connection, change.restore, event_id)
    if change.task is not None:
        _change_task(connection, change.task, change, plan, event_id, now)
    for task, number in change.dropped:
        _drop_version(connection, task, number, event_id)
    if change.settings is not None:
        connection.execute(update(HeaderRow).values(settings=dict(change.settings)))
    for target in plan.emptied:
        _release(connection, target, event_id)
    for placement, manifest in zip(plan.placements, manifests, strict=True):
        former = _release(connection, placement.target, event_id)
        if placement.target.slot == MODULE and not change.replaces_modules:
            _check_module(placement.target, former, manifest)
        _place(connection, placement, manifest, event_id)
    _add_ledger(connection, MetricRow, event_id, change.metrics)
    _add_ledger(connection, ReferenceRow, event_id, change.references)
    _add_ledger(connection, CostRow, event_id, change.costs)
    in_use = _bytes_before(connection, event_id) + sum(manifest.bytes for manifest in manifests)
    in_use += returned - _bytes_released(connection, event_id)
    connection.execute(update(EventRow).where(EventRow.id == event_id).values(bytes_stored=in_use))
    written = written_by(connection, change, plan, manifests)
    seal(connection, event_id, written if predictions is None else {**written, "predictions": asdict(predictions)})
    return event_id


def _change_task(connection: Connection, task: str, change: Change, plan: Plan, event_id: int, now: datetime) -> None:
    if change.remove:
        _remove_task(connection, task, event_id)
    elif change.new_version is not None and plan.version is not None:
        _add_version(connection, task, plan.version, change.new_version, now)
    elif change.activate is not None:
        _activate(connection, task, change.activate)


def _bytes_before(connection: Connection, event_id: int) -> int:
    """Return the size of all objects in use before an event, from the previous event."""
    events = select(EventRow.bytes_stored).where(EventRow.id < event_id).order_by(EventRow.id.desc())
    return connection.execute(events.limit(1)).scalar_one()


def _bytes_released(connection: Connection, event_id: int) -> int:
    released = select(func.coalesce(func.sum(ObjectRow.bytes), 0)).where(ObjectRow.released_event == event_id)
    return connection.execute(released).scalar_one()


def _add_event(connection: Connection, change: Change, plan: Plan, actor: str, now: datetime) -> int:
    return connection.execute(
        insert(EventRow)
        .values(
            time=now,
            verb=change.verb,
            task=change.task,
            version=plan.version,
            detail=dict(change.detail),
            confusion=change.confusion,
            bytes_stored=0,
            restores=change.restore,
            actor=actor,
            written={},
            digest="",
        )
        .returning(EventRow.id)
    ).scalar_one()


def _add_version(connection: Connection, task: str, number: int, new: NewVersion, now: datetime) -> None:
    task_id = connection.execute(select(TaskRow.id).where(TaskRow.name == task)).scalar()
    if task_id is None:
        position = select(func.coalesce(func.max(TaskRow.position) + 1, 0)).scalar_subquery()
        task_id = connection.execute(
            insert(TaskRow).values(name=task, position=position).returning(TaskRow.id)
        ).scalar_one()
    connection.execute(update(VersionRow).where(VersionRow.task_id == task_id).values(active=False))
    connection.execute(
        insert(VersionRow).values(
            task_id=task_id,
            number=number,
            active=True,
            digest=new.digest,
            labels=list(new.labels),
            description=dict(new.description),
            parameters=new.parameters,
            head_parameters=new.head_parameters,
            created=now,
        )
    )


def _activate(connection: Connection, task: str, number: int) -> None:
    of_task = VersionRow.task_id == select(TaskRow.id).where(TaskRow.name == task).scalar_subquery()
    # In two steps, because two versions of a task must never be active, not even within a statement.
    connection.execute(update(VersionRow).where(of_task).values(active=False))
    connection.execute(update(VersionRow).where(of_task, VersionRow.number == number).values(active=True))


def _remove_task(connection: Connection, task: str, event_id: int) -> None:
    objects = (
        select(VersionObjectRow.object_id)
        .join(VersionRow, VersionRow.id == VersionObjectRow.version_id)
        .join(TaskRow, TaskRow.id == VersionRow.task_id)
        .where(TaskRow.name == task)
    )
    connection.execute(update(ObjectRow).where(ObjectRow.id.in_(objects)).values(released_event=event_id))
    connection.execute(delete(TaskRow).where(TaskRow.name == task))


def _drop_version(connection: Connection, task: str, number: int, event_id: int) -> None:
    version_id = find_version(connection, task, number)
    objects = select(VersionObjectRow.object_id).where(VersionObjectRow.version_id == version_id)
    connection.execute(update(ObjectRow).where(ObjectRow.id.in_(objects)).values(released_event=event_id))
    connection.execute(delete(VersionRow).where(VersionRow.id == version_id))


def _release(connection: Connection, target: Target, event_id: int) -> Manifest | None:
    """Empty a slot and return the manifest of its former object."""
    if target.task is None or target.version is None:
        link = delete(SharedRow).where(SharedRow.slot == target.slot).returning(SharedRow.object_id)
    else:
        version_id = find_version(connection, target.task, target.version)
        in_slot = (VersionObjectRow.version_id == version_id, VersionObjectRow.slot == target.slot)
        link = delete(VersionObjectRow).where(*in_slot).returning(VersionObjectRow.object_id)
    former = connection.execute(link).scalar()
    released = update(ObjectRow).where(ObjectRow.id == former).values(released_event=event_id)
    manifest = connection.execute(released.returning(ObjectRow.manifest)).scalar()
    return Manifest.from_json(manifest) if manifest is not None else None


def _check_module(target: Target, former: Manifest | None, new: Manifest) -> None:
    """Check that a new module of a version only drops files of the former one."""
    if former is not None and not new.files.items() <= former.files.items():
        raise ConfigError(
            f"version {target.version} of task {target.task!r} already has a module; create a new version to change "
            "it, or pin the present generation"
        )


def _place(connection: Connection, placement: Placement, manifest: Manifest, event_id: int) -> None:
    connection.execute(
        insert(ObjectRow).values(
            id=placement.object_id,
            folder=placement.folder,
            manifest=manifest.to_json(),
            bytes=manifest.bytes,
            created_event=event_id,
        )
    )
    target = placement.target
    if target.task is None or target.version is None:
        connection.execute(insert(SharedRow).values(slot=target.slot, object_id=placement.object_id))
        return
    version_id = find_version(connection, target.task, target.version)
    connection.execute(
        insert(VersionObjectRow).values(version_id=version_id, slot=target.slot, object_id=placement.object_id)
    )


def _add_ledger(
    connection: Connection,
    table: type[LedgerRow],
    event_id: int,
    records: Sequence[Metric | Reference | Cost],
) -> None:
    rows = [{"event_id": event_id, "position": place, **asdict(record)} for place, record in enumerate(records)]
    if rows:
        connection.execute(insert(table), rows)
