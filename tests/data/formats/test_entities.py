"""Rows that list their entities, as doccano and Prodigy export them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from conpet import read_task
from conpet.data import Kind, Task, read_inputs
from conpet.errors import DataError
from tests.helpers.reading import inputs, labelled, put, shown

TEXT = "Ada met Bob.\nThey went to Oslo."
FOUND = [("Ada", "PER"), ("Bob", "PER"), ("Oslo", "LOC")]
TRIPLES = [[0, 3, "PER"], [8, 11, "PER"], [26, 30, "LOC"]]
OBJECTS = [
    {"id": at, "start_offset": start, "end_offset": end, "label": kind} for at, (start, end, kind) in enumerate(TRIPLES)
]
SPANS = [{"start": start, "end": end, "label": kind, "text": TEXT[start:end]} for start, end, kind in TRIPLES]


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    return put(path, "".join(json.dumps(row) + "\n" for row in rows))


def learned(path: Path, **options: Any) -> Task:
    return read_task(path, all_rows=True, **options)


def notes(path: Path) -> list[str]:
    return [note.removeprefix(f"{path.name}: ") for note in learned(path).notes]


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "label": TRIPLES},
        {"id": 7, "data": TEXT, "labels": TRIPLES},
        {"text": TEXT, "entities": TRIPLES, "Comments": []},
        {"text": TEXT, "entities": OBJECTS, "relations": []},
        {"text": TEXT, "spans": SPANS, "answer": "accept", "_input_hash": 1, "tokens": [{"text": "Ada"}]},
    ],
)
@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_each_entity_is_an_example(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    path = put(tmp_path / name, json.dumps(row if name == "t.jsonl" else [row]))
    assert labelled(path) == FOUND
    assert notes(path) == ["3 examples: the entities of 1 row"]


def test_an_example_holds_the_lines_of_its_entity_and_the_id_of_its_row(tmp_path: Path) -> None:
    task = learned(lines(tmp_path / "t.jsonl", {"text": TEXT, "label": TRIPLES, "id": "d1"}))
    assert task.kind is Kind.TYPING
    assert [" ".join(one.tokens) for one in task.train] == ["Ada met Bob.", "Ada met Bob .", "They went to Oslo ."]
    assert {one.id for one in task.train} == {"d1"}


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "t.jsonl",
        {"text": "Nobody.", "label": []},
        {"text": TEXT, "label": TRIPLES, "relations": [{"from_id": 0, "to_id": 1, "type": "met"}]},
        {"text": "Nothing.", "label": []},
        {"text": TEXT, "spans": SPANS, "answer": "reject"},
        {"text": TEXT, "spans": SPANS, "answer": "ignore"},
    )
    assert labelled(path) == FOUND
    assert notes(path) == [
        "3 examples: the entities of 3 rows; left out: 2 rows without entities, 2 rows with the answer reject or "
        "ignore, 1 relation"
    ]
    texts = lines(
        tmp_path / "texts.jsonl",
        {"text": "open?", "label": "hours", "answer": "accept", "spans": SPANS[:1]},
        {"text": "how much?", "label": "fee", "answer": "accept"},
        {"text": "closed?", "label": "hours", "answer": "reject"},
    )
    assert labelled(texts) == [("open?", "hours"), ("how much?", "fee")]
    assert notes(texts) == ["left out: 1 row with the answer reject or ignore"]
    assert inputs(texts) == ["open?", "how much?", "closed?"]


@pytest.mark.parametrize(
    ("entity", "reason"),
    [
        ([0, "PER"], "entity 1 is [0, 'PER']; expected [start, end,"),
        ([0, 3, ""], "entity 1 is [0, 3, '']"),
        ([0, 300, "PER"], "mention span 0:300 is outside the 31 characters of the text"),
        ({"start": 0, "end": 2, "label": "PER", "text": "Ada"}, "mention span 0:2 is 'Ad' in the text, not 'Ada'"),
    ],
)
def test_a_wrong_entity_is_named(tmp_path: Path, entity: Any, reason: str) -> None:
    path = lines(tmp_path / "t.jsonl", {"text": TEXT, "label": [entity]}, {"text": TEXT, "label": TRIPLES})
    with pytest.raises(DataError) as refused:
        learned(path)
    (problem,) = refused.value.problems
    assert (problem.row, reason in problem.reason) == (1, True)


def test_other_lists_are_no_entities(tmp_path: Path) -> None:
    cards = {"text": "my card", "intent": "cards", "entities": []}
    intents = lines(tmp_path / "a.jsonl", {"text": "to Oslo", "intent": "travel", "entities": [[3, 7, "LOC"]]}, cards)
    assert labelled(intents) == [("to Oslo", "travel"), ("my card", "cards")]
    assert inputs(lines(tmp_path / "b.jsonl", {"text": "to Oslo", "entities": [[3, 7, "LOC"]]})) == ["to Oslo"]
    lists = lines(
        tmp_path / "c.jsonl", {"text": "to Oslo", "label": ["travel"]}, {"text": "my card", "label": ["cards"]}
    )
    assert labelled(lists) == [("to Oslo", "travel"), ("my card", "cards")]
    with pytest.raises(DataError, match="row 1: missing label"):
        learned(lines(tmp_path / "d.jsonl", {"text": "a", "label": []}, {"text": "b", "label": "x"}))


def test_the_column_of_a_list_can_be_named_and_its_ends_can_be_inclusive(tmp_path: Path) -> None:
    inclusive = [[start, end - 1, kind] for start, end, kind in TRIPLES]
    path = lines(tmp_path / "t.jsonl", {"words": TEXT, "marks": inclusive, "label": "x"})
    columns = {"text": "words", "label": "marks"}
    assert labelled(path, columns=columns, inclusive_ends=True) == FOUND
    assert [shown(one) for one in read_inputs(path, columns=columns, inclusive_ends=True)] == ["Ada", "Bob", "Oslo"]


@pytest.mark.parametrize("write_cell", [json.dumps, repr, lambda found: repr([tuple(one) for one in found])])
@pytest.mark.parametrize("column", ["label", "entities"])
def test_a_cell_of_a_table_lists_entities_as_json_or_as_python_writes_them(
    tmp_path: Path, write_cell: Callable[[Any], str], column: str
) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text", column], [7, TEXT, write_cell(TRIPLES)], [8, "none here", "[]"]])
    assert labelled(path) == FOUND
    assert {one.id for one in learned(path).train} == {"7"}
    assert notes(path) == ["3 examples: the entities of 2 rows; left out: 1 row without entities"]


def test_the_column_of_entities_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    spans = [{"start": start, "end": end, "type": kind, "entity": TEXT[start:end]} for start, end, kind in TRIPLES]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["ingredients", "marked"], [TEXT, json.dumps(spans)]])
    columns = {"text": "ingredients", "label": "marked"}
    assert labelled(path, columns=columns) == FOUND
    assert inputs(path, columns={"text": "ingredients"}) == [TEXT]


def test_a_parquet_file_lists_entities(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    spans = [{"start": start, "end": end, "label": kind} for start, end, kind in TRIPLES]
    pyarrow.parquet.write_table(pyarrow.table({"text": [TEXT], "entities": [spans]}), path)
    assert labelled(path) == FOUND


def test_a_table_without_lists_still_needs_a_column_of_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column named label"):
        read_task(put(tmp_path / "t.csv", "text,entities\nAda ran,none\n"))
