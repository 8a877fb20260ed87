"""Creating and opening: what stands there, what is missing, what is damaged."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conpet.errors import ConpetError, CorruptionError, WorkspaceExistsError, WorkspaceNotFoundError
from conpet.store import SCHEMA_VERSION, Store
from tests.helpers.store import commit, describe, history, learn, make_store, run_forked


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_workspace_is_empty_and_remembers_its_header(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    path = tmp_path / "deep" / "ws"
    Store.create(path, settings={"split": 24, "note": "日本"}, backbone={"sha256": "abc"}, detail={"by": "me"})
    store = Store.open(path)
    snapshot = store.snapshot()
    assert snapshot.header == store.header()
    assert snapshot.header.settings == {"split": 24, "note": "日本"}
    assert snapshot.header.backbone == {"sha256": "abc"}
    assert snapshot.header.schema_version == SCHEMA_VERSION
    assert before <= snapshot.header.created <= datetime.now(UTC)
    assert (snapshot.generation, snapshot.tasks, dict(snapshot.shared)) == (1, (), {})
    assert store.events()[0].detail == {"by": "me"}
    assert names(path.parent) == ["ws"]


def test_an_empty_folder_and_a_relative_path_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws").mkdir()
    store = make_store(Path("ws"))
    monkeypatch.chdir("/")
    commit(store, learn("a"))
    assert Store.open(tmp_path / "ws").snapshot().task("a")


@pytest.mark.parametrize(
    ("stands", "message"), [("workspace", "a workspace already"), ("folder", "other files"), ("file", "is a file")]
)
def test_creating_over_something_says_what_stands_there(tmp_path: Path, stands: str, message: str) -> None:
    path = tmp_path / "ws"
    if stands == "workspace":
        make_store(path)
    elif stands == "folder":
        path.mkdir()
        (path / "thesis.tex").touch()
    else:
        path.touch()
    with pytest.raises(WorkspaceExistsError, match=message):
        make_store(path)
    assert names(tmp_path) == ["ws"]


@pytest.mark.parametrize(
    ("stands", "message"), [("nothing", "does not exist"), ("folder", "has no workspace.sqlite"), ("file", "is a file")]
)
def test_opening_what_is_no_workspace_says_what_to_do(tmp_path: Path, stands: str, message: str) -> None:
    path = tmp_path / "ws"
    if stands == "folder":
        path.mkdir()
    elif stands == "file":
        path.touch()
    with pytest.raises(WorkspaceNotFoundError, match=f"{message}.*conpet init"):
        Store.open(path)
    assert not (path / "workspace.sqlite").exists()


def test_another_schema_names_the_conpet_that_wrote_it(tmp_path: Path) -> None:
    path = make_store(tmp_path / "ws").path
    with closing(sqlite3.connect(path / "workspace.sqlite")) as raw:
        raw.execute("PRAGMA user_version=99")
        raw.execute("UPDATE header SET conpet_version = '7.1'")
        raw.commit()
    with pytest.raises(CorruptionError, match=r"schema 99, written by conpet 7\.1; conpet .* reads schema 6"):
        Store.open(path)


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_destroyed_database_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = make_store(tmp_path / "ws").path
    (path / "workspace.sqlite").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"workspace\.sqlite (is|was) .*restore"):
        Store.open(path)


def test_a_damaged_database_is_named_whatever_it_returns(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    for step in range(6):
        commit(store, history(step))
    expected, file, draw = describe(store), store.path / "workspace.sqlite", random.Random(3)
    content, refused = file.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(20):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        file.write_bytes(damaged)
        try:
            describe(Store.open(store.path))
        except ConpetError:
            refused += 1
    file.write_bytes(content)
    assert describe(store) == expected
    assert refused > 50


def test_a_copied_workspace_without_its_empty_folders_works(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    commit(store, learn("a"))
    shutil.copytree(store.path, tmp_path / "copy")
    for empty in ("leases", "scratch"):
        shutil.rmtree(tmp_path / "copy" / empty)
    copy = Store.open(tmp_path / "copy")
    assert describe(copy) == describe(store)
    commit(copy, learn("b"))


def test_a_creation_killed_anywhere_leaves_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ws"
    outcomes = []
    for moment in range(20):
        shutil.rmtree(path, ignore_errors=True)

        def create(moment: int = moment) -> None:
            kill_at(monkeypatch, moment)
            make_store(path)

        code = run_forked(create)
        outcomes.append(path.exists())
        if path.exists():
            assert Store.open(path).generation() == 1
        else:
            make_store(path)
        if code == 0:
            break
    assert set(outcomes) == {False, True}
    for leftover in tmp_path.glob(".ws.creating-*"):
        os.utime(leftover, (0, 0))
    shutil.rmtree(path)
    make_store(path)
    assert names(tmp_path) == ["ws"]


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Kill this process at the given call of those that touch the disk."""
    calls = iter(range(1000))
    for name in ("fsync", "rename", "mkdir"):
        original = getattr(os, name)

        def call(*arguments: object, original: object = original, **more: object) -> object:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **more)  # type: ignore[operator]

        patch.setattr(os, name, call)


def test_a_database_that_is_as_it_was_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = make_store(tmp_path / "ws"), Store.open(tmp_path / "ws")
    for number in range(3):
        commit(theirs, learn(f"task {number}"))
        _settle(tmp_path / "ws")
        assert ours.generation() == theirs.events()[-1].id == number + 2
        with monkeypatch.context() as patch:
            patch.setattr(ours._database, "read", None)
            assert ours.generation() == number + 2


def _settle(workspace: Path) -> None:
    """Let the last write have been a while ago."""
    for file in workspace.glob("*.sqlite*"):
        then = file.stat().st_mtime - 60
        os.utime(file, (then, then))


def test_a_write_so_short_ago_that_the_next_may_look_the_same_is_not_trusted(tmp_path: Path) -> None:
    ours, theirs = make_store(tmp_path / "ws"), Store.open(tmp_path / "ws")
    for number in range(20):
        commit(theirs, learn(f"task {number}"))
        assert ours.generation() == number + 2
