"""What a server should have answered, by generation."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.serving_proof.load import Asked, scores_of
from conpet import ConPET

TOLERANCE = 1e-3
"""Largest difference of a score from the one expected: padding in batches changes the order of additions."""
_CLEARLY = 10 * TOLERANCE
_NOT_COPIED = ("workspace.sqlite*", "jobs", "leases", "lock", "owner.json", "scratch", "keys.sqlite*")

Scores = Mapping[str, float]


@dataclass
class Expected:
    """The scores of all labels for each text, by generation.

    Args:
        texts: The texts.
        top_n: Number of labels with each answer.
    """

    texts: Sequence[str]
    top_n: int
    by_generation: dict[int, list[Scores]] = field(default_factory=dict)

    def note(self, workspace: Path) -> int:
        """Compute the answers of a workspace's present generation, and return it."""
        with ConPET.open(workspace) as learner:
            predictions = [one.to_json() for one in learner.predict(self.texts, top_n=self.top_n)]
        (generation,) = {one["generation"] for one in predictions}
        self.by_generation[generation] = [scores_of(one) for one in predictions]
        return int(generation)

    def distinct_changes(self) -> int:
        """Return the number of generations whose answers differ clearly from those of the one before."""
        ordered = [self.by_generation[number] for number in sorted(self.by_generation)]
        return sum(
            any(not _equal(one, other, _CLEARLY) for one, other in zip(former, later, strict=True))
            for former, later in pairwise(ordered)
        )

    def faults(self, asked: Iterable[Asked]) -> Faults:
        """Compare answers with those expected."""
        found = Faults()
        for one in asked:
            found.add(one, self)
        return found


@dataclass
class Faults:
    """What was wrong with answers.

    Attributes:
        answers: Number of answers, the wrong ones included.
        failed: Those that were not 200, with their status.
        mixed: Those in which generations were mixed.
        wrong: Those whose scores are not those of the generation that they name.
        older: Those of them whose scores are those of an older generation.
        outdated: Those from a generation older than one that the client already knew of.
        unknown: Those of a generation that is not known.
    """

    answers: int = 0
    failed: list[int] = field(default_factory=list)
    mixed: int = 0
    wrong: int = 0
    older: int = 0
    outdated: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        """Number of answers with a fault."""
        return len(self.failed) + self.mixed + self.wrong + self.outdated + self.unknown

    def add(self, asked: Asked, expected: Expected) -> None:
        """Take note of an answer."""
        self.answers += 1
        if asked.status != 200:
            self.failed.append(asked.status)
            return
        document = json.loads(asked.body)
        generation = document["generation"]
        self.outdated += generation < asked.least
        if {one["generation"] for one in document["predictions"]} != {generation}:
            self.mixed += 1
        elif generation not in expected.by_generation:
            self.unknown += 1
        elif not _fits(document, asked, expected.by_generation[generation]):
            self.wrong += 1
            former = [number for number in expected.by_generation if number < generation]
            self.older += any(_fits(document, asked, expected.by_generation[number]) for number in former)


def copy_of(workspace: Path, target: Path) -> Path:
    """Copy a workspace that is served but not being changed."""
    shutil.copytree(workspace, target, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    for name in ("leases", "scratch"):
        (target / name).mkdir(exist_ok=True)
    name = "workspace.sqlite"
    with closing(sqlite3.connect(workspace / name)) as source, closing(sqlite3.connect(target / name)) as copy:
        source.backup(copy)
    return target


def _fits(document: dict[str, Any], asked: Asked, expected: Sequence[Scores]) -> bool:
    first, size = asked.texts
    wanted = [expected[(first + offset) % len(expected)] for offset in range(size)]
    return all(
        _equal(scores_of(one), other, TOLERANCE) for one, other in zip(document["predictions"], wanted, strict=True)
    )


def _equal(one: Scores, other: Scores, tolerance: float) -> bool:
    """Return whether scores are equal; a label that is missing among the best has the score 0."""
    return all(abs(one.get(label, 0.0) - other.get(label, 0.0)) <= tolerance for label in one.keys() | other.keys())
