"""What the readers of file formats yield, and the options they read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from conpet.errors import Problem

SUBSET_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""The subset that a name stands for: of a file, of a list in a JSON file, or in a row's field `split`."""


def named_subset(fields: Mapping[str, Any]) -> str | None:
    """Return the subset that a row names by `split`, or by a flag `training`."""
    if isinstance(flag := fields.get("training"), bool):
        return "train" if flag else "test"
    name = fields.get("split")
    return SUBSET_NAMES.get(name.strip().lower()) if isinstance(name, str) else None


class RawRow(NamedTuple):
    """A row of a file.

    Attributes:
        row: Its number as the user sees it, counted from 1 (the header of a CSV is row 1; the line in text formats).
        fields: Its fields by name.
        file: The file, if it is one of several in the folder that is read.
    """

    row: int
    fields: dict[str, Any]
    file: str | None = None


class BrokenRow(NamedTuple):
    """A row of a table with more or fewer cells than the header.

    Attributes:
        problem: What is wrong with it.
        cells: Its cells.
    """

    problem: Problem
    cells: list[str]


class Header(NamedTuple):
    """The columns of a table; yielded before its rows.

    Attributes:
        row: The row of the header, or None if the format has none.
        names: The names of the columns.
    """

    row: int | None
    names: list[str]


class Note(NamedTuple):
    """What a user should know about how a file was read, although nothing is wrong.

    Attributes:
        file: The file.
        text: The note.
    """

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


RawItem = RawRow | BrokenRow | Header | Problem | Note


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read files.

    Attributes:
        columns: The column of each field, if it has another name: {"text": "utterance"}. Positions, counted from 1,
            mean that the file has no header.
        encoding: Encoding of text files that are neither UTF-8 nor UTF-16 with a byte order mark.
        format: Name of the file format, if it does not follow from the file's name.
        inclusive_ends: Whether the end of a span is its last token or character, not the position after it.
        sheet: Name of the sheet of an Excel workbook, or its number, counted from 1.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    format: str | None = None
    inclusive_ends: bool = False
    sheet: str | int | None = None

    @property
    def positions(self) -> bool:
        """Whether columns are given by their positions: all are numbers."""
        return bool(self.columns) and all(str(column).isdecimal() for column in self.columns.values())
