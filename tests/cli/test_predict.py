from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.cli import main
from conpet.report.data import ReportData
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows, write_stream

TEXTS = [task.test[0].text for task in STREAM]
SUMMARY = {
    "whole_accuracy",
    "average_accuracy",
    "forgetting",
    "backward_transfer",
    "selector_accuracy",
    "within_task_accuracy",
    "references",
    "accuracy_matrix",
    "cost",
    "tasks",
    "labels",
    "events",
}


def test_predict_answers_texts_with_where_they_come_from(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    answered = conpet("predict", workspace, *TEXTS, "--json", "--runners-up", 3)
    assert answered.code == 0
    expected = ConPET.open(workspace).predict(TEXTS, runners_up=3)
    assert [row["label"] for row in answered.rows] == [one.label for one in expected]
    assert [row["text"] for row in answered.rows] == TEXTS
    first = answered.rows[0]
    assert set(first) == {"text", "label", "score", "task", "version", "generation", "runners_up"}
    assert first["score"] == pytest.approx(expected[0].score, abs=1e-5)
    assert [set(other) for other in first["runners_up"]] == [{"label", "score", "task"}] * 3


def test_predict_prints_a_table_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["predict", str(taught(tmp_path)), TEXTS[0]]) == 0
    shown = sys.stdout.getvalue()
    assert "runners-up" in shown
    assert " v1" in shown


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_predict_reads_and_writes_files(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": text, "id": f"no {number}"} for number, text in enumerate(TEXTS)]
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "made" / f"out.{suffix}"
    target.parent.mkdir()
    assert conpet("predict", taught(tmp_path), "-i", source, "-o", target, "--runners-up", 1).code == 0
    lines = target.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines] if suffix == "jsonl" else list(csv.DictReader(lines))
    assert [(row["id"], row["text"]) for row in found] == [(row["id"], row["text"]) for row in rows]
    assert all(float(row["score"]) <= 1 and row["task"] and row["label"] for row in found)
    assert ("label_2" in found[0]) == (suffix == "csv")
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_predict_reads_json_lines_from_the_standard_input(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "conpet", "predict", taught(tmp_path), "-i", "-", "--format", "csv"],
        input=json.dumps({"text": TEXTS[0]}) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    header, row = csv.reader(io.StringIO(run.stdout))
    assert header[:6] == ["id", "text", "label", "score", "task", "version"]
    assert row[1] == TEXTS[0]


def test_a_wrong_row_costs_no_predictions_and_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good"}] * 300 + [{"text": " "}])
    refused = conpet("predict", taught(tmp_path), "-i", source, "-o", target)
    assert refused.code == 1
    assert "row 301: empty text" in refused.err
    assert "nothing was predicted" in refused.err
    assert not list(tmp_path.glob("*out.jsonl*"))


def test_an_input_of_a_kind_not_learned_is_named_by_its_number(tmp_path: Path) -> None:
    relation = {"tokens": ["a", "b"], "head": [0, 1], "tail": [1, 2]}
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good"}] * 260 + [relation])
    target = tmp_path / "out.csv"
    target.write_text("what was there before")
    refused = conpet("predict", taught(tmp_path), "-i", source, "-o", target)
    assert refused.code == 1
    assert "inputs: row 261: is of kind relation" in refused.err
    assert "256 inputs before it were predicted" in refused.err
    assert target.read_text() == "what was there before"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "give either texts"),
        (["hello", "-i", "x.jsonl"], 2, "give either texts"),
        (["hello", "-o", "out.xlsx"], 1, ".jsonl or .csv"),
        (["hello", "--format", "xml"], 2, "jsonl, csv"),
        (["-i", "missing.csv"], 1, "No such file"),
        ([" "], 1, "empty text"),
    ],
)
def test_predict_refuses_what_it_cannot_do(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    refused = conpet("predict", taught(tmp_path), *options)
    assert refused.code == code
    assert said in " ".join(refused.err.split())
    assert refused.out == ""


def test_nothing_can_be_predicted_before_anything_was_learned(tmp_path: Path) -> None:
    conpet("init", tmp_path / "new", *QUICK)
    refused = conpet("predict", tmp_path / "new", "hello")
    assert refused.code == 1
    assert "the workspace has no tasks yet; learn a task first" in refused.err


def test_evaluate_as_json_has_the_promised_keys(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    found = conpet("evaluate", workspace, "--json").json
    expected = ConPET.open(workspace).evaluate()
    assert set(found) == SUMMARY
    assert found["whole_accuracy"] == expected.whole_accuracy
    assert found["references"] == {name: one.value for name, one in expected.references.items()}
    assert found["accuracy_matrix"] == expected.matrix.table()
    assert found["accuracy_matrix"][0][1] is None
    assert found["tasks"] == [task.name for task in STREAM]
    assert found["labels"] == {task.name: list(task.labels) for task in STREAM}
    assert [event["verb"] for event in found["events"]] == ["learn", "learn"]
    cost = found["cost"]
    assert cost["seconds"] == pytest.approx(sum(stage["seconds"] for stage in cost["stages"].values()))
    assert cost["trainable_parameters"] < cost["trainable_parameters_with_heads"] < cost["backbone_parameters"]
    assert 0 < cost["cache_hit_rate"] < 1


def test_evaluate_prints_the_final_table(tmp_path: Path) -> None:
    shown = conpet("evaluate", taught(tmp_path)).out
    assert "whole accuracy" in shown
    assert "reference: ridge" in shown
    assert "fewer than the backbone" in shown


def test_an_empty_workspace_has_nothing_to_evaluate(tmp_path: Path) -> None:
    conpet("init", tmp_path / "new", *QUICK)
    assert "learned nothing yet" in conpet("evaluate", tmp_path / "new").out
    found = conpet("evaluate", tmp_path / "new", "--json").json
    assert set(found) == SUMMARY
    assert found["whole_accuracy"] is None
    assert conpet("report", tmp_path / "new").code == 0


def test_report_writes_a_page_and_json_into_the_workspace(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    written = conpet("report", workspace)
    assert written.code == 0
    page, data = workspace / "report" / "report.html", workspace / "report" / "report.json"
    assert written.out.splitlines()[-2:] == [str(page), str(data)]
    assert "</html>" in page.read_text(encoding="utf-8")
    report = ReportData.from_json(data.read_text(encoding="utf-8"))
    assert [task.name for task in report.tasks] == [task.name for task in STREAM]
    assert set(report.summary) == SUMMARY
    assert conpet("modules", "verify", workspace).code == 0


def test_report_goes_where_it_is_told(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    (tmp_path / "a").mkdir()
    assert conpet("report", workspace, "-o", tmp_path / "a" / "page.html").code == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["page.html", "page.json"]
    printed = conpet("report", workspace, "--json")
    assert ReportData.from_json(printed.out).workspace.name == "ws"
    assert not (workspace / "report").exists()
    (tmp_path / "file").write_text("")
    refused = conpet("report", workspace, "-o", tmp_path / "file")
    assert refused.code == 1
    assert "cannot write" in refused.err


def test_report_evaluates_where_learning_did_not(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    conpet("init", workspace, *QUICK)
    conpet("learn", workspace, write_stream(tmp_path / "stream"), "--no-evaluate")
    assert conpet("report", workspace, "--json").json["summary"]["whole_accuracy"] is None
    measured = conpet("report", workspace, "--json", "--evaluate").json
    assert measured["summary"]["whole_accuracy"] is not None
    assert measured["selector_confusion"]
