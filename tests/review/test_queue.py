"""The queue: who has which item, what verdicts make of it, and what is left of it when it is forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conpet import Example, Prediction
from conpet.data import Span
from conpet.errors import ConfigError, CorruptionError, ReviewConflictError, UnknownNameError
from conpet.review import queue as module
from conpet.review.queue import GivenVerdict, NewItem, ReviewQueue
from conpet.review.records import ItemKind, ItemState, VerdictKind
from conpet.store.prediction_log import KEY, PredictionLog

RIGHT, WRONG = GivenVerdict(VerdictKind.CONFIRM, "lost", "cards"), GivenVerdict(VerdictKind.CORRECT, "new", "cards")
SKIP = GivenVerdict(VerdictKind.SKIP)


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path)


@pytest.fixture
def queue(log: PredictionLog) -> ReviewQueue:
    return ReviewQueue(log)


def imported(queue: ReviewQueue, *texts: str, double: float = 0.0) -> list[int]:
    items = [NewItem(Example.of_text(text), ItemKind.IMPORTED, 2.0) for text in texts]
    return [number for number, _ in queue.add(items, double)]


def recorded(log: PredictionLog, texts: Sequence[str], decision: str = "answer") -> None:
    answers = [Prediction("lost", 0.8, "cards", 1, generation=1, decision=decision) for _ in texts]  # type: ignore[arg-type]
    log.append(log.rows("r", [Example.of_text(text) for text in texts], answers, with_text=True))


def test_an_item_stays_with_its_reviewer_and_returns_when_the_time_is_over(
    queue: ReviewQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = imported(queue, "a", "b")
    mine = queue.claim("ann")
    assert mine is not None
    assert (mine.id, mine.claimed_by) == (first, "ann")
    again, other = queue.claim("ann"), queue.claim("ben")
    assert (again and again.id, other and other.id) == (first, second)
    assert queue.claim("cem") is None
    with pytest.raises(ReviewConflictError, match="is with ann until"):
        queue.answer(first, "cem", RIGHT)
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 901)
    late = queue.claim("cem")
    assert late is not None
    assert late.id == first
    queue.answer(first, "cem", RIGHT)
    assert len(queue.answer(first, "cem", RIGHT).verdicts) == 1  # sent twice
    with pytest.raises(ReviewConflictError, match="was reviewed by cem"):
        queue.answer(first, "ann", WRONG)
    assert queue.release("cem") == 0
    assert [one.right for one in queue.items(states=[ItemState.DONE])] == ["lost"]


def test_threads_and_processes_get_different_items(log: PredictionLog, queue: ReviewQueue) -> None:
    imported(queue, *map(str, range(60)))
    code = (
        "import sys; from pathlib import Path\n"
        "from conpet.review.queue import ReviewQueue; from tests.review.test_queue import PredictionLog, RIGHT\n"
        "queue = ReviewQueue(PredictionLog(Path(sys.argv[1])))\n"
        "for _ in range(15):\n"
        "    item = queue.claim(sys.argv[2]); queue.answer(item.id, sys.argv[2], RIGHT)\n"
    )
    root = Path(__file__).parents[2]
    others = [subprocess.Popen([sys.executable, "-c", code, str(log.folder), f"p{n}"], cwd=root) for n in range(2)]

    def work(name: str) -> None:
        for _ in range(15):
            item = queue.claim(name)
            assert item is not None
            queue.answer(item.id, name, RIGHT)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(120) for other in others] == [0, 0]
    assert queue.status().states[ItemState.DONE] == 60
    assert {one.verdicts for one in queue.status().reviewers} == {15}


def test_a_killed_process_leaves_every_item_whole(log: PredictionLog, queue: ReviewQueue) -> None:
    imported(queue, *map(str, range(400)))
    code = (
        "import sys; from pathlib import Path\n"
        "from conpet.review.queue import ReviewQueue; from tests.review.test_queue import PredictionLog, RIGHT\n"
        "queue = ReviewQueue(PredictionLog(Path(sys.argv[1]))); print('on', flush=True)\n"
        "while item := queue.claim('ann'): queue.answer(item.id, 'ann', RIGHT)\n"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code, str(log.folder)], cwd=root, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.3)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    for item in queue.items(limit=1000):
        assert (item.state is ItemState.DONE) == bool(item.verdicts)
    held = queue.claim("ann")
    assert held is not None
    assert queue.answer(held.id, "ann", RIGHT).state is ItemState.DONE


def test_equal_inputs_are_one_item_and_inputs_with_spans_keep_them(queue: ReviewQueue) -> None:
    relation = Example.of_relation(["Ada", "met", "Bob"], Span(0, 1), Span(2, 3), label="ignored", id=7)
    rows = queue.add([NewItem(Example.of_text("a"), ItemKind.IMPORTED, 2.0), NewItem(relation, ItemKind.IMPORTED, 2.0)])
    assert imported(queue, "a", "c")[0] == rows[0][0]
    found = queue.find(relation)
    assert found is not None
    assert found.example == Example.of_relation(["Ada", "met", "Bob"], Span(0, 1), Span(2, 3))
    assert queue.find(Example.of_text("z")) is None
    assert queue.status().total == 3


def test_two_reviewers_agree_or_a_third_decides(queue: ReviewQueue) -> None:
    first, second, third = imported(queue, "a", "b", "c", double=1.0)
    for number in (first, second, third):
        assert queue.answer(number, "ann", RIGHT).state is ItemState.OPEN
    assert queue.claim("ann") is None
    with pytest.raises(ReviewConflictError, match="second reviewer"):
        queue.answer(first, "ann", WRONG)
    assert queue.answer(first, "ben", RIGHT).state is ItemState.DONE
    assert queue.answer(second, "ben", WRONG).state is ItemState.DISPUTED
    assert queue.answer(third, "ben", WRONG).state is ItemState.DISPUTED
    offered = queue.claim("cem")
    assert offered is not None
    assert len(offered.verdicts) == 2
    decided = queue.answer(second, "cem", WRONG)
    assert (decided.state, decided.right) == (ItemState.DONE, "new")
    assert queue.answer(third, "ann", WRONG).right == "new"  # one of them gives in
    agreement = queue.status().agreement
    assert (agreement.items, agreement.observed) == (3, pytest.approx(3 / 7))
    assert agreement.alpha == pytest.approx(1 - (4 / 7) / (24 / 42))


def test_skipped_items_are_offered_to_others_and_a_verdict_can_be_taken_back(queue: ReviewQueue) -> None:
    first, second = imported(queue, "a", "b")
    assert queue.answer(first, "ann", SKIP).state is ItemState.SKIPPED
    offered = queue.claim("ben")
    assert offered is not None
    assert offered.id == second
    queue.answer(second, "ben", GivenVerdict(VerdictKind.NONE))
    last = queue.claim("ben")
    assert last is not None
    assert last.id == first
    queue.answer(first, "ben", WRONG)
    undone = queue.undo("ben")
    assert (undone.id, undone.state, undone.right, undone.claimed_by) == (first, ItemState.SKIPPED, None, "ben")
    assert queue.undo("ben").id == second
    with pytest.raises(UnknownNameError, match="no verdict"):
        queue.undo("ben")
    with pytest.raises(UnknownNameError, match="item 99"):
        queue.answer(99, "ben", RIGHT)


def test_the_time_taken_is_measured_and_entered_once_also_if_the_verdict_is_undone(
    queue: ReviewQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = imported(queue, "a", "b")
    start = time.time()
    queue.claim("ann")
    monkeypatch.setattr(module.time, "time", lambda: start + 60)
    queue.answer(first, "ann", RIGHT)
    queue.undo("ann")
    queue.answer(second, "ben", WRONG._replace(seconds=30.0))
    entered: list[object] = []
    queue.book(lambda taken: bool(entered.append(dict(taken))), least_seconds=1000)
    queue.book(lambda taken: bool(entered.append("refused")))
    queue.book(lambda taken: entered.append(dict(taken)) is None)
    queue.book(lambda taken: entered.append("twice") is None)
    assert entered[0] == "refused"
    assert len(entered) == 2
    ((task, (seconds, number)),) = entered[1].items()  # type: ignore[attr-defined]
    assert (task, number) == ("cards", 2)
    assert seconds == pytest.approx(90, abs=2)
    assert queue.status().minutes == pytest.approx(1.5, abs=0.05)


def test_forgotten_and_old_items_leave_nothing_in_the_file(log: PredictionLog, queue: ReviewQueue) -> None:
    recorded(log, ["my card 4711 was eaten by the machine"])
    entry = log.entries()[0]
    assert entry.example is not None
    first = queue.add([NewItem(entry.example, ItemKind.RANDOM, 0.0, entry)])[0][0]
    other, labelled, noted = imported(queue, "another text", "a third text", "a fourth text")
    queue.answer(other, "ann", RIGHT._replace(note="like: my card 4711 was eaten by the machine"))
    queue.answer(labelled, "ann", GivenVerdict(VerdictKind.NEW, "secret_label"))
    assert queue.count({log.hash_of(entry.example)}) == 1
    assert queue.forget({log.hash_of(entry.example)}, labels=["secret_label"], texts=[entry.example.text]) == 2
    assert [one.id for one in queue.items()] == [other, noted]
    content = b"".join(path.read_bytes() for path in log.folder.glob("review.sqlite*"))
    assert b"card 4711 was eaten" not in content
    assert b"secret_label" not in content
    assert b"another text" in content
    with pytest.raises(UnknownNameError):
        queue.get(first)
    assert queue.prune(datetime.now(UTC) - timedelta(days=1)) == 0
    assert queue.prune(datetime.now(UTC) + timedelta(days=1)) == 2
    assert b"another text" not in b"".join(path.read_bytes() for path in log.folder.glob("review.sqlite*"))


def test_the_file_belongs_to_its_workspace_and_version(log: PredictionLog, queue: ReviewQueue) -> None:
    assert (queue.exists, queue.claim("ann"), queue.items(), queue.status().total) == (False, None, [], 0)
    imported(queue, "a")
    (log.folder / KEY).unlink()
    with pytest.raises(ConfigError, match="another workspace"):
        ReviewQueue(PredictionLog(log.folder)).items()
    queue.file.write_bytes(b"no database")
    with pytest.raises(CorruptionError):
        ReviewQueue(log).items()
