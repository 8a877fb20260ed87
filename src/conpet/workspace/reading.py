"""From the store's records to what learners, replay and metrics work with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from conpet.artifact import Artifact
from conpet.data import Example, Kind, Task
from conpet.learners.state import KnownTask, LearnerState
from conpet.replay.memory import MEMORY, Limits, Remembered, Split, memory_artifact
from conpet.store import Snapshot, TaskRecord, VersionRecord


def known_task(version: VersionRecord) -> KnownTask:
    """Return a version as a learner sees it."""
    description = version.description
    return KnownTask(
        version.task,
        version.number,
        version.labels,
        Kind(description["kind"]),
        description["template"],
        description["settings"],
        version.objects,
    )


def coming_task(task: Task, snapshot: Snapshot) -> KnownTask:
    """Return a task that is to be learned as a learner will know it; the store gives the version its final number."""
    version = next((known.active.number for known in snapshot.tasks if known.name == task.name), 0) + 1
    return KnownTask(task.name, version, task.labels, task.kind, task.template, task.settings)


def learner_state(snapshot: Snapshot) -> LearnerState:
    """Return all active versions as a learner's state."""
    return LearnerState(tuple(known_task(task.active) for task in snapshot.tasks), snapshot.shared)


def remember(version: VersionRecord) -> Remembered:
    """Return the replay memory of a version."""
    return Remembered(version.task, version.description["template"], version.objects[MEMORY])


def remembered(tasks: Sequence[TaskRecord]) -> list[Remembered]:
    """Return the replay memory of some tasks."""
    return [remember(task.active) for task in tasks]


def describe(task: Task) -> dict[str, Any]:
    """Return what is stored of a task beside its labels and examples."""
    return {
        "kind": str(task.kind),
        "template": task.template,
        "settings": dict(task.settings),
        "notes": list(task.notes),
        "counts": {"train": len(task.train), "validation": len(task.validation), "test": len(task.test)},
    }


def kept_memory(task: Task, limits: Limits, sharing: int, seed: int) -> Artifact:
    """Return what is kept of a task's examples when `sharing` versions share the replay memory.

    The limits are on training examples, which are what is replayed; validation and test examples are kept whole.
    """
    train = limits.keep([example.to_json() for example in task.train], sharing, seed)
    return memory_artifact(train, _rows(task.validation), _rows(task.test))


def shrunk(memory: Remembered, limits: Limits, sharing: int, seed: int) -> Artifact | None:
    """Return a version's memory cut to its share among `sharing` versions, or None if it fits already."""
    rows = list(memory.reader.rows(Split.TRAIN))
    kept = limits.keep(rows, sharing, seed)
    if len(kept) == len(rows):
        return None
    return memory_artifact(kept, list(memory.reader.rows(Split.VALIDATION)), list(memory.reader.rows(Split.TEST)))


def _rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [example.to_json() for example in examples]


def seed_of(seed: int, name: str) -> int:
    """Return the seed of a task: fixed by the workspace's seed and the task's name, whatever the order of tasks."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=4).digest()) >> 1
