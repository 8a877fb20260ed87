"""A small history of changes of every sort, and a description of a workspace to compare states by."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from conpet.store import (
    MODULE,
    Artifact,
    ArtifactReader,
    Change,
    Cost,
    Metric,
    NewVersion,
    Reference,
    SideObject,
    Snapshot,
    Store,
)

STEPS = 7


def make_store(path: Path) -> Store:
    return Store.create(path, settings={"backbone": {"frozen_layers": 24}}, backbone={"sha256": "abc"})


def module(value: float) -> Artifact:
    return Artifact({"adapter_model": {"w": torch.full((3, 2), value)}}, {"adapter_config": {"r": value}})


def memory(*texts: str) -> Artifact:
    return Artifact(tables={"examples": [{"text": text} for text in texts]})


def new_version(value: float, *labels: str) -> NewVersion:
    return NewVersion(f"digest-{value}", labels or ("no", "yes"), {MODULE: module(value), "memory": memory("kept")})


def learn(task: str, value: float = 1.0, **more: Any) -> Change:
    return Change("learn", task=task, new_version=new_version(value), **more)


def commit(store: Store, *changes: Change) -> None:
    for change in changes:
        with store.write(change.verb, wait_seconds=60) as writer:
            writer.commit(change)


def history(step: int) -> Change:
    """Return the change that leads from state `step` to state `step + 1`; uses every part of a change."""
    shared = {"statistics": module(float(step)), "selector": module(-float(step)) if step % 2 else None}
    ledger: dict[str, Any] = {
        "metrics": (
            Metric("a", "accuracy", 0.9, 10),
            Metric("a", "selector_accuracy", 0.8, 10),
            Metric("b", "accuracy", step / STEPS, STEPS),
        ),
        "references": (Reference("ridge", 0.5, 15),),
        "costs": (Cost("module", 0.5, tokens=step),),
        "detail": {"step": step},
        "confusion": [[step, 0], [0, step]],
    }
    match step:
        case 0 | 1:
            return Change("learn", "ab"[step], new_version(step), shared=shared, **ledger)
        case 2:
            side = SideObject("b", 1, "memory", memory("less"))
            return Change("learn", "a", new_version(2.0), side_objects=(side,), shared=shared, **ledger)
        case 3:
            return Change("rollback", "a", activate=1, shared=shared, **ledger)
        case 4:
            emptied = SideObject("a", 2, "memory", None)
            return Change("forget", side_objects=(emptied,), shared=shared, **ledger)
        case 5:
            lighter = SideObject("b", 1, MODULE, Artifact(documents={"adapter_config": {"r": 1}}))
            more = {"side_objects": (lighter,), "dropped": (("a", 2),), "shared": shared}
            return Change("retire", "a", new_version(3.0), **more, **ledger)
        case _:
            return Change("remove", "b", remove=True, shared=shared, **ledger)


def read_all(reader: ArtifactReader) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if reader.has("adapter_model"):
        content["w"] = reader.tensors("adapter_model")["w"].tolist()
        content["config"] = reader.document("adapter_config")
    if reader.has("examples"):
        content["examples"] = list(reader.rows("examples"))
    return content


def describe_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """Return everything a user can see in a snapshot, contents included, times left out."""
    return {
        "generation": snapshot.generation,
        "shared": {slot: read_all(reader) for slot, reader in snapshot.shared.items()},
        "tasks": [
            {
                "task": (task.name, task.position),
                "version": (version.number, version.active, version.digest, version.labels),
                "objects": {slot: read_all(reader) for slot, reader in version.objects.items()},
            }
            for task in snapshot.tasks
            for version in task.versions
        ],
    }


def describe(store: Store) -> dict[str, Any]:
    with store.snapshot() as snapshot:
        state = describe_snapshot(snapshot)
    state["events"] = [
        (e.id, e.verb, e.task, e.version, e.detail, e.metrics, e.references, e.costs, e.confusion, e.bytes_stored)
        for e in store.events()
    ]
    return state


def folders(store: Store) -> set[str]:
    return {path.name for path in (store.path / "objects").iterdir()}


def folders_in_use(store: Store) -> set[str]:
    with store.snapshot() as snapshot:
        return {reader.folder.name for reader in snapshot.readers()}


@contextmanager
def forked(context: Callable[[], object]) -> Iterator[int]:
    """Run `context` in a forked process, whose id is given; it is killed at the end of the block."""
    child = _fork(context)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def run_forked(context: Callable[[], object]) -> int:
    """Run `context` in a forked process to its end; return its exit code, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(_fork(context), 0)[1])


def _fork(context: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            context()
        except BaseException:  # noqa: BLE001 - the child must never return into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child
