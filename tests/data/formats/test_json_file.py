"""JSON files: lists of objects, and the objects people put them in."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from conpet import check_data
from conpet.data import count_inputs, read_inputs, read_task
from conpet.errors import DataError
from tests.helpers.reading import SAMPLES, inputs, labelled, notes, problems, put

ROWS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]
FOUND = [("one", "a"), ("two", "b")]


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        {"version": 1, "data": ROWS},
        {"examples": ROWS},
        {"questions": ROWS},
        {"rows": [{"row_idx": at, "row": row} for at, row in enumerate(ROWS)]},
        {"rasa_nlu_data": {"common_examples": [{"text": row["text"], "intent": row["label"]} for row in ROWS]}},
        {"intents": [{"tag": row["label"], "patterns": [row["text"]], "responses": ["x"]} for row in ROWS]},
        {"text": ["one", "two"], "label": ["a", "b"]},
        {"text": {"0": "one", "1": "two"}, "label": {"0": "a", "1": "b"}},
        {"columns": ["label", "text"], "index": [0, 1], "data": [["a", "one"], ["b", "two"]]},
        {"a": ["one"], "b": ["two"]},
    ],
)
def test_shapes_of_json(tmp_path: Path, content: Any) -> None:
    path = put(tmp_path / "t.json", json.dumps(content, indent=1))
    assert labelled(path) == FOUND
    assert count_inputs(path) == 2


def test_what_is_read_of_an_object_is_said(tmp_path: Path) -> None:
    path = put(tmp_path / "t.json", json.dumps({"data": ROWS, "more": ROWS, "info": {}}))
    assert notes(path) == ["rows are read from 'data'; not read: more"]


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        ("", None, "is empty"),
        ('[{"text": "a"}, 3]', 2, "is not an object"),
        ('[{"text": "a"}, {"text": }]', 2, "not valid JSON: Expecting value"),
        (
            '[{"text": "a"}, {"text": ',
            2,
            "the file ends in the middle of row 2, after 1 complete row, before the end of",
        ),
        ('[{"text": "a"}, {"text": "b"}, {"text": "c", "x": nul', 3, "in the middle of row 3, after 2 complete rows"),
        ('[{"text": "a"},', 2, "the file ends after 1 complete row, before the end of the list"),
        ('[{"text": "a"}]\n[{"text": "b"}]', 2, 'text after the end of the list: \'[{"text": "b"}]\''),
        ('{"data": [{"text": "a"}, {"te', None, "the file ends in the middle of its JSON object"),
        ('{"text": "a"} {"text": "b"}', None, "not valid JSON: Extra data at line 1, column 15"),
        ('{"version": "1", "authors": ["x"]}', None, "is an object with 'version', 'authors'; expected a list"),
        ("3", None, "expected a list of objects"),
        (b'[{"text": "caf\xe9"}]', 1, "is not UTF-8 text; it looks like cp1252"),
    ],
)
def test_wrong_json_says_where(tmp_path: Path, content: str | bytes, row: int | None, reason: str) -> None:
    found = problems(put(tmp_path / "t.json", content), need_labels=False)
    assert [at for at, _ in found] == [row]
    assert reason in found[0][1]


def test_json_lines_by_the_name_of_json_are_read_and_that_is_said(tmp_path: Path) -> None:
    path = put(tmp_path / "t.json", "".join(json.dumps(row) + "\n" for row in ROWS))
    assert labelled(path) == FOUND
    assert notes(path) == ["one object a line: read as JSON lines"]
    assert inputs(put(tmp_path / "t.json", json.dumps(ROWS[0]))) == ["one"]
    listed = problems(put(tmp_path / "t.jsonl", json.dumps(ROWS)))
    assert listed[0][1].endswith("; to read a JSON list: --input-format json")


def test_a_list_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = put(tmp_path / "t.json", json.dumps([{"text": f"{at} " + "x" * 500} for at in range(20_000)]))
    next(read_inputs(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_inputs(path)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_training_flag_divides_the_rows() -> None:
    task = read_task(SAMPLES / "ask_ubuntu.json")
    assert task.labels == ("Make Update", "Setup Printer")
    assert (len(task.train) + len(task.validation), len(task.test)) == (8, 4)
    assert "the rows name their subsets (split or training): 8 train, 4 test" in task.notes


@pytest.mark.parametrize("pairs", [True, False])
def test_lists_named_after_subsets_are_the_subsets(tmp_path: Path, pairs: bool) -> None:
    def rows(first: int) -> list[Any]:
        texts = [(f"text {at}", "ab"[at % 2]) for at in range(first, first + 4)]
        return [list(row) if pairs else {"text": row[0], "label": row[1]} for row in texts]

    document = {"train": rows(0), "val": rows(4), "test": rows(8), "oos_test": [["odd", "oos"]]}
    task = read_task(put(tmp_path / "t.json", json.dumps(document)))
    assert [len(subset) for subset in (task.train, task.validation, task.test)] == [4, 4, 4]
    assert task.notes[0] == "rows are read from 'train', 'val', 'test'; not read: oos_test"
    document["test"][1] = {"text": "", "label": "a"} if not pairs else ["", "a"]
    with pytest.raises(DataError, match=r"t\.json \(test\): row 2: empty text"):
        read_task(put(tmp_path / "t.json", json.dumps(document)))


def test_a_list_of_texts_can_be_predicted(tmp_path: Path) -> None:
    assert inputs(put(tmp_path / "t.json", '["one", "two"]')) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.json", '[{"text": "a closed door", "label": "a"}, {"text": "an op'),
        ("test.json", '[{"text": "a closed door", "label": "a"},'),
        ("test.json", '{"data": [{"text": "a closed door", "label": "a"}, '),
        ("test.jsonl", '{"text": "a closed door", "label": "a"}\n{"text": "an op'),
        ("test.yml", "nlu:\n- intent: a\n  examples: |\n    - a closed door\n- intent: b\n  exa"),
    ],
)
def test_a_file_that_was_cut_is_no_row_to_leave_out(tmp_path: Path, name: str, content: str) -> None:
    rows = [{"text": f"row {at}", "label": "ab"[at % 2]} for at in range(6)]
    put(tmp_path / "t" / "train.json", json.dumps(rows))
    put(tmp_path / "t" / name, content)
    report = check_data(tmp_path / "t", quick=True, fix=tmp_path / "clean")
    assert len(report.remaining) == 1
    assert name in report.remaining[0]
    assert not report.left_out
