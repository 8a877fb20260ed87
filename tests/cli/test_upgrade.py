"""`conpet upgrade`, `merge`, `learn --extend` and `labels`, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.store import Store
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows, write_stream

FIRST, SECOND = STREAM
LABEL = FIRST.labels[0]


def test_labels_list_names_their_tasks(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    rows = conpet("labels", "list", workspace, "--json").json
    assert rows == [{"label": label, "task": task.name, "version": 1} for task in STREAM for label in task.labels]
    shown = conpet("labels", "list", workspace).out
    assert all(label in shown for task in STREAM for label in task.labels)
    conpet("init", tmp_path / "new", *QUICK)
    assert "conpet learn" in conpet("labels", "list", tmp_path / "new").out


def test_labels_rename(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    done = conpet("labels", "rename", workspace, LABEL, "other")
    assert done.code == 0
    assert f"{LABEL}: renamed to other ({FIRST.name} version 2)" in done.out
    assert "whole accuracy" in done.out
    assert "other" in [row["label"] for row in conpet("labels", "list", workspace, "--json").json]
    taken = conpet("labels", "rename", workspace, "other", SECOND.labels[0])
    assert (taken.code, "choose another name" in taken.err) == (1, True)


def test_labels_retire_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = taught(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    assert conpet("labels", "retire", workspace, LABEL).code == 1
    assert Store.open(workspace).snapshot().task(FIRST.name).active.number == 1
    done = conpet("labels", "retire", workspace, LABEL, "--yes", "--no-evaluate")
    assert done.code == 0
    assert done.out == f"{LABEL}: retired; 1 label of {FIRST.name} is left (version 2)\n"


def test_learning_the_stream_again_says_what_changed_since(tmp_path: Path) -> None:
    workspace, folder = taught(tmp_path), write_stream(tmp_path / "stream")
    conpet("labels", "rename", workspace, LABEL, "other", "--no-evaluate")
    again = conpet("learn", workspace, folder, "--no-evaluate")
    assert again.code == 0
    assert f"{FIRST.name}: already learned from this data, and changed since" in again.out
    assert f"{SECOND.name}: already learned from the same data" in again.out
    assert "other" in conpet("labels", "list", workspace).out


def test_arguments_are_checked_before_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, static = taught(tmp_path), tmp_path / "static"
    conpet("init", static, "--method", "emr", *QUICK)

    def asked(*_: object) -> str:
        raise AssertionError("it asked")

    monkeypatch.setattr("builtins.input", asked)
    for arguments, why in (
        (("merge", workspace, FIRST.name, FIRST.name), "at least two different tasks"),
        (("merge", workspace, FIRST.name, SECOND.name, "--bound", -1), "0 or more"),
        (("upgrade", workspace), "already"),
        (("upgrade", static, "--selector", "oracle"), "no selector 'oracle'"),
        (("upgrade", static), "conpet init"),
    ):
        refused = conpet(*arguments)
        assert (refused.code, why in refused.err) == (1, True)


def test_labels_split(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    mine = [one for one in FIRST.train if one.label == LABEL]
    rows = [{"text": one.text, "label": f"fine-{index % 2}"} for index, one in enumerate(mine)]
    done = conpet("labels", "split", workspace, LABEL, write_rows(tmp_path / "finer.jsonl", rows))
    assert done.code == 0
    assert "6 stored examples of the split label have no finer label and were dropped" in done.out
    assert f"{LABEL}: split; {FIRST.name} version 2 has 3 labels" in done.out
    rows = [{"words": f"new {name}", "kind": name} for name in "xy"]
    columns = ("--text-column", "words", "--label-column", "kind")
    wrong = (
        "labels",
        "split",
        workspace,
        "fine-0",
        write_rows(tmp_path / "wrong.jsonl", rows),
        "--no-evaluate",
        *columns,
    )
    refused = conpet(*wrong)
    assert (refused.code, "Check the label" in refused.err) == (1, True)
    assert conpet(*wrong, "--replace").code == 0


def test_learn_extend(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    file = write_rows(tmp_path / "more.jsonl", [{"text": "quite new", "label": LABEL}])
    done = conpet("learn", workspace, file, "--extend", "--no-evaluate")
    assert done.code == 0
    assert f"{FIRST.name}: learned 2 labels as version 2" in done.out
    assert "nothing done" in conpet("learn", workspace, file, "--extend").out
    unknown = write_rows(tmp_path / "unknown.jsonl", [{"text": "quite new", "label": "unheard"}])
    refused = conpet("learn", workspace, unknown, "--extend")
    assert (refused.code, "no task has a label 'unheard'" in refused.err) == (1, True)
    assert conpet("learn", workspace, file, "--extend", "--name", "other").code == 2


def test_merge_shows_what_it_cost_and_freed(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    report = conpet("merge", workspace, FIRST.name, SECOND.name, "--bound", 100, "--yes", "--json").json
    assert report["tasks"] == [FIRST.name, SECOND.name]
    assert report["bytes_after"] < report["bytes_before"]
    assert report["validation_examples"] == 8
    assert {row["shared_module"] for row in conpet("modules", "list", workspace, "--json").json} == {"merged-1"}
    assert conpet("modules", "list", workspace).out.count("merged-1") == 2
    again = conpet("merge", workspace, FIRST.name, SECOND.name, "--yes")
    assert (again.code, "already share one module" in again.err) == (1, True)


def test_merge_in_words(tmp_path: Path) -> None:
    done = conpet("merge", taught(tmp_path), FIRST.name, SECOND.name, "--bound", 100, "--yes")
    assert done.code == 0
    assert f"{FIRST.name}, {SECOND.name}: now share one module" in done.out
    assert "accuracy on their validation examples: " in done.out
    assert "stored: " in done.out


def test_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "ws"
    conpet("init", workspace, "--method", "emr", *QUICK)
    conpet("learn", workspace, write_stream(tmp_path / "stream") / FIRST.name, "--no-evaluate")
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    assert conpet("upgrade", workspace).code == 1
    done = conpet("upgrade", workspace, "--method", "dynamic", "--yes")
    assert done.code == 0
    assert "method dynamic instead of emr, fusion paper; one frozen module serves all labels so far" in done.out
    again = conpet("upgrade", workspace, "--yes")
    assert (again.code, "already has method 'dynamic'" in again.err) == (1, True)
    assert conpet("learn", workspace, tmp_path / "stream" / SECOND.name).code == 0
    assert conpet("report", workspace, "--output", tmp_path / "report.html").code == 0
