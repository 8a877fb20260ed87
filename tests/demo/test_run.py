from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from conpet.api import ConPET
from conpet.cli.changes import teach
from conpet.data import Example
from conpet.demo.consolidation import Consolidate, consolidated
from conpet.demo.run import Demo
from conpet.errors import AccuracyBoundError, WorkspaceExistsError
from conpet.store import Store
from conpet.types import ConsolidationReport
from tests.helpers.cli import STREAM, conpet, taught

LIVE = (STREAM[0].test[0], Example.of_text("which of bach's cantatas has the longest oboe solo"))


def kept(workspace: ConPET) -> ConsolidationReport:
    """Consolidate in a moment; a worse result is kept as well."""
    return workspace.consolidate(bound=100, settings={"epochs": 1})


class Stopping:
    """Consolidates only by raising an error, and counts how often it is called."""

    def __init__(self, error: BaseException) -> None:
        self.calls = 0
        self._error = error

    def __call__(self, workspace: ConPET) -> ConsolidationReport:
        self.calls += 1
        raise self._error


def shown(path: Path, *, fresh: bool = False, tasks: int | None = None, consolidate: Consolidate | None = None) -> str:
    """Run the demo on a toy stream; return what it shows on 80 columns, its line breaks as blanks."""
    console = Console(file=io.StringIO(), width=80)
    Demo(path, console, lambda _: None, teach, consolidate, STREAM[:tasks], LIVE).run("tiny-random", fresh=fresh)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= 80
    return " ".join(" ".join(lines).split())


def test_the_demo_goes_from_nothing_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo"
    text = shown(path, consolidate=kept)
    growing = capsys.readouterr().out
    assert growing.count("Accuracy by task") == 1  # no terminal: the table comes with the last task
    assert growing.count("logistic regression on the same features") == 2
    assert "log." in growing
    assert "a consolidation is due" not in growing
    for said in (
        "4 intents of 2 departments",
        "from text-",
        "no intent fits",
        "whole accuracy",
        "reference: ridge",
        "with heads",
        "stored",
        "states from the cache",
        "The best reference",
        "3,213 times",
        "what you could write in five lines",
        "8 validation examples, which decide",
        "16 test examples: whole accuracy",
        "The consolidation took",
        f"to go back: conpet restore {path} 3",
        "optimiser steps",
        "conpet init support",
    ):
        assert said in text
    assert str(path / "report" / "report.html") in text
    assert (path / "report" / "report.html").stat().st_size > 10_000


def test_an_interrupted_demo_is_continued_and_a_finished_one_shown_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "demo"
    shown(path, tasks=1)
    assert "1 of 2 departments are already learned" in shown(path)
    assert "already learned from the same data" in capsys.readouterr().out
    finished = shown(path)
    assert "already learned" in finished
    assert "Accuracy by task" in finished
    assert len(Store.open(path).events()) == 3
    assert "You can stop at any time" in shown(path, fresh=True)
    assert len(Store.open(path).events()) == 3


def test_a_consolidation_that_was_interrupted_is_made_by_the_next_run_and_then_only_shown(tmp_path: Path) -> None:
    path = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt):
        shown(path, consolidate=Stopping(KeyboardInterrupt()))
    assert "The consolidation is left to do." in shown(path, consolidate=kept)
    events = len(Store.open(path).events())
    again = Stopping(AssertionError("consolidated twice"))
    finished = shown(path, consolidate=again)
    assert "Use --fresh to start again." in finished
    assert "The consolidation took" in finished
    assert again.calls == 0
    assert len(Store.open(path).events()) == events


def test_a_consolidation_that_is_not_kept_is_reported_and_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "demo"
    refusing = Stopping(AccuracyBoundError("it would lower the accuracy from 90.0% to 80.0%"))
    for _ in range(2):
        text = shown(path, consolidate=refusing)
        assert "it would lower the accuracy from 90.0% to 80.0%" in text
        assert "goes on with the workspace as it was" in text
        assert "Predictions for new sentences" in text
    assert refusing.calls == 1


def test_the_result_of_learning_is_the_same_after_the_consolidation(tmp_path: Path) -> None:
    def result(text: str) -> str:
        return text[text.index("Result whole accuracy") : text.index("The paper's 3,000 times")]

    path = tmp_path / "demo"
    before = result(shown(path))
    assert "Consolidation" not in before
    shown(path, consolidate=kept)
    assert result(shown(path)) == before


def test_a_consolidation_before_the_last_task_does_not_end_the_demo(tmp_path: Path) -> None:
    path = tmp_path / "demo"
    shown(path, tasks=1, consolidate=kept)
    assert consolidated(Store.open(path))
    shown(path)
    assert consolidated(Store.open(path)) is None


def test_the_demo_leaves_other_peoples_workspaces_alone(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    refused = conpet("demo", "--workspace", workspace, "--fresh")
    assert refused.code == 1
    assert "other tasks" in refused.err
    assert len(Store.open(workspace).snapshot().tasks) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(WorkspaceExistsError):
        shown(tmp_path / "other", fresh=True)


def test_the_demo_gives_its_data_as_files(tmp_path: Path) -> None:
    written = conpet("demo", "--write-data", tmp_path / "clinc150")
    assert written.code == 0
    assert (tmp_path / "clinc150" / "banking" / "train.jsonl").exists()
