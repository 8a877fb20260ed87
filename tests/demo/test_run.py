from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from conpet.cli.changes import teach
from conpet.data import Example
from conpet.demo.run import Demo
from conpet.errors import WorkspaceExistsError
from conpet.store import Store
from tests.helpers.cli import STREAM, conpet, taught

LIVE = (STREAM[0].test[0], Example.of_text("which of bach's cantatas has the longest oboe solo"))


def shown(path: Path, *, fresh: bool = False, tasks: int | None = None) -> str:
    """Run the demo on a toy stream; return what it shows on 80 columns, its line breaks as blanks."""
    console = Console(file=io.StringIO(), width=80)
    Demo(path, console, lambda _: None, teach, STREAM[:tasks], LIVE).run("tiny-random", fresh=fresh)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= 80
    return " ".join(" ".join(lines).split())


def test_the_demo_goes_from_nothing_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo"
    text = shown(path)
    growing = capsys.readouterr().out
    assert growing.count("Accuracy by task") == 2
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
