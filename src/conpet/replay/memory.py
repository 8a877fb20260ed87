"""Replay memory: which past examples are kept, and reading them back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import EllipsisType
from typing import Any

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.data import Example, Task
from conpet.readable import Held, Readable

MEMORY = "memory"
"""Slot of a task version that holds its examples."""


class Split(StrEnum):
    """Which examples of a task."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Remembered:
    """The stored examples of one task; rows are read when asked for.

    Attributes:
        task: The task's name.
        template: The template its examples are read with, or None.
        reader: The memory object of its active version.
    """

    task: str
    template: str | None
    reader: Readable

    def count(self, split: Split) -> int:
        """Return how many examples of a split are kept."""
        return int(self.reader.document("counts")[split])

    def labels(self, split: Split) -> list[str]:
        """Return the label of each example of a split."""
        return [str(example.label) for example in self.examples(split)]

    def states(
        self, backbone: Backbone, split: Split, *, template: str | EllipsisType | None = ..., **reading: Any
    ) -> States:
        """Return the prefix states of the examples of a split."""
        used = self.template if template is ... else template
        return backbone.states(self.examples(split), used, **reading)

    def examples(self, split: Split) -> list[Example]:
        """Read all examples of a split."""
        return [Example.from_json(row) for row in self.reader.rows(split)]

    def chosen(self, split: Split, indices: Sequence[int]) -> list[Example]:
        """Read some examples of a split, in the order given; only they are held in memory."""
        wanted = set(indices)
        found = {index: Example.from_json(row) for index, row in enumerate(self.reader.rows(split)) if index in wanted}
        return [found[index] for index in indices]


def memory_artifact(train: Sequence[Any], validation: Sequence[Any], test: Sequence[Any]) -> Artifact:
    """Return a memory object of rows (see `Example.to_json`) by split."""
    tables = {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}
    return Artifact(
        tables={str(split): rows for split, rows in tables.items()},
        documents={"counts": {str(split): len(rows) for split, rows in tables.items()}},
    )


def remembered_whole(task: Task) -> Remembered:
    """Return all examples of a task that is not stored yet."""
    splits = (task.train, task.validation, task.test)
    artifact = memory_artifact(*([example.to_json() for example in examples] for examples in splits))
    return Remembered(task.name, task.template, Held(artifact))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the replay memory may hold over all tasks; None: no limit.

    Attributes:
        examples: Training examples.
        bytes: Bytes of their JSON lines, UTF-8.
    """

    examples: int | None = None
    bytes: int | None = None

    @property
    def unlimited(self) -> bool:
        """Whether everything is kept."""
        return self.examples is None and self.bytes is None

    def keep(self, rows: Sequence[dict[str, Any]], tasks: int, seed: int) -> list[dict[str, Any]]:
        """Choose what is kept of one task's rows when `tasks` tasks share the memory equally.

        The choice is a uniform sample: each row gets a pseudo-random rank from its content and the seed, and the
        lowest ranks stay. A smaller share later keeps a subset of what is kept now, so nothing is ever read back.
        """
        ranked = sorted(range(len(rows)), key=lambda index: _rank(rows[index], seed))
        if self.examples is not None:
            ranked = ranked[: self.examples // tasks]
        if self.bytes is not None:
            ranked = _within(ranked, [row_bytes(row) for row in rows], self.bytes // tasks)
        return [rows[index] for index in sorted(ranked)]


def row_bytes(row: dict[str, Any]) -> int:
    """Return the size of a stored row."""
    return len(json.dumps(row, ensure_ascii=False).encode()) + 1


def _rank(row: dict[str, Any], seed: int) -> bytes:
    content = json.dumps(row, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(f"{seed}|{content}".encode(), digest_size=16).digest()


def _within(ranked: Sequence[int], sizes: Sequence[int], limit: int) -> list[int]:
    kept, used = [], 0
    for index in ranked:
        used += sizes[index]
        if used > limit:
            break
        kept.append(index)
    return kept
