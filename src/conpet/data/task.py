"""A task (new labels with their examples) and a stream of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from conpet.data.checks import Located, check_rows, check_stream, check_task_template, locate
from conpet.data.example import Example, Kind, digest_examples
from conpet.errors import DataError, Problem

LABELS = "labels"
"""Name of the head over labels."""


@dataclass(frozen=True, slots=True)
class Task:
    """New labels and their examples; checked when built.

    Attributes:
        name: The task's name, unique within a workspace.
        train: Examples to learn from; at least two labels between them.
        validation: Held-out examples for every choice made in training (may be empty).
        test: Examples for the metrics alone (may be empty).
        template: A template in place of the kind's own (see `conpet.data.templates`), or None.
        settings: Overrides of the workspace's task-level settings for this task.
        notes: What the reader did to the data that the user should know (a split made, say).
    """

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    template: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _digest: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for subset in ("train", "validation", "test"):
            object.__setattr__(self, subset, tuple(getattr(self, subset)))
        problems = check_task(self)
        if problems:
            raise DataError(f"task {self.name!r} cannot be learned; nothing was changed", problems)

    @property
    def head(self) -> str:
        """Name of the head the task ends in: "labels" unless its settings name another."""
        given = self.settings.get("head", self.settings.get("head.name", LABELS))
        return str(given.get("name", LABELS)) if isinstance(given, Mapping) else str(given)

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels, sorted; none where it ends in another head than one over labels."""
        if self.head != LABELS:
            return ()
        return tuple(sorted({example.label for example in self.train if example.label is not None}))

    @property
    def kind(self) -> Kind:
        """What the task's examples ask."""
        return self.train[0].kind

    @property
    def digest(self) -> str:
        """Hex digest of everything that is learned from: examples, template, settings. Ids and notes do not count."""
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
    """Labelled examples for tasks that are learned already; checked when built.

    Attributes:
        train: Examples to learn from.
        validation: Held-out examples for choices.
        test: Held-out examples for the metrics.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        for subset in ("train", "validation", "test"):
            object.__setattr__(self, subset, tuple(getattr(self, subset)))
        problems = check_rows("examples", _located("examples", self), whole=False)
        if problems:
            raise DataError("the examples cannot be learned from; nothing was changed", problems)


def check_task(task: Task) -> list[Problem]:
    """List what makes a task impossible to learn from; the readers apply the same checks to rows of files."""
    source = f"task {task.name!r}"
    problems = [] if task.name.strip() else [Problem(source, None, "a task needs a name")]
    if task.train:
        problems += check_task_template(source, task.template, task.train[0].kind)
    return problems + check_rows(source, _located(source, task), labels=task.head == LABELS)


def _located(source: str, task: Task | Examples) -> dict[str, list[Located]]:
    subsets = {"train": task.train, "validation": task.validation, "test": task.test}
    return {subset: locate(f"{source} ({subset})", examples) for subset, examples in subsets.items()}


@dataclass(frozen=True, slots=True)
class TaskStream(Sequence[Task]):
    """Tasks in the order they are to be learned; names and labels are disjoint.

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
            raise DataError("the stream cannot be learned; nothing was changed", problems)

    @property
    def digest(self) -> str:
        """Hex digest of all that is learned from, and in which order."""
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
