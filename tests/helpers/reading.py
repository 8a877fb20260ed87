"""Reads files as `conpet.read_task` and `conpet predict` do, and returns plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conpet.data import Example, read_inputs, read_task
from conpet.data.files import raw_rows
from conpet.data.raw import Note, RawRow, ReadOptions
from conpet.errors import Problem

SAMPLES = Path(__file__).parents[1] / "data" / "formats" / "samples"


def put(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """Write a file, line ends as given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def labelled(path: Path, **options: Any) -> list[tuple[str, str | None]]:
    """Return the text, or the words of the mention, and the label of each row of a file to learn, in order."""
    examples = read_task(path, all_rows=True, **options).train
    return [(shown(example), example.label) for example in examples]


def inputs(path: Path, **options: Any) -> list[str]:
    """Return the text, or the words of the mention, of each row of a file to predict."""
    return [shown(example) for example in read_inputs(path, **options)]


def shown(example: Example) -> str:
    span = example.mention
    return example.text if span is None else " ".join(example.tokens[span.start : span.end])


def notes(path: Path, **options: Any) -> list[str]:
    """Return the notes of a file."""
    items = raw_rows(path, ReadOptions(**options))
    return [item.text for item in items if isinstance(item, Note)]


def problems(path: Path, *, need_labels: bool = True, **options: Any) -> list[tuple[int | None, str]]:
    """Return the row and reason of what cannot be read in a file."""
    items = raw_rows(path, ReadOptions(**options), labelled=need_labels)
    return [(item.row, item.reason) for item in items if isinstance(item, Problem)]


def row_numbers(path: Path, **options: Any) -> list[int]:
    """Return the number of each row of a file."""
    return [item.row for item in raw_rows(path, ReadOptions(**options)) if isinstance(item, RawRow)]
