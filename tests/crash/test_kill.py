"""Kill -9 at moments of `learn`, `consolidate` and `forget`: the workspace is as before or as after, and goes on."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from conpet import ConPET
from conpet.errors import DataError
from conpet.testing import Trial, ask
from conpet.types import ConsolidationReport
from tests.crash.crash_child import FORGOTTEN, SETTINGS, STREAM, consolidate, forget, learn

KILLS = 20
IN_COMMIT = 10
"""How many of them fall into the commit, which is a small part of the time."""
CONSOLIDATION_KILLS, IN_ITS_COMMIT = 8, 4
"""The same of a consolidation."""
FORGET_KILLS, AT_ITS_END = 8, 5
"""The same of forgetting, which deletes after its commit."""
TEXT = FORGOTTEN.encode()
ASKED = [example.text for task in STREAM for example in task.test]


@dataclass(frozen=True)
class Timing:
    """Seconds from the beginning of a change to its end, and from the beginning of the commit."""

    whole: float
    commit: float


@dataclass(frozen=True)
class Scene:
    """A workspace with two tasks, what it is like before and after a change, and how long that takes."""

    base: Path
    before: dict[str, Any]
    after: dict[str, Any]
    timing: Timing
    change: Callable[..., None]


class Child:
    """A process that has a workspace open and waits for the word to change it."""

    def __init__(self, path: Path, change: Callable[..., None]) -> None:
        context = multiprocessing.get_context("forkserver")
        self.path = path
        self._connection, other = context.Pipe()
        self.process = context.Process(target=change, args=(str(path), other))
        self.process.start()
        other.close()

    def begin(self) -> float:
        """Let it begin, and return the time."""
        self._connection.send("begin")
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
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch_for_module: pytest.MonkeyPatch) -> ConPET:
    # Set for the fork server, which is started by the first child and keeps its environment.
    monkeypatch_for_module.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    monkeypatch_for_module.setenv("OMP_NUM_THREADS", "1")
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.crash.crash_warm"])
    return Trial(tmp_path_factory.mktemp("scene"), SETTINGS).taught(STREAM[:2], "base")


@pytest.fixture
def exact(base: ConPET, tmp_path: Path) -> ConPET:
    """Return a workspace like `base` that computes each input alone: forgetting empties the cache of states, and those
    computed again in other batches would be rounded differently.
    """
    assert base.tasks
    return Trial(tmp_path, SETTINGS | {"backbone.deterministic": True}).taught(STREAM[:2], "exact")


def scene_of(base: ConPET, folder: Path, change: Callable[..., None]) -> Scene:
    timed = [Path(shutil.copytree(base.path, folder / f"timed-{run}")) for run in range(3)]
    timings = [measure(path, change) for path in timed]
    timing = Timing(median(one.whole for one in timings), median(one.commit for one in timings))
    before, after = expected(base), expected(ConPET.open(timed[0]))
    return Scene(base.path, before, after, timing, change)


def copy_of(scene: Scene, path: Path) -> Path:
    return Path(shutil.copytree(scene.base, path))


def measure(path: Path, change: Callable[..., None]) -> Timing:
    child = Child(path, change)
    start, committing, ended = child.begin(), child.wait_for("commit"), child.wait_for("end")
    child.process.join()
    return Timing(ended - start, ended - committing)


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


def expected(learner: ConPET) -> dict[str, Any]:
    """Return `describe`, to be compared with: logits kept in memory were computed in another batch, and rounded so."""
    described = describe(learner)
    return described | {"answers": [pytest.approx(one, abs=1e-6) for one in described["answers"]]}


def digest(folder: Path) -> str:
    hasher = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        hasher.update(path.name.encode() + path.read_bytes())
    return hasher.hexdigest()


def killed(
    scene: Scene,
    folder: Path,
    kills: int,
    in_commit: int,
    again: Callable[[ConPET], bool],
    *,
    others_before: bool = False,
) -> None:
    """Kill a process at moments of a change.

    Args:
        scene: The workspace.
        folder: For its copies.
        kills: Number of kills.
        in_commit: How many of them fall between the beginning of the commit and the end.
        again: Makes the change and returns whether there was nothing to do.
        others_before: Whether the others fall before the commit, not anywhere.
    """
    timing = scene.timing
    others = (timing.whole - timing.commit) / 2 if others_before else timing.whole
    random_ = random.Random(20)
    seen: Counter[str] = Counter()
    added = Child(copy_of(scene, folder / "0"), scene.change)
    for kill in range(kills):
        # The next process gets ready while this one works, is killed and what it leaves is looked at.
        child, added = added, Child(copy_of(scene, folder / str(kill + 1)), scene.change)
        start, share = child.begin(), random_.uniform(0, 1.5)
        if kill < in_commit:
            child.kill_at(child.wait_for("commit") + share * timing.commit)
        else:
            child.kill_at(start + share * others)

        where = f"kill {kill}"
        learner = ConPET.open(child.path)
        state = describe(learner)
        assert state in (scene.before, scene.after), where
        assert learner.store.verify() == [], where
        seen["before" if state == scene.before else "after"] += 1

        skipped = state == scene.after
        assert again(learner) == skipped, where
        assert describe(learner) == scene.after, where
        needed = {
            reader.folder.name
            for snapshot in (learner.store.snapshot(), *learner.store.pinned())
            for reader in snapshot.readers()
        }
        assert {path.name for path in (child.path / "objects").iterdir()} == needed, where
        assert skipped or learner.store.scratches() == [], where  # else the next commit clears them away
        shutil.rmtree(child.path)
    added.kill_at(0)
    assert seen["before"], seen
    assert seen["after"], seen


def test_killed_at_any_moment_of_learn(base: ConPET, tmp_path: Path) -> None:
    scene = scene_of(base, tmp_path, learn)
    killed(scene, tmp_path, KILLS, IN_COMMIT, lambda learner: learner.learn(STREAM[2]).skipped)


def test_killed_at_any_moment_of_a_consolidation(base: ConPET, tmp_path: Path) -> None:
    def again(learner: ConPET) -> bool:
        done = len(learner.generations) > 1
        if not done:
            assert isinstance(learner.consolidate(bound=100, gate=False), ConsolidationReport)
        return done

    killed(scene_of(base, tmp_path, consolidate), tmp_path, CONSOLIDATION_KILLS, IN_ITS_COMMIT, again)


def test_killed_at_any_moment_of_forgetting(exact: ConPET, tmp_path: Path) -> None:
    def again(learner: ConPET) -> bool:
        try:
            done = learner.forget([FORGOTTEN])
        except DataError:  # it was killed after everything was deleted
            done = None
        assert not (learner.path / "forgetting.json").exists()
        assert [path for path in learner.path.rglob("*") if path.is_file() and TEXT in path.read_bytes()] == []
        (receipt,) = (learner.path / "receipts").iterdir()
        assert json.loads(receipt.read_bytes())["complete"]
        return done is None or not done.rows

    scene = scene_of(exact, tmp_path, forget)
    killed(scene, tmp_path, FORGET_KILLS, AT_ITS_END, again, others_before=True)


def test_a_child_that_is_not_killed_ends_well(base: ConPET, tmp_path: Path) -> None:
    child = Child(Path(shutil.copytree(base.path, tmp_path / "ws")), learn)
    child.begin()
    child.wait_for("commit")
    child.wait_for("end")
    child.process.join()
    assert child.process.exitcode == os.EX_OK
