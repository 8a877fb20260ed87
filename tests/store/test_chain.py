"""The history is a hash chain: what was changed, removed or moved in it, or beside it, is found and named."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from conpet.store import Change, Store
from conpet.store.chain import ACTOR, breaks, digest_of, to_json
from tests.helpers.store import STEPS, commit, history, learn, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = make_store(tmp_path_factory.mktemp("chain") / "ws")
    commit(store, *(history(step) for step in range(STEPS)))
    return store.path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    with closing(sqlite3.connect(made / "workspace.sqlite")) as source, closing(sqlite3.connect(":memory:")):
        folder = tmp_path / "ws"
        folder.mkdir()
        with closing(sqlite3.connect(folder / "workspace.sqlite")) as copy:
            source.backup(copy)
    return Store.open(folder)


def change(store: Store, statement: str) -> None:
    with closing(sqlite3.connect(store.path / "workspace.sqlite")) as raw, raw:
        assert raw.execute(statement).rowcount


def test_an_untouched_history_of_every_sort_of_change_has_no_break(store: Store) -> None:
    assert store.history_breaks() == []
    assert len({event.digest for event in store.events()}) == STEPS + 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET detail = '{}' WHERE id = 4",
        "UPDATE event SET time = '2020-01-01T00:00:00+00:00' WHERE id = 4",
        "UPDATE event SET actor = 'somebody' WHERE id = 4",
        "UPDATE event SET written = json_set(written, '$.tasks', 'x') WHERE id = 4",
        "UPDATE event SET digest = 'x' WHERE id = 4",
        "UPDATE metric SET value = 0.95 WHERE event_id = 4 AND position = 0",
        "UPDATE cost SET tokens = tokens + 1 WHERE event_id = 4",
        "DELETE FROM reference WHERE event_id = 4",
    ],
)
def test_a_changed_event_is_named(store: Store, statement: str) -> None:
    change(store, statement)
    assert (4, "was changed after it was recorded") in [(one.event, one.reason) for one in store.history_breaks()]


def test_removed_events_are_named(store: Store) -> None:
    change(store, "DELETE FROM event WHERE id IN (3, 4)")
    reasons = [(one.event, one.reason) for one in store.history_breaks()]
    assert (3, "is missing, and so are those up to 4") in reasons


def test_moved_events_are_named(store: Store) -> None:
    events = [to_json(event) for event in store.events()]
    assert list(breaks(events)) == []
    moved = [*events[:3], events[4], events[3], *events[5:]]
    assert [one.event for one in breaks(moved)][:2] == [4, 4]
    assert any("another order" in one.reason for one in breaks(moved))
    swapped = [dict(event) for event in events]
    swapped[3]["detail"], swapped[4]["detail"] = events[4]["detail"], events[3]["detail"]
    assert [one.event for one in breaks(swapped)] == [4, 5]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ('UPDATE version SET labels = \'["yes", "no"]\' WHERE number = 1', "has other data or labels"),
        ("UPDATE version SET digest = 'x'", "has other data or labels"),
        ("UPDATE version SET number = 77 WHERE id = (SELECT max(id) FROM version)", "is in no event"),
        ("UPDATE header SET settings = '{}'", "the settings differ"),
        ("UPDATE header SET backbone = '{}'", "the backbone or other fixed properties of the workspace differ"),
        ("UPDATE header SET created = '2019-01-01T00:00:00+00:00'", "fixed properties of the workspace differ"),
        ("UPDATE header SET conpet_version = '0'", "fixed properties of the workspace differ"),
        ('UPDATE version SET description = \'{"counts": {"train": 9}}\'', "is described otherwise"),
        ("UPDATE version SET parameters = 9", "is described otherwise"),
        ("UPDATE version SET created = '2019-01-01T00:00:00+00:00'", "is described otherwise"),
        (
            "UPDATE version_object SET slot = slot || '2' WHERE version_id = (SELECT max(id) FROM version)",
            "the objects of versions and of the workspace differ",
        ),
        (
            "UPDATE task SET position = -1 WHERE id = (SELECT max(id) FROM task)",
            "the active versions of the tasks differ",
        ),
        ("UPDATE object SET manifest = '{}' WHERE id = (SELECT max(id) FROM object)", "has other content"),
    ],
)
def test_what_was_changed_beside_the_history_is_named(store: Store, statement: str, reason: str) -> None:
    commit(store, learn("c"), learn("d"))
    change(store, statement)
    assert any(reason in one.reason for one in store.history_breaks())


def test_what_an_earlier_version_did_not_record_is_no_break_and_recorded_by_the_next_change(store: Store) -> None:
    events = store.events()
    with closing(sqlite3.connect(store.path / "workspace.sqlite")) as raw, raw:
        previous = ""
        for event in events:
            new = {"header", "slots"}
            written = {name: value for name, value in event.written.items() if name not in new}
            if written.get("version"):
                written["version"] = {k: v for k, v in written["version"].items() if k != "description"}
            previous = digest_of(previous, to_json(event) | {"written": written})
            raw.execute(
                "UPDATE event SET written = ?, digest = ? WHERE id = ?", (json.dumps(written), previous, event.id)
            )
    assert store.history_breaks() == []
    commit(store, learn("c"))
    assert store.history_breaks() == []
    change(store, "UPDATE header SET conpet_version = '0'")
    assert any("fixed properties" in one.reason for one in store.history_breaks())


def test_going_back_to_a_kept_generation_is_no_break(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    commit(
        store, learn("a"), learn("b"), Change("consolidate", pin=True), learn("c"), Change("remove", "a", remove=True)
    )
    commit(store, Change("restore", restore=3, pin=True), learn("d"))
    assert store.history_breaks() == []


def test_events_say_who_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACTOR, "nightly job")
    store = make_store(tmp_path / "ws")
    commit(store, learn("a"))
    commit(Store.open(store.path, actor="key 12"), learn("b"))
    assert [event.actor for event in store.events()] == ["nightly job", "nightly job", "key 12"]
