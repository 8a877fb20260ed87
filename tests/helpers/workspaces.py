"""Workspaces on the toy stream, made once and copied: learning is quick, but not for nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conpet import ConPET, Task, TaskStream
from conpet.data import Kind
from conpet.fusion.calibrated import CANDIDATES
from conpet.store import VersionRecord
from conpet.testing import Trial, tiny_settings, toy_stream

_KEPT = TemporaryDirectory(prefix="conpet-taught-")


def stream() -> TaskStream:
    """Return three tasks of two labels."""
    return toy_stream(3, 2, 8, 2, 4)


def workspace(folder: Path, tasks: int = 0, name: str = "ws", **settings: Any) -> ConPET:
    """Open a copy of a workspace in which the first tasks of `stream` were learned."""
    made = _taught(tasks, json.dumps(settings, sort_keys=True))
    return ConPET.open(shutil.copytree(made, folder / name))


@cache
def _taught(tasks: int, settings: str) -> Path:
    folder = Path(_KEPT.name) / str(_taught.cache_info().misses)
    folder.mkdir()
    trial = Trial(folder, tiny_settings(**json.loads(settings)))
    learner = trial.workspace()
    for task in stream()[:tasks]:
        learner.learn(task, gate=False)
    return learner.path


def digests(version: VersionRecord, slot: str = "module") -> dict[str, str]:
    """Return the hash of each file in a slot of a version, as it is on the disk now."""
    folder = version.objects[slot].folder
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def shared_digests(learner: ConPET, slot: str) -> dict[str, str]:
    """Return the hash of each file of an object that belongs to no task."""
    folder = learner.store.snapshot().shared[slot].folder
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def files_with(learner: ConPET, word: str) -> list[Path]:
    """Return the files below a workspace's folder that hold a word."""
    return [path for path in learner.path.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


class Stopped(Exception):  # noqa: N818 - it is no error
    """Raised in place of a kill."""


def stop_at(stage: str, share: float) -> Callable[[str, float], None]:
    """Return a `progress` that interrupts a stage when so much of it is done."""

    def progress(name: str, done: float) -> None:
        if name == stage and done >= share:
            raise Stopped

    return progress


@contextmanager
def frozen_state(learner: ConPET) -> Iterator[None]:
    """Check that nothing is changed in a workspace by the block."""
    before = (learner.store.generation(), sorted(path.name for path in (learner.path / "objects").iterdir()))
    yield
    assert before == (learner.store.generation(), sorted(path.name for path in (learner.path / "objects").iterdir()))


def many_tasks() -> list[Task]:
    """Return more tasks than the calibrated fusion gives probability to, and one of another kind."""
    relations = toy_stream(1, 2, 3, 1, 2, kind=Kind.RELATION)
    return [*relations, *toy_stream(CANDIDATES + 8, 2, 3, 1, 2)]


def workspace_of_many_tasks(folder: Path) -> ConPET:
    """Open a copy of a workspace in which `many_tasks` were learned, next to untrained."""
    return ConPET.open(shutil.copytree(_taught_many_tasks(), folder / "ws"))


@cache
def _taught_many_tasks() -> Path:
    folder = Path(_KEPT.name) / "many"
    folder.mkdir()
    learner = Trial(folder, tiny_settings(training={"epochs": 1, "max_steps": 1})).workspace()
    learner.learn_batch(many_tasks(), evaluate=False, gate=False)
    return learner.path
