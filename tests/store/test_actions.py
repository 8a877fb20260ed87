"""The trail of actions is a hash chain, and an action is recorded or not done."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from conpet.errors import CorruptionError, ReadOnlyError
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import JobKind, JobRequest
from conpet.serve.keys import KeyStore, Role
from conpet.store.actions import ACTIONS, ActionLog
from tests.helpers.store import make_store


@pytest.fixture
def log(tmp_path: Path) -> ActionLog:
    found = ActionLog(tmp_path)
    for number in range(4):
        found.append(
            "ann" if number % 2 else "bob", "job-requested", job=f"j{number}", tasks=[f"task {number}", 'a "b"']
        )
    return found


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / ACTIONS)) as raw, raw:
        assert raw.execute(statement).rowcount


def test_entries_come_newest_first_and_are_found(log: ActionLog) -> None:
    assert [one.id for one in log.entries()] == [4, 3, 2, 1]
    assert [one.id for one in log.entries(before=4, limit=2)] == [3, 2]
    assert [one.id for one in log.entries(search="ANN j3")] == [4]
    assert [one.id for one in log.entries(task="task 2")] == [3]
    assert len(log.entries(task='a "b"')) == 4
    assert list(log.breaks()) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE action SET actor = 'eve' WHERE id = 2", "action 2: was changed after it was recorded"),
        ("UPDATE action SET detail = '{}' WHERE id = 4", "action 4: was changed after it was recorded"),
        ("DELETE FROM action WHERE id = 2", "action 2: is missing"),
    ],
)
def test_what_was_changed_or_removed_is_named(log: ActionLog, statement: str, said: str) -> None:
    change(log.folder, statement)
    assert str(next(log.breaks())) == said


def test_many_may_add_entries_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ActionLog(tmp_path).append("ann", "signed-in", number=number), range(40)))
    log = ActionLog(tmp_path)
    assert len(log.entries()) == 40
    assert list(log.breaks()) == []


def test_keys_and_jobs_are_recorded_with_who_and_what_but_no_secret(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    keys, queue = KeyStore(store.path / "keys.sqlite"), JobQueue(store.path)
    key, record = keys.create(Role.LEARN, "shop", by="ann")
    keys.revoke(record.id, by="bob")
    keys.revoke(record.id, by="bob")  # it is revoked already
    job = queue.submit(JobRequest(JobKind.REMOVE, {"task": "cards"}, ("cards",)), caller="0a1b2c")
    queue.cancel(job.id, by="bob")
    queue.cancel(job.id, by="bob")
    found = store.actions.entries()[::-1]
    about = {"key": record.id, "name": "shop", "role": "learn"}
    asked = {"job": job.id, "kind": "remove", "tasks": ["cards"]}
    assert [(one.actor, one.verb, one.detail) for one in found] == [
        ("ann", "key-made", about),
        ("bob", "key-revoked", about),
        ("key 0a1b2c", "job-requested", asked),
        ("bob", "job-cancelled", asked),
    ]
    assert key.split("_", 2)[2].encode() not in (store.path / ACTIONS).read_bytes()


def test_nothing_is_done_that_cannot_be_recorded(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys" / "keys.sqlite", ActionLog(tmp_path / "gone"))
    with pytest.raises(ReadOnlyError, match="every action is recorded"):
        keys.create(Role.OPERATE)
    assert keys.list() == []


def test_a_trail_of_another_version_is_not_read(log: ActionLog) -> None:
    with closing(sqlite3.connect(log.folder / ACTIONS)) as raw:
        raw.execute("PRAGMA user_version=9")
    with pytest.raises(CorruptionError, match="schema 9"):
        log.entries()
