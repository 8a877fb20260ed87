"""One workspace, many threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET
from conpet.errors import WorkspaceBusyError
from conpet.state.slots import MODULE
from conpet.testing import ask
from conpet.testing.checks import files
from tests.helpers.workspaces import frozen_state, stream, workspace

LEARN_ELSEWHERE = """
import sys
sys.stdout.write("ready" + chr(10)); sys.stdout.flush()
from conpet import ConPET
from conpet.testing import toy_stream
report = ConPET.open(sys.argv[1]).learn(toy_stream(3, 2, 8, 2, 4)[int(sys.argv[2])])
sys.stdout.write(f"{report.task} {report.tasks_seen}")
"""


def test_threads_predict_while_another_learns_and_go_on_from_what_it_learned(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    texts = [example.text for example in stream()[0].test]
    before = ask(learner, texts)
    done, answered = threading.Event(), threading.Condition()
    seen: list[list[list[dict[str, float]]]] = [[], []]

    def read(own: list[list[dict[str, float]]]) -> None:
        try:
            while not done.is_set():
                rows = ask_consistently(learner, texts)
                with answered:
                    own.append(rows)
                    answered.notify_all()
        finally:
            done.set()
            with answered:
                answered.notify_all()

    def wait_for_answers_from(labels: int) -> None:
        """Wait until every reader answers anew, and from a state of so many labels; what it sees must not be newer."""
        with answered:
            counts = [len(own) for own in seen]
            assert answered.wait_for(
                lambda: (
                    done.is_set()
                    or all(
                        len(own) > count and len(own[-1][0]) == labels for own, count in zip(seen, counts, strict=True)
                    )
                ),
                timeout=120,
            ), f"no answers from a state of {labels} labels"

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, own) for own in seen]
        try:
            for known, task in enumerate(stream()[1:], start=1):
                stages: list[str] = []

                def learning(stage: str, _: float, known: int = known, stages: list[str] = stages) -> None:
                    if stage not in stages:
                        stages.append(stage)
                        wait_for_answers_from(2 * known)

                learner.learn(task, progress=learning)
                assert "module" in stages
                wait_for_answers_from(2 * known + 2)
        finally:
            done.set()
        for reader in readers:
            reader.result()
    for own in seen:
        assert own[0] == before
        sizes = [len(rows[0]) for rows in own]
        assert sizes == sorted(sizes)
        assert set(sizes) == {2, 4, 6}


def ask_consistently(learner: ConPET, texts: list[str]) -> list[dict[str, float]]:
    """Predict all labels; all rows must come from the same state and sum to 1."""
    rows = [
        {answer.label: answer.score} | {other.label: other.score for other in answer.runners_up}
        for answer in learner.predict(texts, top_n=99)
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
    assert len(ask(learner, ["a"])[0]) == 6  # without opening it again
    assert ask(learner, ["a"]) == ask(ConPET.open(learner.path), ["a"])


def test_a_writer_decides_on_the_state_it_finds_when_its_turn_comes(tmp_path: Path) -> None:
    first, second = workspace(tmp_path, 1), ConPET.open(tmp_path / "ws")
    first.learn(stream()[1], evaluate=False)
    assert second.learn(stream()[1], evaluate=False).skipped
    first.remove(stream()[1].name, evaluate=False)
    assert second.learn(stream()[1], evaluate=False).version == 2
    assert [len(one.labels) for one in (first, second)] == [4, 4]


@pytest.mark.parametrize("settings", [{}, {"module": "prefix"}, {"fusion": "paper", "selector": "learned"}], ids=str)
def test_another_thread_that_loads_a_model_changes_no_module_and_no_answer(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Transformers sets torch's default number format for the whole process while it loads a model."""
    plain, disturbed = (workspace(tmp_path, 1, name, **settings) for name in ("plain", "disturbed"))
    texts = [example.text for task in stream() for example in task.test]
    plain.learn(stream()[1], evaluate=False)
    expected = ask(plain, texts)
    torch.set_default_dtype(torch.bfloat16)
    try:
        disturbed.learn(stream()[1], evaluate=False)
        again = ask(ConPET.open(plain.path), texts)
    finally:
        torch.set_default_dtype(torch.float32)
    for row, wanted in zip(again, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-6)
    assert files(disturbed, slots=(MODULE,)) == files(plain, slots=(MODULE,))
