"""`conpet evaluate`: by label, on the test examples or on a file."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest

from conpet import ConPET
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows, write_stream

TESTS = [example for task in STREAM for example in task.test]

OFF = ("--set", "features.refit=false")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A labelled file whose first row has the wrong label, and whose last one has a label that was not learned."""
    rows = [{"text": one.text, "label": one.label, "id": f"row-{number}"} for number, one in enumerate(TESTS)]
    rows[0]["label"] = STREAM[1].labels[0]
    return write_rows(tmp_path / "own.jsonl", [*rows, {"text": "strange words", "label": "nope"}])


def test_labels_confusion_and_calibration_are_shown(workspace: Path) -> None:
    shown = conpet("evaluate", workspace, "--labels").out
    for label in (label for task in STREAM for label in task.labels):
        assert label in shown
    assert "weighted average" in shown
    assert "macro average" in shown
    assert "expected calibration error" in shown
    assert "(10 bins of equal width)" in shown


def test_json_has_all_results_by_label(workspace: Path) -> None:
    found = conpet("evaluate", workspace, "--json").json
    expected = ConPET.open(workspace).evaluate()
    assert {row["label"]: row["f1"] for row in found["label_scores"]} == {
        label: score.f1 for label, score in expected.labels.items()
    }
    assert expected.calibration is not None
    assert found["calibration"]["expected_calibration_error"] == pytest.approx(expected.calibration.error, abs=1e-6)
    assert len(found["calibration"]["bins"]) == 10


def test_a_file_of_ones_own_is_evaluated_and_nothing_is_stored(workspace: Path, own: Path, tmp_path: Path) -> None:
    before = ConPET.open(workspace).store.generation()
    done = conpet("evaluate", workspace, "-i", own, "-o", tmp_path / "out.csv", "--confusion")
    assert done.code == 0
    assert f"{own}: {len(TESTS) + 1} rows; nothing was stored" in done.out
    assert "whole accuracy" in done.out
    assert "forgetting" not in done.out
    assert f"1 of {len(TESTS) + 1} rows has a label that the workspace has not learned (nope)" in done.out
    assert re.search(rf"row 1, score 0\.\d\d: {TESTS[0].text}", done.out)
    assert ConPET.open(workspace).store.generation() == before
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["row"] for row in rows] == [str(number) for number in range(1, len(TESTS) + 2)]
    assert (rows[0]["label"], rows[0]["answer"], rows[0]["correct"]) == (
        STREAM[1].labels[0],
        TESTS[0].label,
        "False",
    )
    assert (rows[0]["id"], rows[0]["text"], rows[-1]["label"]) == ("row-0", TESTS[0].text, "nope")


def test_the_json_of_a_file_and_its_answers_agree(workspace: Path, own: Path, tmp_path: Path) -> None:
    done = conpet("evaluate", workspace, "-i", own, "--json", "-o", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    known = [row for row in rows if row["label"] != "nope"]
    assert done.json["rows"] == len(rows)
    assert done.json["whole_accuracy"] == sum(row["correct"] for row in known) / len(known)
    assert done.json["unknown_labels"] == {"nope": {"rows": 1, "answers": {rows[-1]["answer"]: 1}}}
    assert rows[0]["text"] == TESTS[0].text
    confused = {(pair["label"], pair["answer"]): pair["examples"] for pair in done.json["confusion"]}
    example = confused[STREAM[1].labels[0], TESTS[0].label][0]
    assert (example["row"], example["id"], example["text"]) == (1, "row-0", TESTS[0].text)


def test_rows_are_numbered_as_in_the_file(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(f"text,label\n{TESTS[0].text},{STREAM[1].labels[0]}\n")
    (pair,) = conpet("evaluate", workspace, "-i", file, "--json").json["confusion"]
    assert pair["examples"][0]["row"] == 2  # the header is row 1


def test_all_wrong_rows_of_a_file_are_named(workspace: Path, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "", "label": "x"}, {"text": "a", "label": STREAM[0].labels[0]}]
    file = write_rows(tmp_path / "bad.jsonl", rows)
    refused = conpet("evaluate", workspace, "-i", file)
    assert refused.code == 1
    assert f"{file}: row 1: missing label" in refused.err
    assert f"{file}: row 2: empty text" in refused.err
    spans = {"tokens": ["a", "b"], "mention": [0, 1], "label": STREAM[0].labels[0]}
    refused = conpet("evaluate", workspace, "-i", write_rows(tmp_path / "kind.jsonl", [spans]))
    assert "kind.jsonl: row 1: is a typing example, but its label" in refused.err
    refused = conpet("evaluate", workspace, "-i", write_rows(tmp_path / "none.jsonl", [{"text": "a", "label": "b"}]))
    assert "no example has a label that the workspace has learned" in refused.err
    assert conpet("evaluate", workspace, "-o", tmp_path / "out.csv").code == 2


def test_answers_are_not_written_over_the_input_or_into_a_missing_folder(workspace: Path, own: Path) -> None:
    before = own.read_bytes()
    over = conpet("evaluate", workspace, "-i", own, "-o", own)
    assert (over.code, over.out) == (1, "")
    assert "it is also the input" in over.err
    assert own.read_bytes() == before
    missing = conpet("evaluate", workspace, "-i", own, "-o", own.parent / "none" / "out.csv")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no folder" in missing.err


def test_a_task_with_an_empty_test_file_is_said(tmp_path: Path) -> None:
    folder = write_stream(tmp_path / "stream") / STREAM[0].name
    (folder / "test.jsonl").write_text("")
    conpet("init", tmp_path / "ws", *QUICK)
    learned = conpet("learn", tmp_path / "ws", folder)
    assert "the test file is empty: accuracy is not measured" in learned.out
    assert f"no accuracy: task {STREAM[0].name} has no test examples" in learned.out
    assert "Accuracy by task" not in learned.out
    assert f"no accuracy: task {STREAM[0].name} has no test examples" in conpet("report", tmp_path / "ws").out
    evaluated = conpet("evaluate", tmp_path / "ws")
    assert f"no accuracy: task {STREAM[0].name} has no test examples" in evaluated.out
    assert "whole accuracy" not in evaluated.out
    assert "Labels, %" not in evaluated.out
    assert conpet("evaluate", tmp_path / "ws", "--json").json["label_scores"] is None


def test_cut_inputs_are_noted_once_on_standard_error(workspace: Path, tmp_path: Path) -> None:
    long = [{"text": f"{'a' * 200} {number}", "label": STREAM[0].labels[0]} for number in range(3)]
    file = write_rows(tmp_path / "long.jsonl", [*long, {"text": "a", "label": STREAM[0].labels[0]}])
    for command in ("predict", "evaluate"):
        done = conpet(command, workspace, "-i", file)
        assert done.err.count("note: 3 of 4") == 1
        assert "conpet init --set backbone.max_tokens=" in done.err
        assert "note:" not in done.out


def test_rows_that_were_trained_on_are_named(workspace: Path, tmp_path: Path) -> None:
    trained, *_ = STREAM[0].train
    rows = [{"text": one.text, "label": one.label} for one in TESTS[:3]]
    rows.insert(1, {"text": f"  {trained.text.replace(' ', '  ')} ", "label": trained.label})
    file = write_rows(tmp_path / "own.jsonl", rows)
    shown = conpet("evaluate", workspace, "-i", file)
    assert shown.code == 0
    assert "1 of 4 rows was trained on (2): accuracy on them is not a test; on the other 3 rows it is" in shown.err
    found = conpet("evaluate", workspace, "-i", file, "--json").json
    assert found["trained_on"] == {"rows": [2], "not_compared": 0}
    clean = conpet("evaluate", workspace, "-i", write_rows(tmp_path / "new.jsonl", rows[2:]))
    assert "trained on" not in clean.err


@pytest.mark.parametrize(("settings", "rows"), [((), [2]), (("--method", "emr"), []), (OFF, [])])
def test_validation_rows_are_no_test_where_classifiers_learned_from_them(
    settings: tuple[str, ...], rows: list[int], tmp_path: Path
) -> None:
    workspace, task = tmp_path / "ws", STREAM[0]
    assert conpet("init", workspace, *QUICK, *settings).code == 0
    assert conpet("learn", workspace, write_stream(tmp_path / "stream") / task.name).code == 0
    asked = (task.test[0], task.validation[0])
    file = write_rows(tmp_path / "own.jsonl", [{"text": one.text, "label": one.label} for one in asked])
    assert conpet("evaluate", workspace, "-i", file, "--json").json["trained_on"]["rows"] == rows


def test_without_stored_texts_nobody_can_tell_which_rows_were_trained_on(tmp_path: Path) -> None:
    workspace, task = tmp_path / "ws", STREAM[0]
    conpet("init", workspace, *QUICK, "--set", "replay.latent_only=true")
    conpet("learn", workspace, write_stream(tmp_path / "stream") / task.name)
    file = write_rows(tmp_path / "own.jsonl", [{"text": task.train[0].text, "label": task.train[0].label}])
    shown = conpet("evaluate", workspace, "-i", file)
    learned_from = len(task.train) + len(task.validation)
    assert f"the workspace does not store the texts of {learned_from} examples that it learned from" in shown.err
    assert conpet("evaluate", workspace, "-i", file, "--json").json["trained_on"]["not_compared"] == learned_from


def test_what_a_damaged_module_leaves_out_is_said_and_the_exit_status_is_1(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    (file,) = workspace.glob(f"objects/module-{STREAM[0].name}-*/head.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = conpet("evaluate", workspace)
    assert done.code == 1
    assert "whole accuracy" in done.out
    assert f"not evaluated: task '{STREAM[0].name}', {len(STREAM[0].test)} examples. {file} is damaged" in done.err
    assert "conpet modules verify" in done.err
    left_out = conpet("evaluate", workspace, "--json").json["left_out"]
    assert [(one["tasks"], one["examples"]) for one in left_out] == [([STREAM[0].name], len(STREAM[0].test))]

    rows = [{"text": one.text, "label": one.label, "id": at} for at, one in enumerate(TESTS)]
    own = write_rows(tmp_path / "own.jsonl", rows)
    for name in ("out.jsonl", "out.csv"):
        assert conpet("evaluate", workspace, "-i", own, "-o", tmp_path / name).code == 1
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with (tmp_path / "out.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    for number, one in enumerate(TESTS):
        damaged = one.label in STREAM[0].labels
        assert ("answer" in answers[number], "error" in answers[number]) == (not damaged, damaged)
        assert bool(table[number]["error"]) == damaged


def test_a_labelled_table_may_come_from_standard_input(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "text;label\n" + "".join(f"{one.text};{one.label}\n" for one in TESTS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table.encode())))
    done = conpet("evaluate", workspace, "-i", "-", "--input-format", "csv")
    assert (done.code, done.out.splitlines()[0]) == (0, f"standard input: {len(TESTS)} rows; nothing was stored")
    assert "standard input: cells are separated by semicolons" in done.err
