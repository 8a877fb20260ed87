"""Kill -9 at 50 moments of `learn`: the workspace is as before or as afterwards, and learning then completes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from conpet import ConPET
from conpet.backbone.backbone import Backbone
from conpet.testing import Trial, ask
from tests.crash.crash_child import SETTINGS, STREAM, learn

KILLS = 50
IN_COMMIT = 20
"""How many of them fall into the commit, which is a small part of the time."""
ASKED = [example.text for task in STREAM for example in task.test]


@dataclass(frozen=True)
class Timing:
    """Seconds from the beginning of `learn` to its end, and from the beginning of the commit."""

    learn: float
    commit: float


@dataclass(frozen=True)
class Scene:
    """A workspace with two tasks, what it is like before and after the third is learned, and how long that takes."""

    base: Path
    backbone: Backbone
    before: dict[str, Any]
    after: dict[str, Any]
    timing: Timing


class Child:
    """A process that has a workspace open and waits for the word to learn."""

    def __init__(self, path: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self.path = path
        self._connection, other = context.Pipe()
        self.process = context.Process(target=learn, args=(str(path), other))
        self.process.start()
        other.close()

    def begin(self) -> float:
        """Let it learn, and return the time."""
        self._connection.send("learn")
        return time.monotonic()

    def wait_for(self, word: str) -> float:
        """Return the time at which the child says a word."""
        assert self._connection.recv() == word
        return time.monotonic()

    def kill_at(self, moment: float) -> None:
        """End it without warning; it may have ended by itself already."""
        time.sleep(max(0.0, moment - time.monotonic()))
        self.process.kill()
        self.process.join()
        self._connection.close()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute as the children do: to the same bits, and without threads that wait for a core one of them has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def monkeypatch_for_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, monkeypatch_for_module: pytest.MonkeyPatch) -> Scene:
    # Set for the fork server, which is started by the first child and keeps its environment.
    monkeypatch_for_module.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    monkeypatch_for_module.setenv("OMP_NUM_THREADS", "1")
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.crash.crash_warm"])
    folder = tmp_path_factory.mktemp("scene")
    learner = Trial(folder, SETTINGS).taught(STREAM[:2], "base")
    timings = [measure(Path(shutil.copytree(learner.path, folder / f"timed-{run}"))) for run in range(3)]
    timing = Timing(median(one.learn for one in timings), median(one.commit for one in timings))
    backbone = learner.backbone
    states = [describe(opened(path, backbone)) for path in (learner.path, folder / "timed-0")]
    return Scene(learner.path, backbone, *states, timing)


def copy_of(scene: Scene, path: Path) -> Path:
    return Path(shutil.copytree(scene.base, path))


def measure(path: Path) -> Timing:
    child = Child(path)
    start, committing, ended = child.begin(), child.wait_for("commit"), child.wait_for("end")
    child.process.join()
    return Timing(ended - start, ended - committing)


def opened(path: Path, backbone: Backbone) -> ConPET:
    """Open a workspace, but do not load its backbone once more."""
    learner = ConPET.open(path)
    vars(learner)["backbone"] = backbone
    return learner


def describe(learner: ConPET) -> dict[str, Any]:
    """Return all that a user can see of a workspace, but for times and costs."""
    with learner.store.snapshot() as snapshot:
        versions = {
            f"{version.task}/{version.number}/{slot}": digest(reader.folder)
            for version in snapshot.versions
            for slot, reader in version.objects.items()
        }
        shared = {slot: digest(reader.folder) for slot, reader in snapshot.shared.items()}
    return {
        "versions": versions,
        "shared": shared,
        "labels": learner.labels,
        "events": [(event.verb, event.task, event.metrics, event.references) for event in learner.store.events()],
        "answers": ask(learner, ASKED),
    }


def digest(folder: Path) -> str:
    hasher = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        hasher.update(path.name.encode() + path.read_bytes())
    return hasher.hexdigest()


def test_killed_at_any_moment_of_learn(scene: Scene, tmp_path: Path) -> None:
    random_ = random.Random(20)
    seen: Counter[str] = Counter()
    added = Child(copy_of(scene, tmp_path / "0"))
    for kill in range(KILLS):
        # The next process gets ready while this one learns, is killed and what it leaves is looked at.
        child, added = added, Child(copy_of(scene, tmp_path / str(kill + 1)))
        start, share = child.begin(), random_.uniform(0, 1.5)
        if kill < IN_COMMIT:
            child.kill_at(child.wait_for("commit") + share * scene.timing.commit)
        else:
            child.kill_at(start + share * scene.timing.learn)

        where = f"kill {kill}"
        learner = opened(child.path, scene.backbone)
        state = describe(learner)
        assert state in (scene.before, scene.after), where
        assert learner.store.verify() == [], where
        seen["before" if state == scene.before else "after"] += 1

        report = learner.learn(STREAM[2])
        assert report.skipped == (state == scene.after), where
        assert describe(learner) == scene.after, where
        in_use = {reader.folder.name for reader in learner.store.snapshot().readers()}
        assert {folder.name for folder in (child.path / "objects").iterdir()} == in_use, where
        assert report.skipped or learner.store.scratches() == [], where  # else the next commit clears them away
        shutil.rmtree(child.path)
    added.kill_at(0)
    assert seen["before"], seen
    assert seen["after"], seen


def test_a_child_that_is_not_killed_ends_well(scene: Scene, tmp_path: Path) -> None:
    child = Child(copy_of(scene, tmp_path / "ws"))
    child.begin()
    child.wait_for("commit")
    child.wait_for("end")
    child.process.join()
    assert child.process.exitcode == os.EX_OK
