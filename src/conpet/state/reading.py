"""From the store's records to what learners work with, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from conpet.data import Kind, Task
from conpet.readable import Readable
from conpet.replay.memory import MEMORY
from conpet.state.state import State, TaskState
from conpet.store import Snapshot, VersionRecord

ORIGINS = "origins"
"""Key of a version's description: digests of the data it was made from by renaming, retiring, splitting, extending."""


def task_state(version: VersionRecord) -> TaskState:
    """Return a version as a learner sees it: what was learned of it, not its examples."""
    description = version.description
    return TaskState(
        version.task,
        version.number,
        version.labels,
        Kind(description["kind"]),
        description["template"],
        description["settings"],
        _LearnedObjects(version.objects),
    )


class _LearnedObjects(Mapping[str, Readable]):
    """The objects of a version but for its examples; they are looked up when asked for, as most never are."""

    __slots__ = ("_objects",)

    def __init__(self, objects: Mapping[str, Readable]) -> None:
        self._objects = objects

    def __getitem__(self, slot: str) -> Readable:
        if slot == MEMORY:
            raise KeyError(slot)
        return self._objects[slot]

    def __contains__(self, slot: object) -> bool:
        return slot != MEMORY and slot in self._objects

    def __iter__(self) -> Iterator[str]:
        return (slot for slot in self._objects if slot != MEMORY)

    def __len__(self) -> int:
        return len(self._objects) - (MEMORY in self._objects)


def task_states(versions: Iterable[VersionRecord]) -> list[TaskState]:
    """Return versions as a learner sees them."""
    return [task_state(version) for version in versions]


def new_task_state(task: Task, snapshot: Snapshot) -> TaskState:
    """Return a task that is to be learned as a learner will know it; the store gives the version its final number."""
    version = next((known.active.number for known in snapshot.tasks if known.name == task.name), 0) + 1
    return TaskState(task.name, version, task.labels, task.kind, task.template, task.settings)


def state_of(snapshot: Snapshot) -> State:
    """Return all active versions as a learner's state."""
    return State(tuple(task_state(task.active) for task in snapshot.tasks), snapshot.shared)


def describe(task: Task) -> dict[str, Any]:
    """Return what is stored of a task beside its labels and examples."""
    return {
        "kind": str(task.kind),
        "template": task.template,
        "settings": dict(task.settings),
        "notes": list(task.notes),
        "counts": {"train": len(task.train), "validation": len(task.validation), "test": len(task.test)},
    }


def origins(version: VersionRecord) -> list[str]:
    """Return the digests of the data that whatever is made of a version derives from: its own and those before it."""
    return [*version.description.get(ORIGINS, ()), version.digest]


def seed_of(seed: int, name: str) -> int:
    """Return the seed of a task: fixed by the workspace's seed and the task's name, whatever the order of tasks."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=4).digest()) >> 1
