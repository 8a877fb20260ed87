from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import pytest

from conpet.api import ConPET
from conpet.data import Example, TaskStream, read_task
from conpet.demo.exercise import answer_questions, demo_questions, write_exercise
from conpet.demo.stream import LIVE_EXAMPLES, demo_stream
from tests.helpers.cli import STREAM, conpet, taught

SERVE = "import sys; from pathlib import Path; from conpet.cli.demo import serve_demo; serve_demo(Path(sys.argv[1]), 0)"


@pytest.fixture(scope="module")
def stream() -> TaskStream:
    return demo_stream()


def test_questions_are_of_all_intents_or_none_and_new(stream: TaskStream) -> None:
    asked = Counter(question.label for question in demo_questions())
    assert asked == {None: 60} | {label: 2 for task in stream for label in task.labels}
    known = {one.text for task in stream for one in (*task.train, *task.validation, *task.test)}
    assert not known & {question.text for question in demo_questions()}
    assert not {one.text for one in LIVE_EXAMPLES} & {question.text for question in demo_questions()}


def test_the_exercise_has_a_new_department_and_a_table_whose_labels_slipped(stream: TaskStream, tmp_path: Path) -> None:
    written = conpet("demo", "--write-exercise", tmp_path / "first-day")
    assert written.code == 0
    assert "library.csv and banking-slipped.csv" in written.out
    assert write_exercise(tmp_path / "first-day") == tmp_path / "first-day"
    library, slipped = (
        read_task(tmp_path / "first-day" / name, all_rows=True).train for name in ("library.csv", "banking-slipped.csv")
    )
    known = {label for task in stream for label in task.labels}
    assert Counter(one.label for one in library) == dict.fromkeys(sorted({one.label for one in library} - known), 20)
    right = {one.text: one.label for one in stream[0].train}
    assert {one.text for one in slipped} == right.keys()
    assert Counter(one.label for one in slipped) == Counter(right.values())
    assert [one for one in slipped if one.label == right[one.text]] == []


def test_questions_are_answered_and_recorded_once(tmp_path: Path) -> None:
    questions = [STREAM[0].test[0], *(Example.of_text(f"question {number}") for number in range(30))]
    with ConPET.open(taught(tmp_path)) as workspace:
        assert answer_questions(workspace, questions) == 31
        recorded = {entry.content for entry in workspace.prediction_log.entries(limit=100)}
        assert recorded == {question.text for question in questions}
        assert answer_questions(workspace, questions) == 0


def test_a_served_demo_says_where_it_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(taught(tmp_path))], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        assert said[1] == "answered and recorded 360 questions, as users would have asked them\n"
        address = said[2].removeprefix("open ").partition(" ")[0]
        with urlopen(f"{address}healthz", timeout=60) as answer:  # noqa: S310
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_the_demo_ends_in_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conpet.demo.run.demo_stream", lambda: STREAM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = conpet(
            *("demo", "--workspace", tmp_path / "demo", "--backbone", "tiny-random", "--no-consolidate"),
            *("--serve", "--port", port),
        )
    assert ended.code == 1
    assert "answered and recorded 360 questions" in ended.out
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.err
