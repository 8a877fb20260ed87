"""Tasks (new labels with their examples) and task streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, overload

from conpet.data.checks import Located, check_rows, check_stream, check_task_template, is_unicode, locate
from conpet.data.example import Example, Kind, digest_examples
from conpet.data.rows import RowError, to_example
from conpet.errors import DataError, Problem

LABELS = "labels"
"""Name of the head over labels."""


@dataclass(frozen=True, slots=True)
class Task:
    """New labels and their examples; checked on construction.

    Attributes:
        name: The task's name, unique within a workspace.
        train: Training examples, with at least two labels.
        validation: Held-out examples for all choices made in training (may be empty).
        test: Examples used only for metrics (may be empty).
        template: A template instead of the default of the kind (see `conpet.data.templates`), or None.
        settings: Overrides of the workspace's task-level settings for this task.
        notes: Notes of the reader for the user, for example on sets split off.
        left_out: The rows that a fix left out or changed: file, row, action, code and reason of each, without text.
    """

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    template: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[Mapping[str, Any], ...] = ()
    _digest: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DataError(f"a task is named by text, not {self.name!r:.60}")
        _convert(self, f"task {self.name!r}", f"task {self.name!r} cannot be learned; nothing changed")
        problems = check_task(self)
        if problems:
            raise DataError(f"task {self.name!r} cannot be learned; nothing changed", problems)

    @property
    def head(self) -> str:
        """Name of the task's head: "labels" unless its settings name another."""
        section = self.settings.get("head", self.settings.get("head.name", LABELS))
        return str(section.get("name", LABELS)) if isinstance(section, Mapping) else str(section)

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels, sorted; empty if its head is not the label head."""
        if self.head != LABELS:
            return ()
        return tuple(sorted({example.label for example in self.train if example.label is not None}))

    @property
    def kind(self) -> Kind:
        """The kind of the task's examples."""
        return self.train[0].kind

    @property
    def digest(self) -> str:
        """Hex digest of examples, template and settings; ids, notes and rows left out are ignored."""
        if self._digest:
            return self._digest[0]
        parts = {
            "train": digest_examples(self.train),
            "validation": digest_examples(self.validation),
            "test": digest_examples(self.test),
            "template": self.template,
            "settings": dict(self.settings),
        }
        self._digest.append(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest())
        return self._digest[0]


@dataclass(frozen=True, slots=True)
class Examples:
    """Further labelled examples for known tasks; checked on construction.

    Attributes:
        train: Training examples.
        validation: Held-out examples for choices made in training.
        test: Examples used only for metrics.
        left_out: Rows of the same files that a fix left out or changed, as in `Task`, each with its label.
        places: File and row of each example by subset, if they were read from files.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    left_out: tuple[Mapping[str, Any], ...] = ()
    places: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        _convert(self, "examples", "the examples cannot be learned; nothing changed")
        problems = check_rows("examples", _located("examples", self), whole=False)
        if problems:
            raise DataError("the examples cannot be learned; nothing changed", problems)

    @classmethod
    def of_rows(cls, subsets: Mapping[str, Sequence[Located]], left_out: Sequence[Mapping[str, Any]] = ()) -> Self:
        """Return the examples of rows of files."""
        examples = {subset: tuple(row.example for row in rows) for subset, rows in subsets.items()}
        places = {subset: [(row.file, row.row) for row in rows] for subset, rows in subsets.items()}
        return cls(**examples, left_out=tuple(left_out), places=places)

    def place(self, subset: str, position: int) -> tuple[str, int]:
        """Return file and row of an example, or what stands for them."""
        rows = self.places.get(subset, ())
        return rows[position] if position < len(rows) else (f"examples ({subset})", position + 1)

    def located(self, subset: str) -> list[Located]:
        """Return the examples of a subset with file and row."""
        return [Located(*self.place(subset, at), example) for at, example in enumerate(getattr(self, subset))]


@dataclass(frozen=True, slots=True)
class MixedExamples:
    """Examples of known and new labels.

    Attributes:
        name: Name of the task that the new labels become.
        examples: The examples.
        template: The template of that task instead of the default of its kind, or None.
        settings: Overrides of the workspace's task-level settings for that task.
    """

    name: str
    examples: Examples
    template: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def _convert(owner: Task | Examples, source: str, summary: str) -> None:
    """Turn the subsets into tuples of examples, whole numbers as labels into text.

    Raises:
        DataError: An item is no example, or its label is not text.
    """
    problems = []
    for subset in ("train", "validation", "test"):
        examples, given = [], getattr(owner, subset)
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            problems.append(Problem(f"{source} ({subset})", None, f"is {given!r:.60}; give a list of examples"))
            continue
        for row, item in enumerate(given, start=1):
            try:
                examples.append(to_example(item))
            except RowError as error:
                problems.append(Problem(f"{source} ({subset})", row, str(error)))
        object.__setattr__(owner, subset, tuple(examples))
    if problems:
        raise DataError(summary, problems)


def check_task(task: Task) -> list[Problem]:
    """List the problems of a task. The readers apply the same checks to the rows of files."""
    source = f"task {task.name!r}"
    problems = [] if task.name.strip() else [Problem(source, None, "a task needs a name")]
    if not is_unicode(task.name):
        problems.append(Problem(source, None, "its name is not valid Unicode; give it another one (--name)"))
    if task.train:
        problems += check_task_template(source, task.template, task.train[0].kind)
    return problems + check_rows(source, _located(source, task), labels=task.head == LABELS)


def _located(source: str, task: Task | Examples) -> dict[str, list[Located]]:
    subsets = {"train": task.train, "validation": task.validation, "test": task.test}
    return {subset: locate(f"{source} ({subset})", examples) for subset, examples in subsets.items()}


@dataclass(frozen=True, slots=True)
class TaskStream(Sequence[Task]):
    """Tasks in the order in which they are learned; names and labels are distinct.

    Args:
        tasks: The tasks.
    """

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        problems = check_stream(
            (
                (task.name, _located(f"task {task.name!r}", task)["train"] if task.head == LABELS else [])
                for task in self.tasks
            ),
            owned={},
        )
        if problems:
            raise DataError("the stream cannot be learned; nothing changed", problems)

    @property
    def digest(self) -> str:
        """Hex digest of the names and contents of all tasks, in order."""
        return hashlib.sha256(json.dumps([[task.name, task.digest] for task in self.tasks]).encode()).hexdigest()

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> TaskStream: ...

    def __getitem__(self, index: int | slice) -> Task | TaskStream:
        return TaskStream(self.tasks[index]) if isinstance(index, slice) else self.tasks[index]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)
