from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import ANY

import pytest

from conpet import ConPET
from conpet.cli import main
from conpet.report.data import ReportData
from tests.helpers.cli import QUICK, STREAM, Result, conpet, taught, write_rows, write_stream

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
BY_LABEL = {"label_scores", "macro_average", "weighted_average", "confusion", "calibration"}


def test_predict_answers_texts_with_where_they_come_from(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    answered = conpet("predict", workspace, *TEXTS, "--json", "--top", 4)
    assert answered.code == 0
    expected = ConPET.open(workspace).predict(TEXTS, top_n=4)
    assert [row["label"] for row in answered.rows] == [one.label for one in expected]
    assert [row["text"] for row in answered.rows] == TEXTS
    first = answered.rows[0]
    assert set(first) - {"candidates", "candidates_score"} == {
        *("text", "label", "score", "task", "version", "generation", "runners_up"),
        *("decision", "reason", "in_scope", "confidence"),
    }
    assert first["score"] == pytest.approx(expected[0].score, abs=1e-5)
    assert [set(other) for other in first["runners_up"]] == [{"label", "score", "task"}] * 3


def test_predict_prints_a_table_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(*options: str) -> str:
        monkeypatch.setattr(sys, "stdout", Terminal())
        assert main(["predict", workspace, TEXTS[0], " ", *options]) == 0
        return sys.stdout.getvalue()

    workspace = str(taught(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    table = shown("--on-error", "report", "--min-score", "1")
    assert "runners-up" in table
    assert " v1" in table
    assert "none (rejected: " in table
    assert "error: empty text" in table
    assert "error" not in shown("--on-error", "skip")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_predict_reads_and_writes_files(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": text, "id": f"no {number}"} for number, text in enumerate(TEXTS)]
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "made" / f"out.{suffix}"
    target.parent.mkdir()
    assert conpet("predict", taught(tmp_path), "-i", source, "-o", target, "--top", 2).code == 0
    lines = target.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines] if suffix == "jsonl" else list(csv.DictReader(lines))
    assert [(row["id"], row["text"]) for row in found] == [(row["id"], row["text"]) for row in rows]
    assert all(float(row["score"]) <= 1 and row["task"] and row["label"] for row in found)
    assert ("label_2" in found[0]) == (suffix == "csv")
    assert "label_3" not in found[0]
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_predict_reads_the_formats_of_learning_and_keeps_ids(tmp_path: Path) -> None:
    workspace, target = taught(tmp_path), tmp_path / "out.jsonl"
    source = write_rows(tmp_path / "in.jsonl", [{"utterance": text, "nr": at} for at, text in enumerate(TEXTS)])
    run = conpet("predict", workspace, "-i", source, "-o", target, "--text-column", "utterance", "--id-column", "nr")
    assert run.code == 0
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == list(enumerate(TEXTS))
    (tmp_path / "in.csv").write_bytes("7;café\n".encode("cp1252"))
    options = ("--text-column", 2, "--id-column", 1, "--encoding", "cp1252", "--format", "csv")
    run = conpet("predict", workspace, "-i", tmp_path / "in.csv", *options)
    assert run.out.splitlines()[1].startswith("7,café,")
    assert "note: " in run.err
    assert "cells are separated by semicolons" in run.err
    (tmp_path / "lines.txt").write_text("one text\n\nanother\n")
    assert [row["text"] for row in conpet("predict", workspace, "-i", tmp_path / "lines.txt").rows] == [
        "one text",
        "another",
    ]


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
    assert f"{source}: row 261: is of kind relation, but the tasks are of kind text" in refused.err
    assert "nothing was predicted" in refused.err
    assert target.read_text() == "what was there before"


BAD_ROWS = [{"text": TEXTS[0], "id": "a"}, {"text": "", "id": "b"}, {"text": TEXTS[1]}, {"txt": "x"}, {"text": "good"}]


def piped(monkeypatch: pytest.MonkeyPatch, workspace: Path, rows: list[dict], *options: str) -> Result:
    sent = "".join(json.dumps(row) + "\n" for row in rows).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent), encoding="utf-8"))
    return conpet("predict", workspace, "-i", "-", *options)


def test_all_bad_rows_are_named_before_the_first_prediction(tmp_path: Path) -> None:
    workspace, source = taught(tmp_path), write_rows(tmp_path / "in.jsonl", BAD_ROWS)
    refused = conpet("predict", workspace, "-i", source)
    assert (refused.code, refused.out) == (1, "")
    assert f"{source}: row 2: empty text" in refused.err
    assert f"{source}: row 4: missing text" in refused.err
    assert "--on-error skip" in refused.err


def test_bad_rows_of_standard_input_are_found_before_the_first_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = taught(tmp_path)
    refused = piped(monkeypatch, workspace, BAD_ROWS)
    assert (refused.code, refused.out) == (1, "")
    assert "standard input: row 2: empty text" in refused.err
    assert "standard input: row 4: missing text" in refused.err
    answered = piped(monkeypatch, workspace, BAD_ROWS, "--on-error", "report")
    assert answered.code == 0
    assert [row.get("row") for row in answered.rows] == [None, 2, None, 4, None]


def test_bad_rows_can_be_left_out_or_reported_in_their_places(tmp_path: Path) -> None:
    workspace, source = taught(tmp_path), write_rows(tmp_path / "in.jsonl", BAD_ROWS)
    skipped = conpet("predict", workspace, "-i", source, "--on-error", "skip")
    assert skipped.code == 0
    assert [row["text"] for row in skipped.rows] == [*TEXTS, "good"]
    assert "left out: 2 rows" in skipped.err
    assert f"{source}: row 4: missing text" in skipped.err
    reported = conpet("predict", workspace, "-i", source, "--on-error", "report")
    assert (reported.code, len(reported.rows)) == (0, 5)
    assert reported.rows[1] == {"id": "b", "row": 2, "error": "empty text"}
    assert reported.rows[3]["row"] == 4
    assert [reported.rows[at]["label"] for at in (0, 2, 4)] == [row["label"] for row in skipped.rows]
    table = conpet("predict", workspace, "-i", source, "--on-error", "report", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [(row["row"], row["error"][:10]) for row in rows] == [
        ("", ""), ("2", "empty text"), ("", ""), ("4", "missing te"), ("", "")
    ]  # fmt: skip
    assert [row["label"] for row in rows if not row["error"]] == [row["label"] for row in skipped.rows]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_half_a_surrogate_pair_is_escaped_in_every_output(tmp_path: Path, suffix: str) -> None:
    workspace, source, target = taught(tmp_path), tmp_path / "in.jsonl", tmp_path / f"out.{suffix}"
    source.write_text('{"text": "good", "id": "\\ud800 1"}\n{"text": "fine", "id": 2}\n')
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(printed):
        assert main(["predict", str(workspace), "-i", str(source), "--on-error", "report", "--format", suffix]) == 0
    assert conpet("predict", workspace, "-i", source, "--on-error", "report", "-o", target).code == 0
    printed.flush()
    for content in (target.read_text(), printed.buffer.getvalue().decode()):  # type: ignore[attr-defined]
        first = content.splitlines()[suffix == "csv"]
        if suffix == "jsonl":
            assert json.loads(first) == {"id": "\ud800 1", "row": 1, "error": ANY}
        else:
            assert first.startswith("\\ud800 1,")


def test_a_file_without_rows_is_said_to_have_none(tmp_path: Path) -> None:
    done = conpet("predict", taught(tmp_path), "-i", write_rows(tmp_path / "in.jsonl", []))
    assert (done.code, done.out, done.err) == (0, "", "no rows: nothing was predicted\n")


def test_a_file_that_cannot_be_read_to_its_end_is_always_an_error(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text('text\ngood\n"bad "quotes\nlost\n')
    refused = conpet("predict", taught(tmp_path), "-i", source, "-o", target, "--on-error", "skip")
    assert refused.code == 1
    assert "reading stopped here" in refused.err
    assert not target.exists()
    missing = conpet("predict", taught(tmp_path / "other"), "-i", tmp_path / "none.csv", "--on-error", "report")
    assert missing.code == 1
    assert "no such file" in missing.err


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_answers_below_the_least_score_are_left_empty_and_marked(tmp_path: Path, suffix: str) -> None:
    workspace, target = taught(tmp_path), tmp_path / f"out.{suffix}"
    scores = sorted(answer.score for answer in ConPET.open(workspace).predict(TEXTS))
    least = (scores[0] + scores[-1]) / 2
    answered = conpet("predict", workspace, *TEXTS, "-o", target, "--min-score", least, "--top", 1)
    assert answered.code == 0
    rejected = sum(score < least for score in scores)
    assert 0 < rejected < len(TEXTS)
    assert f"{rejected} of them rejected" in answered.err
    lines = target.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines] if suffix == "jsonl" else list(csv.DictReader(lines))
    for row in rows:
        below = float(row["score"]) < least
        assert bool(row["label"]) != below
        assert bool(row.get("rejected")) == below
    known = ConPET.open(workspace).labels
    assert {row.get("rejected") or row["label"] for row in rows} <= set(known)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "give either texts"),
        (["hello", "-i", "x.jsonl"], 2, "give either texts"),
        (["hello", "-o", "out.xlsx"], 1, ".jsonl or .csv"),
        (["hello", "--format", "xml"], 2, "jsonl, csv"),
        (["-i", "missing.csv"], 1, "no such file or folder; nothing was predicted"),
        ([" "], 1, "empty text"),
        (["hello", "--on-error", "ignore"], 2, "fail, skip, report"),
        (["hello", "--top", "0"], 2, "'--top': 0 is out of range: at least 1"),
        (["hello", "--top", "many"], 2, "'--top': 'many' is not a whole number"),
        (["hello", "--min-score", "1.5"], 2, "'--min-score': 1.5 is out of range: from 0 to 1"),
        (["hello", "--min-score", "nan"], 2, "'--min-score': nan is out of range: from 0 to 1"),
        (["hello", "--format", "tsv"], 2, "--input-format is that of the input"),
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
    assert set(found) == SUMMARY | BY_LABEL | {"left_out"}
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
    assert set(found) == SUMMARY | BY_LABEL | {"left_out"}
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


def test_all_texts_are_checked_before_the_first_prediction(tmp_path: Path) -> None:
    refused = conpet("predict", taught(tmp_path), "a b", "", " ", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "inputs: row 2: empty text" in refused.err
    assert "row 3" in refused.err
