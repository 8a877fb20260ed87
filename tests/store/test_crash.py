"""Killed or failing anywhere, a workspace is as before or as after the change."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet.errors import CorruptionError
from conpet.store import Artifact, Change, Store
from tests.helpers.store import (
    STEPS,
    commit,
    describe,
    folders,
    folders_in_use,
    forked,
    history,
    make_store,
    run_forked,
)

DISK_CALLS = ((os, "fsync"), (os, "replace"), (os, "mkdir"), (shutil, "rmtree"))
"""Everything a commit does to the disk outside SQLite passes through one of these."""


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, dict[str, Any]]]:
    """Every state of the history, by step: a workspace in it and its description."""
    root = tmp_path_factory.mktemp("states")
    store = make_store(root / "ws")
    states = {}
    for step in range(STEPS + 1):
        states[step] = (root / str(step), describe(store))
        shutil.copytree(store.path, states[step][0])
        if step < STEPS:
            commit(store, history(step))
    return states


def assert_sound(store: Store, expected: list[dict[str, Any]]) -> None:
    assert describe(store) in expected
    assert store.verify() == []
    with store.write("check", wait_seconds=0):
        pass
    assert folders(store) == folders_in_use(store)
    assert describe(store) in expected


def interrupt(patch: pytest.MonkeyPatch, moment: int, action: Callable[[], None]) -> Iterator[int]:
    """Do `action` in place of the disk call number `moment`; return the calls' counter."""
    calls = iter(range(10_000))
    for owner, name in DISK_CALLS:
        original = getattr(owner, name)

        def call(*arguments: Any, original: Callable[..., Any] = original, **more: Any) -> Any:
            if next(calls) == moment:
                action()
            return original(*arguments, **more)

        patch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("step", [2, 5])
def test_killed_at_every_disk_call(
    states: dict[int, tuple[Path, dict[str, Any]]], step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [states[step][1], states[step + 1][1]]
    seen = set()
    for moment in range(200):
        path = tmp_path / str(moment)
        shutil.copytree(states[step][0], path)
        store = Store.open(path)

        def context(moment: int = moment, store: Store = store) -> None:
            interrupt(monkeypatch, moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
            commit(store, history(step))

        code = run_forked(context)
        assert code in (0, -signal.SIGKILL)
        seen.add(store.generation())
        assert_sound(store, expected)
        shutil.rmtree(path)
        if code == 0:
            break
    assert seen == {step + 1, step + 2}
    assert moment > 10


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "^C"])
def test_failing_at_every_disk_call(
    states: dict[int, tuple[Path, dict[str, Any]]], error: BaseException, tmp_path: Path
) -> None:
    step = 2

    def fail() -> None:
        raise error

    for moment in range(200):
        path = tmp_path / str(moment)
        shutil.copytree(states[step][0], path)
        store = Store.open(path)
        with pytest.MonkeyPatch.context() as patch:
            calls = interrupt(patch, moment, fail)
            with suppress(type(error)):
                commit(store, history(step))
            finished = next(calls) <= moment
        assert_sound(store, [states[step][1], states[step + 1][1]])
        shutil.rmtree(path)
        if finished:
            break
    assert moment > 10


def test_a_failed_commit_leaves_no_folder_behind(
    states: dict[int, tuple[Path, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(states[1][0], tmp_path / "ws")
    store = Store.open(tmp_path / "ws")
    before = folders(store)
    with store.write("learn") as writer:
        with monkeypatch.context() as patch:
            patch.setattr("conpet.store.writer.apply_change", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                writer.commit(history(1))
        assert folders(store) == before
        writer.commit(history(1))
    assert describe(store) == states[2][1]


@pytest.mark.parametrize("part", ["tensors", "tables", "detail"])
def test_a_file_system_that_takes_no_more_is_an_os_error(
    states: dict[int, tuple[Path, dict[str, Any]]], part: str, tmp_path: Path
) -> None:
    shutil.copytree(states[2][0], tmp_path / "ws")
    store = Store.open(tmp_path / "ws")
    shared = {
        "tensors": {"big": Artifact(tensors={"t": {"w": torch.ones(300_000)}})},
        "tables": {"big": Artifact(tables={"t": [{"x": "y" * 1_200_000}]})},
    }
    change = Change("x", shared=shared.get(part, {}), detail={"x": "y" * 1_200_000} if part == "detail" else {})

    def context() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with store.write("x") as writer:
            with pytest.raises(OSError, match=r"(?i)large|full|written") as raised:
                writer.commit(change)
            assert raised.value.errno in (errno.EFBIG, errno.EIO, errno.ENOSPC)
            assert describe(store) == states[2][1]
            assert folders(store) == folders_in_use(store)
            writer.commit(history(2))

    assert run_forked(context) == 0
    assert_sound(store, [states[3][1]])


def test_killed_at_random_moments(states: dict[int, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    random_ = random.Random(7)
    shutil.copytree(states[0][0], tmp_path / "0")
    store = Store.open(tmp_path / "0")
    expected = [state for _, state in states.values()]

    def context(store: Store) -> None:
        for step in range(store.generation() - 1, STEPS):
            commit(store, history(step))
        time.sleep(60)

    for kill in range(25):
        with forked(lambda: context(store)):  # noqa: B023 - runs at once
            time.sleep(random_.uniform(0.0, 0.3))
        assert_sound(store, expected)
        if store.generation() == STEPS + 1:
            path = tmp_path / str(kill + 1)
            shutil.copytree(states[0][0], path)
            store = Store.open(path)


def test_reading_a_workspace_with_a_lost_object_says_which(
    states: dict[int, tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    shutil.copytree(states[2][0], tmp_path / "ws")
    store = Store.open(tmp_path / "ws")
    shutil.rmtree(next((store.path / "objects").glob("module-a-v1-*")))
    with pytest.raises(CorruptionError, match=r"module-a-v1-.* is missing"):
        describe(store)
    assert store.snapshot().task("b").active.objects["memory"].has("examples")
