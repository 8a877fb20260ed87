"""Build states from the store's records, and descriptions of tasks for the store."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conpet.artifact import ArtifactReader, InMemoryObject, ObjectReader
from conpet.data import Kind, Task
from conpet.features.statistics import Gram
from conpet.state.slots import ANSWERS, HELD_OUT, MEMORY
from conpet.state.state import OF_FEATURES, State, TaskState
from conpet.store import Snapshot, VersionRecord

LEFT_OUT = "left_out"
"""Key of a version's description: the rows that a fix left out or changed (`Task.left_out`)."""
ORIGINS = "origins"
"""Key of a version's description: digests of the data it was made from by renaming, retiring, splitting, extending."""

MemoryKeys = Mapping[Path, Hashable]
"""The key that a stored object had while it was still in memory, by the folder of the object."""

_HIDDEN = frozenset({MEMORY, ANSWERS, HELD_OUT})
"""Slots that only commands read: examples with test labels, and the answers to test and held-out examples."""

_TAKEN_OVER = (*OF_FEATURES, "fusion")
"""Names of fits that remain valid in a committed state: those without readers of in-memory objects.

Statistics that read the store are read again, because their readers keep the former generation."""


def task_state(version: VersionRecord, keys: MemoryKeys | None = None) -> TaskState:
    """Return the state of a task in a version, without its examples."""
    description = version.description
    return TaskState(
        version.task,
        version.number,
        version.labels,
        Kind(description["kind"]),
        description["template"],
        description["head"],
        description["settings"],
        _Objects(version.objects, keys or {}),
    )


class _Objects(Mapping[str, ObjectReader]):
    """Objects by slot, without the hidden ones; readers are made on access, because most are never needed."""

    __slots__ = ("_keys", "_objects")

    def __init__(self, objects: Mapping[str, ArtifactReader], keys: MemoryKeys) -> None:
        self._objects = objects
        self._keys = keys

    def __getitem__(self, slot: str) -> ObjectReader:
        if slot in _HIDDEN:
            raise KeyError(slot)
        reader = self._objects[slot]
        return replace(reader, memory_key=self._keys[reader.folder]) if reader.folder in self._keys else reader

    def __contains__(self, slot: object) -> bool:
        return slot not in _HIDDEN and slot in self._objects

    def __iter__(self) -> Iterator[str]:
        return (slot for slot in self._objects if slot not in _HIDDEN)

    def __len__(self) -> int:
        return len(self._objects.keys() - _HIDDEN)


def task_states(versions: Iterable[VersionRecord]) -> list[TaskState]:
    """Return the state of the task of each version."""
    return [task_state(version) for version in versions]


def new_task_state(task: Task, snapshot: Snapshot) -> TaskState:
    """Return a task to learn as the state will hold it; the store assigns the final version number."""
    version = next((known.active.number for known in snapshot.tasks if known.name == task.name), 0) + 1
    return TaskState(task.name, version, task.labels, task.kind, task.template, task.head, task.settings)


def state_of(snapshot: Snapshot, keys: MemoryKeys | None = None) -> State:
    """Return the state of a snapshot: all active versions, and the shared objects.

    Args:
        snapshot: The snapshot.
        keys: Keys of objects that were in memory before they were stored, so that caches still recognise them.
    """
    tasks = tuple(task_state(task.active, keys) for task in snapshot.tasks)
    return State(tasks, _Objects(snapshot.shared, keys or {}), snapshot.generation)


def committed(state: State, snapshot: Snapshot, keys: MemoryKeys) -> tuple[State, MemoryKeys]:
    """Return a state after its commit: it reads its objects from the store and keeps its fits.

    Args:
        state: The state that was committed.
        snapshot: The store after the commit.
        keys: As in `state_of`, for objects stored earlier.

    Returns:
        The state, and the keys including those of the objects just stored.
    """
    added: dict[Path, Hashable] = {}
    stored = {task.name: task.active for task in snapshot.tasks}
    for task in state.tasks:
        for slot, held in task.objects.items():
            if isinstance(held, InMemoryObject):
                added[stored[task.name].objects[slot].folder] = held.key
    for slot, held in state.shared.items():
        if isinstance(held, InMemoryObject):
            added[snapshot.shared[slot].folder] = held.key
    stored_folders = {reader.folder for reader in snapshot.readers()} if keys else set()
    known = {folder: key for folder, key in keys.items() if folder in stored_folders} | added
    gram: Gram | None = state.fits.get("gram")
    lost = OF_FEATURES if gram is not None and gram.reads_storage else ()
    fits = {name: state.fits[name] for name in _TAKEN_OVER if name in state.fits and name not in lost}
    return replace(state_of(snapshot, known), fits=fits), known


def describe(task: Task) -> dict[str, Any]:
    """Return the description stored with a task's version, apart from labels and examples."""
    left_out = {LEFT_OUT: [dict(row) for row in task.left_out]} if task.left_out else {}
    return {
        "kind": str(task.kind),
        "template": task.template,
        "head": task.head,
        "settings": dict(task.settings),
        "notes": list(task.notes),
        "counts": {"train": len(task.train), "validation": len(task.validation), "test": len(task.test)},
        **left_out,
    }


def origins(version: VersionRecord) -> list[str]:
    """Return the digests of all data that a version derives from, its own last."""
    return [*version.description.get(ORIGINS, ()), version.digest]


def seed_of(seed: int, name: str) -> int:
    """Return the seed of a task, from the workspace's seed and the task's name; the order of tasks does not matter."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=4).digest()) >> 1
