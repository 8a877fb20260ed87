"""A workspace that may be read but not written: another user's, on a read-only mount, or without permission."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conpet.errors import ReadOnlyError
from conpet.store import Change, Store
from tests.helpers.permissions import public_folder, reading_only, unprivileged
from tests.helpers.store import commit, describe, folders, folders_in_use, forked, learn, make_store, module, read_all


@pytest.fixture
def store() -> Iterator[Store]:
    with public_folder() as folder:
        yield make_store(folder / "ws")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_everything_is_read_and_nothing_written(store: Store) -> None:
    commit(store, learn("a"), Change("x", shared={"selector": module(2.0)}, pin=True))
    expected, before = describe(store), files(store.path)
    with reading_only(store.path):
        reader = Store.open(store.path)
        assert describe(reader) == expected
        assert [kept.generation for kept in reader.pinned()] == [2]
        assert reader.generation() == 3
        assert reader.verify() == []
    assert files(store.path) == before


@pytest.mark.parametrize("part", ["", "workspace.sqlite", "objects", "leases", "scratch"])
def test_a_change_is_refused_and_names_what_is_missing(store: Store, part: str) -> None:
    (store.path / part).chmod(0o555 if part != "workspace.sqlite" else 0o444)
    everybody_may_write_the_rest(store.path, part)
    with unprivileged(), pytest.raises(ReadOnlyError, match=r"can be read but not changed") as refused:
        commit(store, learn("a"))
    assert f"{store.path / part} is not writable for user '" in str(refused.value)
    assert isinstance(refused.value, PermissionError)
    assert store.generation() == 1


def everybody_may_write_the_rest(folder: Path, part: str) -> None:
    for path in (folder, *folder.iterdir()):
        if path != folder / part:
            path.chmod(0o777 if path.is_dir() else 0o666)


def test_a_log_left_by_a_killed_writer_is_read(store: Store) -> None:
    """A copy made while a writer was at work has its log, with or without the file that SQLite shares in memory."""
    with closing(sqlite3.connect(store.path / "workspace.sqlite")) as raw:
        raw.execute("SELECT 1 FROM header").fetchone()  # the open file keeps the log from being copied back
        commit(store, learn("a"))
        expected = describe(store)
        copies = [Path(shutil.copytree(store.path, store.path.with_name(name))) for name in ("whole", "part")]
    assert (copies[1] / "workspace.sqlite-wal").stat().st_size
    (copies[1] / "workspace.sqlite-shm").unlink()
    for copy in copies:
        with reading_only(copy):
            assert describe(Store.open(copy)) == expected


def test_a_reader_without_permission_sees_each_commit_whole(store: Store) -> None:
    def write() -> None:
        for value in range(400):
            commit(store, learn("a", value, shared={"selector": module(value)}))

    commit(store, learn("a", -1.0, shared={"selector": module(-1.0)}))
    seen = set()
    with forked(write), unprivileged():
        reader, end = Store.open(store.path), time.monotonic() + 60
        while len(seen) < 8 and time.monotonic() < end:
            with reader.snapshot() as snapshot:
                values = {read_all(snapshot.shared["selector"])["w"][0][0]}
                values.add(read_all(snapshot.task("a").active.objects["module"])["w"][0][0])
                assert len(values) == 1
                seen.add(snapshot.generation)
    assert len(seen) >= 8


@pytest.mark.parametrize("lease", ["offered", "missing"])
def test_nothing_is_deleted_under_a_reader_without_permission(store: Store, lease: str) -> None:
    commit(store, Change("x", shared={"selector": module(1.0)}))
    if lease == "missing":  # as in a workspace of an older conpet
        (store.path / "leases" / "2").unlink()
    with reading_only(store.path):
        snapshot = Store.open(store.path).snapshot()
    commit(store, Change("x", shared={"selector": module(2.0)}))
    assert read_all(snapshot.shared["selector"])["config"] == {"r": 1.0}
    snapshot.close()
    with store.write("x"):
        assert folders(store) == folders_in_use(store)


def test_a_reader_without_permission_notices_a_commit(store: Store) -> None:
    reader = Store.open(store.path)
    with reading_only(store.path):
        assert reader.generation() == 1
    commit(store, learn("a"))
    with reading_only(store.path):
        assert reader.generation() == 2
        assert reader.snapshot().task("a")


def test_missing_folders_do_not_keep_a_copy_from_being_read(store: Store) -> None:
    commit(store, learn("a"))
    expected = describe(store)
    shutil.rmtree(store.path / "scratch")
    shutil.rmtree(store.path / "leases")
    with reading_only(store.path):
        reader = Store.open(store.path)
        assert describe(reader) == expected
        with pytest.raises(ReadOnlyError, match=f"{store.path} is not writable"):
            commit(reader, learn("b"))
    assert not (store.path / "leases").exists()
