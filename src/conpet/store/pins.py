"""Pinned generations: former states of a workspace that can be made present again.

A pin holds the rows of one generation (settings, tasks, versions, and the object in each slot) as one document. Objects
of a pinned generation are not deleted, whatever is learned, replaced or removed later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from conpet.errors import UnknownNameError
from conpet.store.schema import (
    HeaderRow,
    ObjectRow,
    PinObjectRow,
    PinRow,
    SharedRow,
    TaskRow,
    VersionObjectRow,
    VersionRow,
)

_COLUMNS = ("id", "number", "active", "digest", "labels", "description", "parameters", "head_parameters")
"""Columns of a version that are copied as they are."""


def pin_present(connection: Connection, generation: int) -> None:
    """Pin the present generation, unless a pin holds exactly the same state."""
    state = _present(connection)
    if state in connection.execute(select(PinRow.state)).scalars().all():
        return
    connection.execute(insert(PinRow).values(generation=generation, state=state))
    rows = [{"generation": generation, "object_id": object_id} for object_id in objects_of(state)]
    if rows:
        connection.execute(insert(PinObjectRow), rows)


def unpin(connection: Connection, generations: Collection[int]) -> None:
    """Delete pins; objects that only they needed can then be deleted."""
    if generations:
        connection.execute(delete(PinRow).where(PinRow.generation.in_(generations)))


def restore(connection: Connection, generation: int, event_id: int) -> int:
    """Make a pinned generation the present one; return the size of the objects that come back into use.

    Args:
        connection: An open write transaction.
        generation: The pinned generation; it stays pinned.
        event_id: The event that restores it.
    """
    state = read_pin(connection, generation)
    wanted = ObjectRow.id.in_(select(PinObjectRow.object_id).where(PinObjectRow.generation == generation))
    returning = select(func.coalesce(func.sum(ObjectRow.bytes), 0)).where(wanted, ObjectRow.released_event.is_not(None))
    returned: int = connection.execute(returning).scalar_one()
    in_use = ObjectRow.released_event.is_(None)
    connection.execute(update(ObjectRow).where(in_use).values(released_event=event_id))
    connection.execute(update(ObjectRow).where(wanted).values(released_event=None))
    connection.execute(delete(TaskRow))
    connection.execute(delete(SharedRow))
    connection.execute(update(HeaderRow).values(settings=state["settings"]))
    for task in state["tasks"]:
        connection.execute(insert(TaskRow).values(id=task["id"], name=task["name"], position=task["position"]))
        for version in task["versions"]:
            copied = {name: version[name] for name in _COLUMNS}
            created = datetime.fromisoformat(version["created"])
            connection.execute(insert(VersionRow).values(task_id=task["id"], created=created, **copied))
            for slot, object_id in version["objects"].items():
                row = insert(VersionObjectRow).values(version_id=version["id"], slot=slot, object_id=object_id)
                connection.execute(row)
    for slot, object_id in state["shared"].items():
        connection.execute(insert(SharedRow).values(slot=slot, object_id=object_id))
    return returned


def read_pins(connection: Connection) -> list[int]:
    """Return the pinned generations, oldest first."""
    return list(connection.execute(select(PinRow.generation).order_by(PinRow.generation)).scalars())


def read_pin(connection: Connection, generation: int) -> Mapping[str, Any]:
    """Return the state that a pin holds.

    Raises:
        UnknownNameError: The generation is not pinned.
    """
    state = connection.execute(select(PinRow.state).where(PinRow.generation == generation)).scalar()
    if state is None:
        have = ", ".join(map(str, read_pins(connection))) or "none"
        raise UnknownNameError(
            f"generation {generation} is not kept, so the workspace cannot go back to it; kept: {have} "
            "(see `conpet generations`)"
        )
    pinned: Mapping[str, Any] = state
    return pinned


def objects_of(state: Mapping[str, Any]) -> Iterator[int]:
    """Iterate over the ids of the objects in a pinned state."""
    yield from state["shared"].values()
    for task in state["tasks"]:
        for version in task["versions"]:
            yield from version["objects"].values()


def _present(connection: Connection) -> dict[str, Any]:
    slots: dict[int, dict[str, int]] = {}
    links: Iterable[Any] = connection.execute(select(VersionObjectRow).order_by(VersionObjectRow.slot))
    for link in links:
        slots.setdefault(link.version_id, {})[link.slot] = link.object_id
    versions: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(select(VersionRow).order_by(VersionRow.number)):
        copied = {name: getattr(row, name) for name in _COLUMNS}
        versions.setdefault(row.task_id, []).append(
            {**copied, "created": row.created.isoformat(), "objects": slots.get(row.id, {})}
        )
    tasks = connection.execute(select(TaskRow).order_by(TaskRow.position))
    shared = connection.execute(select(SharedRow.slot, SharedRow.object_id).order_by(SharedRow.slot))
    return {
        "settings": connection.execute(select(HeaderRow.settings)).scalar_one(),
        "tasks": [
            {"id": task.id, "name": task.name, "position": task.position, "versions": versions[task.id]}
            for task in tasks
        ],
        "shared": {row.slot: row.object_id for row in shared},
    }
