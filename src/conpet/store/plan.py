"""Plan a change for the current state, with all checks before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from conpet.artifact import Artifact
from conpet.errors import ConfigError, UnknownNameError
from conpet.store.change import Change, SideObject
from conpet.store.layout import object_folder
from conpet.store.pins import read_pin
from conpet.store.records import MODULE
from conpet.store.schema import EventRow, TaskRow, VersionRow


class Target(NamedTuple):
    """A slot of a version, or of the workspace if `task` is None."""

    slot: str
    task: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """An artifact with the number, slot and folder of its object."""

    target: Target
    artifact: Artifact
    object_id: int
    folder: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The writes of a change.

    Attributes:
        version: Number of the version created or activated, if any.
        placements: New objects.
        emptied: Slots to empty.
    """

    version: int | None
    placements: tuple[Placement, ...]
    emptied: tuple[Target, ...]


def make_plans(connection: Connection, changes: Sequence[Change]) -> list[Plan]:
    """Check changes against the state and number their versions and objects. Apply them before the state changes.

    Each change is checked separately, so two changes must not concern the same task or slot.

    Raises:
        UnknownNameError: A change refers to a task, version or pinned generation that does not exist.
        ConfigError: A change would replace a module, or a slot is written or a task changed twice.
    """
    tasks = [change.task for change in changes if change.task is not None]
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"changes {', '.join(sorted(tasks))} made at once: each task can be changed only once")
    last = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'object'")).scalar() or 0
    plans: list[Plan] = []
    for change in changes:
        plans.append(_make_plan(connection, change, last + 1))
        last += len(plans[-1].placements)
    written = [
        target for plan in plans for target in (*(placement.target for placement in plan.placements), *plan.emptied)
    ]
    if len(set(written)) < len(written):
        raise ConfigError(f"change {changes[-1].verb!r} writes a slot twice; give one side object per slot")
    return plans


def _make_plan(connection: Connection, change: Change, first_object: int) -> Plan:
    version = _resolve_version(connection, change)
    for side in change.side_objects:
        _check_side_object(connection, change, side)
    for task, number in change.dropped:
        _check_dropped(connection, change, task, number)
    for generation in (*change.unpinned, *([] if change.restore is None else [change.restore])):
        read_pin(connection, generation)
    targets = list(_targets(change, version))
    written = [(target, artifact) for target, artifact in targets if artifact is not None]
    placements = tuple(
        Placement(target, artifact, number, object_folder(number, target.slot, target.task, target.version))
        for number, (target, artifact) in enumerate(written, start=first_object)
    )
    return Plan(version, placements, tuple(target for target, artifact in targets if artifact is None))


def find_version(connection: Connection, task: str, number: int) -> int | None:
    """Return the id of a version, or None."""
    query = select(VersionRow.id).join(TaskRow, TaskRow.id == VersionRow.task_id)
    return connection.execute(query.where(TaskRow.name == task, VersionRow.number == number)).scalar()


def _resolve_version(connection: Connection, change: Change) -> int | None:
    if change.new_version is not None:
        # From the history, because a removed task of this name had versions too.
        last = connection.execute(select(func.max(EventRow.version)).where(EventRow.task == change.task)).scalar()
        return (last or 0) + 1
    if change.task is not None and change.activate is not None:
        _require_version(connection, change.task, change.activate)
    elif change.task is not None and change.remove:
        _require_task(connection, change.task)
    return change.activate


def _targets(change: Change, version: int | None) -> Iterator[tuple[Target, Artifact | None]]:
    if change.new_version is not None:
        for slot, artifact in change.new_version.objects.items():
            yield Target(slot, change.task, version), artifact
    for side in change.side_objects:
        yield Target(side.slot, side.task, side.version), side.artifact
    for slot, shared in change.shared.items():
        yield Target(slot), shared


def _check_side_object(connection: Connection, change: Change, side: SideObject) -> None:
    if change.remove and side.task == change.task:
        raise ConfigError(f"change {change.verb!r} removes task {side.task!r} and writes an object of it; drop one")
    _require_version(connection, side.task, side.version)
    if side.slot == MODULE and side.artifact is None and not change.replaces_modules:
        raise ConfigError(
            f"version {side.version} of task {side.task!r}: a module cannot be changed or removed; "
            "drop the version instead"
        )


def _check_dropped(connection: Connection, change: Change, task: str, number: int) -> None:
    version_id = _require_version(connection, task, number)
    active = bool(connection.execute(select(VersionRow.active).where(VersionRow.id == version_id)).scalar_one())
    if task == change.task and (change.new_version is not None or change.activate is not None):
        active = change.activate == number
    if active:
        raise ConfigError(
            f"change {change.verb!r} drops version {number} of task {task!r}, which is active; activate another "
            "version first"
        )


def _require_version(connection: Connection, task: str, number: int) -> int:
    _require_task(connection, task)
    version_id = find_version(connection, task, number)
    if version_id is None:
        numbers = connection.execute(
            select(VersionRow.number)
            .join(TaskRow, TaskRow.id == VersionRow.task_id)
            .where(TaskRow.name == task)
            .order_by(VersionRow.number)
        ).scalars()
        have = ", ".join(str(known) for known in numbers)
        raise UnknownNameError(f"task {task!r} has no version {number}; have: {have}")
    return version_id


def _require_task(connection: Connection, name: str) -> None:
    names = connection.execute(select(TaskRow.name).order_by(TaskRow.position)).scalars().all()
    if name not in names:
        have = ", ".join(map(repr, names)) or "none yet"
        raise UnknownNameError(f"no task {name!r} in this workspace; have: {have}")
