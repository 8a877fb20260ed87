"""The rows of tasks to check, and those stored in a workspace."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from conpet.data.checks import Located
from conpet.data.example import Example, Kind
from conpet.data.labelled import SUBSETS
from conpet.errors import Problem

TRAIN, VALIDATION, TEST = SUBSETS
_PUNCTUATION = {
    code: None if chr(code) in "'\u2019" else " "
    for code in range(0x10000)
    if unicodedata.category(chr(code))[0] == "P"
}
"""Punctuation becomes a blank, apostrophes nothing. Symbols, such as emoji and "+", tell texts apart."""


ANY_TASK = "TASK"


class Mode(StrEnum):
    """What learning rows makes of the labels that a workspace knows.

    Attributes:
        NEW: All labels are new: the rows become a task, or a new version of the task of the same name.
        EXTEND: All labels are known: the rows are added to their tasks (`learn --extend`).
        MIXED: Rows of known labels are added to their tasks, and new labels become a task (`learn --mixed`).
    """

    NEW = "new"
    EXTEND = "extend"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A labelled row; two rows are equal only if they are the same object.

    Attributes:
        task: Name of its task.
        subset: Its subset.
        file: Path of its file, or a description.
        number: Row number counted from 1, or the index among the stored examples of a workspace, counted from 1.
        example: The example.
        stored: Whether a workspace holds it already, so that it cannot be changed.
        origin: The row as it was read, if this is a changed one.
    """

    task: str
    subset: str
    file: str
    number: int
    example: Example
    stored: bool = False
    origin: Row | None = None

    @property
    def label(self) -> str:
        """The label; empty if it is missing."""
        return self.example.label or ""

    def place_from(self, other: Row) -> str:
        """Return where the row is, for messages about another row."""
        if self.stored:
            return f"stored {self.subset} example {self.number} of task {self.task!r}"
        return f"row {self.number}" if self.file == other.file else f"row {self.number} of {self.file}"

    @property
    def located(self) -> Located:
        """The row as the checks of the readers take it."""
        return Located(self.file, self.number, self.example)

    def with_example(self, example: Example) -> Row:
        """Return the row with another example."""
        return replace(self, example=example, origin=self.as_read)

    @property
    def as_read(self) -> Row:
        """The row as it was read."""
        return self.origin or self


@dataclass(frozen=True, slots=True)
class TaskRows:
    """The rows of a task.

    Attributes:
        name: The task's name.
        source: Path of its file or folder.
        subsets: Its rows by subset; a subset without a file is missing.
        template: The task's own template, or None.
        labelled: Whether the targets are labels.
        problems: Rows that cannot be read, and errors of the files themselves.
        notes: Notes of the readers.
        mode: How its labels are learned.
        owners: The labels that are known when it is learned, with the names of their tasks; empty for a new task.
        into: The known task that its new labels are added to, `ANY_TASK` if it is still to be named, or None.
    """

    name: str
    source: str
    subsets: dict[str, list[Row]]
    template: str | None = None
    labelled: bool = True
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    mode: Mode = Mode.NEW
    owners: Mapping[str, str] = field(default_factory=dict)
    into: str | None = None

    @property
    def rows(self) -> Iterator[Row]:
        """All rows."""
        for rows in self.subsets.values():
            yield from rows

    @property
    def kind(self) -> Kind | None:
        """The kind of its first training example."""
        return next((row.example.kind for row in self.subsets.get(TRAIN, ())), None)

    @property
    def of_new_labels(self) -> TaskRows:
        """The task without the rows of known labels, and without rows that lack a label."""
        if self.mode is Mode.NEW:
            return self
        subsets = {
            subset: [row for row in rows if row.label and row.label not in self.owners]
            for subset, rows in self.subsets.items()
        }
        return replace(self, subsets=subsets)

    @property
    def known_tasks(self) -> list[str]:
        """The names of the tasks that own its known labels, sorted."""
        return sorted({self.owners[row.label] for row in self.rows if row.label in self.owners})


@dataclass(frozen=True, slots=True)
class Data:
    """What is checked: tasks in the order in which they are learned, against the stored rows of a workspace.

    Attributes:
        source: What was checked, for the report.
        tasks: The tasks.
        stored: Rows of the workspace, except those of tasks that are learned anew; the labels of test rows are hidden
            (None).
        owners: The workspace's labels with the names of their tasks, except tasks that are learned anew.
        problems: Errors of the whole source.
    """

    source: str
    tasks: tuple[TaskRows, ...]
    stored: tuple[Row, ...] = ()
    owners: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def new_tasks(self) -> tuple[TaskRows, ...]:
        """What becomes new tasks, without rows of known labels."""
        new = (task.of_new_labels for task in self.tasks)
        return tuple(task for task in new if task.mode is Mode.NEW or any(task.rows))

    @property
    def rows(self) -> list[Row]:
        """All rows to check."""
        return [row for task in self.tasks for row in task.rows]

    def with_rows(self, changed: dict[Row, Row | None]) -> Data:
        """Return the data with rows replaced, or left out where the new row is None."""

        def renewed(rows: Iterable[Row]) -> list[Row]:
            return [new for row in rows if (new := changed.get(row, row)) is not None]

        tasks = tuple(
            replace(task, subsets={subset: renewed(rows) for subset, rows in task.subsets.items()})
            for task in self.tasks
        )
        return replace(self, tasks=tasks)


def input_identity(example: Example) -> tuple[Any, ...]:
    """Return what makes two inputs the same: everything that is encoded, apart from blanks between words."""
    spans = (example.head, example.tail, example.mention)
    return (example.kind, " ".join(example.text.split()), example.tokens, *spans)


def plain(text: str) -> str:
    """Return a text without case, width, punctuation and repeated blanks, for comparing texts that are nearly equal."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_PUNCTUATION).split()) or " ".join(folded.split())


def by_label(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return rows by label, in order; rows without a label are left out."""
    labels: dict[str, list[Row]] = {}
    for row in rows:
        if row.label.strip():
            labels.setdefault(row.label, []).append(row)
    return labels
