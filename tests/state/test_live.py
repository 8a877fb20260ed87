"""One workspace, many threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.errors import WorkspaceBusyError
from conpet.testing import ask
from tests.helpers.workspaces import frozen_state, stream, workspace

LEARN_ELSEWHERE = """
import sys
sys.stdout.write("ready" + chr(10)); sys.stdout.flush()
from conpet import ConPET
from conpet.testing import toy_stream
report = ConPET.open(sys.argv[1]).learn(toy_stream(3, 2, 8, 2, 4)[int(sys.argv[2])])
sys.stdout.write(f"{report.task} {report.tasks_seen}")
"""


def test_threads_predict_while_another_learns(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    texts = [example.text for example in stream()[0].test]
    before = ask(learner, texts)
    done = threading.Event()
    seen: list[list[dict[str, float]]] = []

    def read() -> int:
        count = 0
        while not done.is_set():
            seen.append(ask_consistently(learner, texts))
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for task in stream()[1:]:
                learner.learn(task)
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert seen[0] == before
    states = {len(rows[0]) for rows in seen}
    assert states <= {2, 4, 6}
    assert len(ask(learner, texts)[0]) == 6


def ask_consistently(learner: ConPET, texts: list[str]) -> list[dict[str, float]]:
    """Ask for all labels; all rows must come from one state and sum to 1."""
    rows = [
        {answer.label: answer.score} | {other.label: other.score for other in answer.runners_up}
        for answer in learner.predict(texts, runners_up=99)
    ]
    assert len({frozenset(row) for row in rows}) == 1
    assert all(sum(row.values()) == pytest.approx(1, abs=1e-4) for row in rows)
    return rows


def test_who_will_not_wait_is_told_who_is_at_work(tmp_path: Path) -> None:
    learner, other = workspace(tmp_path, 1), ConPET.open(tmp_path / "ws")
    with learner.store.write("learn"), frozen_state(other):
        with pytest.raises(WorkspaceBusyError, match=r"being changed by process \d+ .*learn"):
            other.learn(stream()[1], wait_seconds=0)
        with pytest.raises(WorkspaceBusyError):
            other.remove(stream()[0].name, wait_seconds=0)
        assert other.predict(["reading needs no lock"])
    other.learn(stream()[1], wait_seconds=0)


def test_two_processes_learn_one_after_the_other_and_see_each_others_work(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    assert len(ask(learner, ["a"])[0]) == 2
    command = [sys.executable, "-c", LEARN_ELSEWHERE, str(learner.path), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        report = learner.learn(stream()[2])
        said = child.stdout.read()
    assert child.returncode == 0
    assert sorted([report.tasks_seen, int(said.split()[-1])]) == [2, 3]
    assert {task.name for task in learner.tasks} == {task.name for task in stream()}
    assert len(ask(learner, ["a"])[0]) == 6  # without being opened anew
    assert ask(learner, ["a"]) == ask(ConPET.open(learner.path), ["a"])


def test_a_writer_decides_on_the_state_it_finds_when_its_turn_comes(tmp_path: Path) -> None:
    first, second = workspace(tmp_path, 1), ConPET.open(tmp_path / "ws")
    first.learn(stream()[1], evaluate=False)
    assert second.learn(stream()[1], evaluate=False).skipped
    first.remove(stream()[1].name, evaluate=False)
    assert second.learn(stream()[1], evaluate=False).version == 2
    assert [len(one.labels) for one in (first, second)] == [4, 4]
