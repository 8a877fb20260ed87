"""The record of predictions: complete, found again, pruned, forgotten, and checked for changes."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conpet import Example, Prediction
from conpet.data import Span
from conpet.errors import ConfigError, ReadOnlyError
from conpet.store import prediction_log
from conpet.store.prediction_log import FILE, KEY, PredictionLog, Row
from conpet.types import Trace
from tests.helpers.permissions import public_folder, reading_only

DAY = 86_400.0


def answer(label: str = "lost", task: str = "cards", decision: str = "answer") -> Prediction:
    trace = Trace(0.9, 4.5, ((task, 2),))
    return Prediction(label, 0.8, task, 2, generation=7, decision=decision, trace=trace)  # type: ignore[arg-type]


def rows(
    log: PredictionLog, *texts: str, request: str = "r1", at: float | None = None, with_text: bool = True
) -> list[Row]:
    examples = [Example.of_text(text) for text in texts]
    return log.rows(request, examples, [answer() for _ in texts], with_text=with_text, at=at)


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_was_appended_is_found_by_request_input_and_answer(log: PredictionLog) -> None:
    assert (log.exists, log.total(), log.entries(), log.oldest()) == (False, 0, [], None)
    log.append(rows(log, "a", "b"))
    log.append(log.rows("r2", [Example.of_text("a")], [answer("new", "loans", "ask")], with_text=False))
    first, second = log.entries(request="r1")[::-1]
    assert (first.content, first.place, second.content, second.place) == ("a", 1, "b", 2)
    assert (first.task, first.version, first.label, first.score, first.generation) == ("cards", 2, "lost", 0.8, 7)
    assert (first.selector, first.scope, first.modules) == (0.9, 4.5, (("cards", 2),))
    assert [entry.request for entry in log.entries(input_hash=log.hash_of("a"))] == ["r2", "r1"]
    assert [entry.content for entry in log.entries(task="loans")] == [None]
    assert [entry.id for entry in log.entries(limit=1)] == [3]
    assert [entry.id for entry in log.entries(before=3, limit=1)] == [2]
    assert [entry.decision for entry in log.entries(decision="ask")] == ["ask"]
    assert log.entries(since=datetime.now(UTC) + timedelta(hours=1)) == []
    counted = {(one.task, one.label, one.decision): one.number for one in log.counts()}
    assert counted == {("cards", "lost", "answer"): 2, ("loans", "new", "ask"): 1}
    log.append(rows(log, "c", at=time.time() - DAY))
    periods = [one for one in log.counts(hours=24 * 365 * 100) if one.task == "cards"]
    assert [(one.number, one.confidence, one.in_scope) for one in periods] == [(3, 1.0, 1.0)]
    assert {(one.task, one.label) for one in log.counts(labels=False)} == {("cards", ""), ("loans", "")}


def test_a_relative_folder_is_as_good_as_an_absolute_one(log: PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(log.rows("r", [Example.of_text("a text")], [answer()], with_text=True))
    log.close()
    folder = log.file.parent
    monkeypatch.chdir(folder.parent)
    relative = PredictionLog(Path(folder.name))
    assert [entry.request for entry in relative.entries()] == ["r"]
    assert list(relative.breaks()) == []


def test_hashes_cannot_be_made_without_the_key_and_differ_by_workspace(tmp_path: Path) -> None:
    logs = [PredictionLog(tmp_path / name) for name in ("a", "b")]
    for log in logs:
        log.file.parent.mkdir()
        log.append(rows(log, "my card", with_text=False))
    assert logs[0].hash_of("my card") == PredictionLog(tmp_path / "a").hash_of(Example.of_text("my card", label="x"))
    assert logs[0].hash_of("my card") != logs[1].hash_of("my card")
    assert b"my card" not in everything_in(tmp_path)
    mention = Example.of_mention(["Ada", "sang"], Span(0, 1))
    assert logs[0].hash_of(mention) != logs[0].hash_of(Example.of_mention(["Ada", "sang"], Span(1, 2)))
    (tmp_path / "b" / KEY).write_text("00" * 32)
    with pytest.raises(ConfigError, match="another workspace"):
        PredictionLog(tmp_path / "b").append(rows(logs[0], "x"))


def test_processes_and_threads_append_at_once_and_nothing_is_lost(log: PredictionLog) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from tests.store.test_prediction_log import rows, PredictionLog\n"
        "log = PredictionLog(Path(sys.argv[1]))\n"
        "for n in range(30): log.append(rows(log, str(n), request=sys.argv[3]))"
    )
    root = str(Path(__file__).parents[2])
    others = [subprocess.Popen([sys.executable, "-c", code, str(log.file.parent), root, f"p{n}"]) for n in range(2)]

    def append(name: str) -> None:
        for number in range(30):
            log.append(rows(log, str(number), request=name))

    threads = [threading.Thread(target=append, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(120) for other in others] == [0, 0]
    assert log.total() == 150
    assert list(log.breaks()) == []


def test_a_kill_leaves_complete_entries(log: PredictionLog) -> None:
    log.append(rows(log, "first"))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        for number in range(100_000):
            log.append(rows(log, f"x{number}", f"y{number}"))
            os.write(writing, b".")
        os._exit(0)
    os.close(writing)
    assert len(os.read(reading, 3)) > 0
    time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    again = PredictionLog(log.file.parent)
    assert again.total() >= 3
    assert again.total() % 2 == 1
    assert list(again.breaks()) == []
    again.append(rows(again, "last"))
    assert again.entries(limit=1)[0].content == "last"


def test_old_entries_are_pruned_and_the_log_says_so(log: PredictionLog) -> None:
    now = time.time()
    log.append(rows(log, "an old secret", at=now - 10 * DAY))
    log.append(rows(log, "a young one", at=now - DAY))
    assert log.prune(datetime.now(UTC) - timedelta(days=5)) == 1
    assert [entry.content for entry in log.entries()] == ["a young one"]
    assert [(note.what, note.number) for note in log.notes()] == [("pruned", 1)]
    assert sum(one.number for one in log.counts()) == 1
    log.close()
    assert b"an old secret" not in everything_in(log.file.parent)
    assert log.prune(datetime.now(UTC)) == 1
    log.append(rows(log, "after"))
    assert list(log.breaks()) == []
    assert log.entries()[0].id == 3


def test_age_is_kept_a_part_at_a_time_with_one_note_a_day(log: PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_log, "_CHUNK", 3)
    now = time.time()
    for number in range(7):
        log.append(rows(log, f"old {number}", at=now - 10 * DAY))
    log.append(rows(log, "young", at=now))
    assert [log.keep_for(5), log.total()] == [True, 5]
    assert list(log.breaks()) == []
    assert [log.keep_for(5), log.keep_for(5), log.total()] == [True, False, 1]
    assert list(log.breaks()) == []
    assert sum(note.number for note in log.notes()) == 7
    assert len(log.notes()) <= 2  # one, unless a day (UTC) began meanwhile
    log.append(rows(log, "old again", at=now - 10 * DAY))
    assert (log.keep_for(5), log.total()) == (False, 2)  # not again within the hour
    assert PredictionLog(log.file.parent).keep_for(None) is False
    assert log.total() == 2


def test_days_are_counted_by_task_and_decision_as_entries_come_and_go(log: PredictionLog) -> None:
    assert log.daily() == []
    today = datetime.now(UTC).replace(hour=12)
    ago = [today - timedelta(days=days) for days in range(4)]

    def append(at: datetime, task: str, decision: str, number: int, label: str = "lost") -> None:
        given = [answer(label, task, decision) for _ in range(number)]
        texts = [Example.of_text(f"text {place}") for place in range(number)]
        log.append(log.rows("r", texts, given, with_text=False, at=at.timestamp()))

    append(ago[3], "cards", "answer", 5)
    append(ago[1], "cards", "answer", 2)
    append(ago[1] - timedelta(hours=3), "cards", "decline", 1)
    append(ago[1] + timedelta(hours=3), "cards", "answer", 1)
    append(ago[1], "loans", "ask", 4, "rate")
    append(ago[0], "loans", "answer", 3, "pay")
    assert [(one.day, one.task, one.decision, one.number) for one in log.daily(ago[1].date())] == [
        (ago[1].date(), "cards", "answer", 3),
        (ago[1].date(), "cards", "decline", 1),
        (ago[1].date(), "loans", "ask", 4),
        (ago[0].date(), "loans", "answer", 3),
    ]
    by_task = log.daily(days=False)
    assert [(one.day, one.task, one.decision, one.number) for one in by_task] == [
        *((None, "cards", "answer", 8), (None, "cards", "decline", 1)),
        *((None, "loans", "answer", 3), (None, "loans", "ask", 4)),
    ]
    assert {(one.confidence, one.in_scope) for one in by_task} == {(1.0, 1.0)}
    assert [(one.day, one.decision, one.number) for one in log.daily(tasks=False, of=["loans"])] == [
        *((ago[1].date(), "ask", 4), (ago[0].date(), "answer", 3)),
    ]
    log.prune(ago[2])
    log.forget(labels=["pay"])
    assert [(one.task, one.decision, one.number) for one in log.daily(days=False)] == [
        *(("cards", "answer", 3), ("cards", "decline", 1), ("loans", "ask", 4)),
    ]
    assert sum(one.number for one in log.counts()) == sum(one.number for one in log.daily())
    log.forget(tasks=["cards", "loans"])
    assert log.daily() == []


def test_right_labels_are_kept_in_their_order_until_their_entries_go(log: PredictionLog) -> None:
    log.append(rows(log, "a", "b", "c", at=time.time() - 10 * DAY))
    log.append(rows(log, "d", "e"))
    log.add_feedback({2: "lost", 1: "new"})
    log.add_feedback({4: "lost", 5: "new", 1: "lost"})  # corrected in place
    judged = list(log.judged(0, generations=7))
    assert [(number, one.right, one.correct) for number, one in judged] == [
        *((1, "lost", True), (2, "lost", True), (3, "lost", True), (4, "new", False)),
    ]
    assert [number for number, _ in log.judged(2, generations=7)] == [3, 4]
    assert list(log.judged(0, generations=8)) == []
    assert [number for number, _ in log.judged(0, 7, entries_after=4)] == [4]
    log.prune(datetime.now(UTC) - timedelta(days=5))
    assert [number for number, _ in log.judged(0, generations=7)] == [3, 4]
    log.forget(labels=["new"])
    log.forget([log.hash_of("d")])
    assert list(log.judged(0, generations=7)) == []
    log.close()
    assert b"new" not in everything_in(log.file.parent)


def test_inputs_and_answers_are_forgotten_without_a_trace(log: PredictionLog) -> None:
    log.append(rows(log, "a secret text", "another"))
    log.append(log.rows("r9", [Example.of_text("x")], [answer("hidden", "quiet")], with_text=True))
    secret = log.hash_of("a secret text")
    assert log.forget([secret]) == 1
    assert log.forget(labels=["hidden"]) == 1
    log.close()
    left = everything_in(log.file.parent)
    assert not any(word in left for word in (b"a secret text", secret, b"hidden", b"quiet"))
    assert [entry.content for entry in log.entries()] == ["another"]
    assert sum(note.number for note in log.notes()) == 2
    assert list(log.breaks()) == []
    assert log.forget(tasks=["cards"]) == 1
    assert log.entries() == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE prediction SET score = 0.9 WHERE id = 2", "prediction 2"),
        ("UPDATE prediction SET label = 'other' WHERE id = 2", "prediction 2"),
        ("DELETE FROM prediction WHERE id = 2", "prediction 3"),
        ("DELETE FROM prediction WHERE id = 1", "prediction 2"),
        ("UPDATE prediction SET id = 9 WHERE id = 1", "prediction 2"),
        ("UPDATE prediction SET request = NULL WHERE id = 2", "without content"),
    ],
)
def test_changed_removed_and_moved_entries_are_named(log: PredictionLog, statement: str, found: str) -> None:
    log.append(rows(log, "a", "b", "c"))
    assert list(log.breaks()) == []
    log.close()
    with closing(sqlite3.connect(log.file)) as raw, raw:
        assert raw.execute(statement).rowcount
    assert any(found in one for one in log.breaks())


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM prediction WHERE id = 3", "predictions 3 to 3 are missing at the end"),
        ("DELETE FROM prediction", "predictions 1 to 3 are missing at the end"),
        ("UPDATE hour SET number = 99", "the counts of the hour"),
        ("DELETE FROM hour", "the counts of the hour"),
        ("UPDATE day SET number = 99", "the counts of days"),
        ("INSERT INTO note VALUES (50, 1796000000, 'pruned', 9, 'root', NULL)", "say that 9 entries were pruned"),
        ("UPDATE prediction SET time = 'x' WHERE id = 2", "is damaged"),
        ("UPDATE prediction SET digest = 7 WHERE id = 2", "prediction 2"),
    ],
)
def test_ends_counts_and_notes_are_checked(log: PredictionLog, statement: str, found: str) -> None:
    log.append(rows(log, "a", "b", "c"))
    assert list(log.breaks()) == []
    log.close()
    with closing(sqlite3.connect(log.file)) as raw, raw:
        assert raw.execute(statement).rowcount
    assert any(re.search(found, one) for one in log.breaks())


def test_a_missing_key_is_named_and_none_is_made_in_its_place(log: PredictionLog) -> None:
    log.append(rows(log, "a", "b"))
    (log.folder / KEY).unlink()
    again = PredictionLog(log.folder)
    (said,) = again.breaks()
    assert f"{KEY} is missing: restore it from a backup" in said
    with pytest.raises(ConfigError, match="restore it from a backup"):
        again.append(rows(log, "c"))
    with pytest.raises(ConfigError, match="restore it from a backup"):
        again.hash_of("a")
    assert not (log.folder / KEY).exists()


def test_only_the_owner_can_read_the_record_and_its_key(log: PredictionLog) -> None:
    log.append(rows(log, "a"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in log.folder.iterdir()}
    assert modes.keys() >= {FILE, KEY}
    assert set(modes.values()) == {0o600}


def test_what_could_not_be_written_is_noted_later(log: PredictionLog) -> None:
    log.lost(3)
    log.append(rows(log, "a"))
    assert [(note.what, note.number) for note in log.notes()] == [("lost", 3)]


def test_a_read_only_folder_is_named_and_another_one_can_be_given() -> None:
    with public_folder() as folder, public_folder() as other:
        other.chmod(0o777)
        (folder / "ws").mkdir(mode=0o755)
        with reading_only(folder / "ws"):
            log = PredictionLog(folder / "ws")
            with pytest.raises(ReadOnlyError, match="--log-to FOLDER"):
                log.require_writable()
            elsewhere = PredictionLog(folder / "ws", other)
            elsewhere.append(rows(elsewhere, "a"))
            assert [entry.content for entry in PredictionLog(folder / "ws", other).entries()] == ["a"]
        assert {path.name for path in other.iterdir()} >= {FILE, KEY}
        assert list((folder / "ws").iterdir()) == []
