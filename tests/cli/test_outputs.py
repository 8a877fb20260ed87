"""Where results go: wrong places are refused at once, and what is no terminal gets no tables in between."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from conpet.cli import main
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows, write_stream


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("outputs"))


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "WORKSPACE", "-i", "INPUT", "-o", "missing/out.csv"),
        ("data", "check", "INPUT", "--quick", "--fix", "missing/copy"),
        ("report", "WORKSPACE", "-o", "missing/report"),
        ("report", "WORKSPACE", "-o", "missing/page.html"),
        ("modules", "export", "WORKSPACE", "text-0", "missing/module"),
        ("bench", "table", "results", "-o", "missing/table.md"),
        ("bench", "plot", "results", "-o", "missing/plot.svg"),
    ],
)
def test_a_missing_folder_is_refused_and_not_made(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"WORKSPACE": workspace, "INPUT": write_rows(tmp_path / "in.jsonl", [{"text": "a"}])}
    refused = conpet(*(places.get(part, part) for part in command))
    assert (refused.code, refused.out) == (1, "")
    assert "there is no folder" in refused.err
    assert not (tmp_path / "missing").exists()


def test_the_input_is_not_replaced_by_its_predictions(workspace: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    before = source.read_bytes()
    refused = conpet("predict", workspace, "-i", source, "-o", tmp_path / "." / "in.jsonl")
    assert refused.code == 1
    assert "it is also the input" in refused.err
    assert source.read_bytes() == before


def test_a_folder_is_no_file(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    refused = conpet("predict", workspace, "some text", "-o", tmp_path / "out.csv")
    assert "it is a folder; name a file" in refused.err


def test_an_empty_name_is_refused(workspace: Path, tmp_path: Path) -> None:
    refused = conpet("learn", workspace, tmp_path, "--name", " ")
    assert refused.code == 2
    assert "a task needs a name" in refused.err


def test_no_learners_are_refused(tmp_path: Path) -> None:
    refused = conpet("compare", tmp_path, "--learners", " , ")
    assert refused.code == 2
    assert "name at least one method" in refused.err


def test_without_a_terminal_only_the_last_task_comes_with_the_table(tmp_path: Path) -> None:
    assert conpet("init", tmp_path / "ws", *QUICK).code == 0
    learned = conpet("learn", tmp_path / "ws", write_stream(tmp_path / "stream"))
    assert learned.out.count("Accuracy by task") == 1
    assert learned.out.count(": learned 2 labels") == len(STREAM)
    assert learned.out.index(f"{STREAM[0].name}: learned") < learned.out.index("Accuracy by task")


def test_each_answer_is_one_line_on_a_terminal_too(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    source = write_rows(tmp_path / "in.jsonl", [{"text": f"a text of several words, number {row}"} for row in range(3)])
    out = Terminal()
    with redirect_stdout(out), redirect_stderr(Terminal()):
        assert main(["predict", str(workspace), "-i", str(source)]) == 0
    assert [json.loads(line)["text"] for line in out.getvalue().splitlines()] == [
        json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()
    ]


def test_ctrl_c_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("conpet.store.Store.open", interrupted)
    stopped = conpet("predict", workspace, "some text")
    assert (stopped.code, stopped.out, stopped.err) == (130, "", "stopped\n")


def test_ctrl_c_while_the_program_is_loaded_says_so_in_one_line() -> None:
    code = (
        "import sys, builtins, runpy; real = builtins.__import__\n"
        "def stop(name, *rest, **more):\n"
        "    if name.startswith('typer'): raise KeyboardInterrupt\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = stop\n"
        "runpy.run_module('conpet', run_name='__main__')"
    )
    stopped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stderr) == (130, "stopped\n")
