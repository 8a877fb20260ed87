"""Columns of tokens and tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.data import Span, read_inputs, read_task
from tests.helpers.reading import SAMPLES, labelled, notes, problems, put, row_numbers

WORDS = ["New", "York", "Oslo", "and", "Ada"]
FOUND = [("New York", "LOC"), ("Oslo", "LOC"), ("Ada", "PER")]


def columns(tags: str, line: str = "{word} {tag}") -> str:
    rows = [
        line.format(at=at, word=word, tag=tag)
        for at, (word, tag) in enumerate(zip(WORDS, tags.split(), strict=True), 1)
    ]
    return "\n".join(["-DOCSTART- -X- O O", "", *rows, "", "# text = none", "Nothing O", ""])


@pytest.mark.parametrize(
    "tags",
    [
        "I-LOC I-LOC B-LOC O I-PER",
        "B-LOC I-LOC B-LOC O B-PER",
        "B-LOC E-LOC S-LOC O S-PER",
        "B-LOC L-LOC U-LOC O U-PER",
    ],
)
@pytest.mark.parametrize("line", ["{word} {tag}", "{word}\tNNP\t-\t{tag}", "{at}\t{word}\t_\t{tag}", "{tag}\t{word}"])
def test_schemes_of_tags(tmp_path: Path, tags: str, line: str) -> None:
    path = put(tmp_path / "t.conll", columns(tags, line))
    assert labelled(path) == FOUND
    assert row_numbers(path) == [3, 5, 7]
    example = next(read_inputs(path))
    assert (example.tokens, example.mention) == (tuple(WORDS), Span(0, 2))


def test_types_without_a_prefix_run_as_long_as_they_last(tmp_path: Path) -> None:
    path = put(tmp_path / "t.iob", columns("place-city place-city O O person"))
    assert labelled(path) == [("New York", "place-city"), ("Ada", "person")]


def test_plain_files_are_columns_only_if_the_user_says_so() -> None:
    path = SAMPLES / "fin3.txt"
    assert labelled(path, format="conll")[:2] == [("Silicium de Provence SAS", "ORG"), ("Evergreen Solar Inc", "ORG")]
    ((row, reason),) = problems(path)
    assert row is None
    assert reason == (
        "plain lines have no labels; save texts with labels as CSV (text,label); if its lines are tokens with tags: "
        "--input-format conll"
    )
    assert notes(path) == ["each line is read as a text; if its lines are tokens with tags: --input-format conll"]


def test_a_folder_of_columns_is_a_task(tmp_path: Path) -> None:
    put(tmp_path / "ner" / "train.txt", columns("B-LOC I-LOC B-LOC O B-PER"))
    put(tmp_path / "ner" / "test.txt", columns("O O O B-LOC B-PER").replace("New", "In"))
    task = read_task(tmp_path / "ner", format="conll")
    assert (len(task.train), len(task.test), task.labels) == (3, 2, ("LOC", "PER"))


def test_a_line_without_a_tag_is_a_problem(tmp_path: Path) -> None:
    assert problems(put(tmp_path / "t.conll", "Ada B-PER\nOslo\n")) == [(2, "expected a token and a tag, found 'Oslo'")]
