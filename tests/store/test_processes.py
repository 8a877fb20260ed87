"""Several processes and threads at one workspace."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from conpet.errors import WorkspaceBusyError
from conpet.store import Artifact, Change, Store
from tests.helpers.store import commit, folders, folders_in_use, forked, learn, make_store, module, read_all, run_forked


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "ws")


def hold_lock(store: Store, ready: Path) -> None:
    with store.write("learn"):
        ready.touch()
        time.sleep(60)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


def count_up(store: Store) -> int:
    """Raise the shared counter by one, from what it is under the lock."""
    with store.write("count", wait_seconds=60) as writer, store.snapshot() as snapshot:
        count = snapshot.shared["counter"].document("count") + 1 if "counter" in snapshot.shared else 1
        writer.commit(Change("count", shared={"counter": Artifact(documents={"count": count})}))
    return count


def test_a_second_writer_is_told_who_is_at_work(store: Store, tmp_path: Path) -> None:
    with forked(lambda: hold_lock(store, tmp_path / "ready")) as child:
        wait_for(tmp_path / "ready")
        begin = time.monotonic()
        with pytest.raises(WorkspaceBusyError, match=rf"process {child} on .* \(learn, since 20.*\); try again"):
            commit_now(store)
        assert time.monotonic() - begin < 5
        assert store.snapshot().generation == 1  # readers do not wait


def commit_now(store: Store) -> None:
    with store.write("remove", wait_seconds=0):
        pass


def test_the_lock_of_a_killed_writer_is_free(store: Store, tmp_path: Path) -> None:
    with forked(lambda: hold_lock(store, tmp_path / "ready")) as child:
        wait_for(tmp_path / "ready")
        os.kill(child, signal.SIGKILL)
        with store.write("learn", wait_seconds=10) as writer:
            writer.commit(learn("a"))
    assert store.snapshot().task("a")


def test_a_waiting_writer_sees_what_the_first_one_did(store: Store, tmp_path: Path) -> None:
    def first() -> None:
        with store.write("learn") as writer:
            (tmp_path / "ready").touch()
            time.sleep(0.3)
            writer.commit(learn("a"))

    with forked(first):
        wait_for(tmp_path / "ready")
        with store.write("learn", wait_seconds=None) as writer, store.snapshot() as snapshot:
            assert snapshot.task("a").active.number == 1
            writer.commit(learn("a"))
    assert store.snapshot().task("a").active.number == 2


def test_writers_of_several_processes_and_threads_lose_no_change(store: Store) -> None:
    def many() -> None:
        threads = [threading.Thread(target=lambda: [count_up(store) for _ in range(3)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with forked(many) as child:
        many()
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.01)
    assert store.generation() == 1 + 12
    assert store.snapshot().shared["counter"].document("count") == 12


def test_readers_never_fail_while_a_writer_supersedes_and_removes(store: Store) -> None:
    def write() -> None:
        for value in range(100):
            commit(store, learn("a", value, shared={"selector": module(value)}))
            commit(store, Change("remove", "a", remove=True))

    commit(store, Change("begin", shared={"selector": module(-1.0)}))
    generations = set()
    with forked(write):
        while len(generations) < 8:
            snapshot = store.snapshot()
            time.sleep(0.01)
            for reader in snapshot.readers():
                assert read_all(reader)
            generations.add(snapshot.generation)
    del snapshot, reader
    with store.write("check", wait_seconds=10):
        assert folders(store) == folders_in_use(store)


def test_a_dead_reader_holds_nothing(store: Store, tmp_path: Path) -> None:
    commit(store, Change("x", shared={"selector": module(1.0)}))

    def read() -> None:
        snapshot = store.snapshot()
        (tmp_path / "ready").touch()
        time.sleep(60)
        snapshot.close()

    with forked(read):
        wait_for(tmp_path / "ready")
        commit(store, Change("x", shared={"selector": module(2.0)}))
        assert len(folders(store)) == 2
    with store.write("x"):
        assert folders(store) == folders_in_use(store)
    assert len(list((store.path / "leases").iterdir())) == 1


def test_a_forked_child_ends_without_ending_its_parents_lease(store: Store) -> None:
    commit(store, Change("x", shared={"selector": module(1.0)}))
    snapshot = store.snapshot()
    assert run_forked(snapshot.close) == 0
    commit(store, Change("x", shared={"selector": module(2.0)}))
    assert read_all(snapshot.shared["selector"])["config"] == {"r": 1.0}
