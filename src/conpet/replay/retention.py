"""Retention: which training examples stay when the replay memory has no room for all.

Limits apply to all stored versions of all tasks, including inactive ones, because they can be rolled back to. When its
share shrinks, a retention keeps a subset of what it kept before, so a dropped example is never needed again.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from torch import Tensor

from conpet.replay.kmeans import nearest_to_centres
from conpet.replay.memory import StoredExamples, Subset


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the replay memory may hold; None means no limit.

    Attributes:
        examples: Training examples of all tasks together.
        bytes: Size of all training examples: of JSON lines in UTF-8, or of prefix states in latent-only mode.
        per_label: Training examples of each label.
    """

    examples: int | None = None
    bytes: int | None = None
    per_label: int | None = None

    @property
    def unlimited(self) -> bool:
        """Whether all examples are kept."""
        return not self.shared and self.per_label is None

    @property
    def shared(self) -> bool:
        """Whether tasks share a limit, so that older ones must make room for new ones."""
        return self.examples is not None or self.bytes is not None


class Row(NamedTuple):
    """A stored training example: index of its holding, row in it, pseudo-random rank, label, and size in bytes."""

    holding: int
    position: int
    rank: bytes
    label: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """The stored training examples of one version.

    Attributes:
        labels: Labels of the n examples.
        ranks: Pseudo-random ranks, derived from the input and the workspace's seed.
        sizes: Sizes in bytes.
        representations: Representations for k-means `[n, R]`, or None.
    """

    labels: Sequence[str]
    ranks: Sequence[bytes]
    sizes: Sequence[int]
    representations: Tensor | None = None

    @classmethod
    def of(cls, memory: StoredExamples, seed: int, *, represented: bool) -> Self:
        """Read what retention needs from a memory object."""
        rows = list(memory.stored_rows())
        return cls(
            memory.labels(Subset.TRAIN),
            [hashlib.blake2b(f"{seed}|".encode() + row.content, digest_size=16).digest() for row in rows],
            [row.size for row in rows],
            memory.representations if represented else None,
        )


class Retention(ABC):
    """Chooses the training examples that a workspace keeps.

    Args:
        limits: Limits of the replay memory.
        seed: Seed of the workspace.
    """

    name: ClassVar[str]
    needs_representations: ClassVar[bool] = False

    def __init__(self, limits: Limits, seed: int) -> None:
        self.limits = limits
        self.seed = seed

    @abstractmethod
    def keep(self, holdings: Sequence[Holding]) -> list[list[int]]:
        """Return the rows that stay of each holding, ascending."""

    def _fitting(self, ordered: Iterable[Row]) -> list[Row]:
        """Return the longest prefix of the rows that fits the limits."""
        kept: list[Row] = []
        used = 0
        for row in ordered:
            used += row.size
            full = self.limits.examples is not None and len(kept) == self.limits.examples
            if full or (self.limits.bytes is not None and used > self.limits.bytes):
                break
            kept.append(row)
        return kept


class Reservoir(Retention):
    """Keeps every example with equal probability, so the shares of tasks are proportional to their sizes.

    Each example has a pseudo-random rank from its input and the seed; the lowest ranks are kept. A limit in bytes is
    used up to within one example.
    """

    name = "reservoir"

    def keep(self, holdings: Sequence[Holding]) -> list[list[int]]:
        """Return the rows that stay of each holding, ascending."""
        return _by_holding(self._fitting(sorted(_rows(holdings), key=lambda row: row.rank)), len(holdings))


class ClassBalanced(Retention):
    """Keeps the same number of examples for each label of each version (or all it has), a uniform sample of each label.

    The first example (by rank) of every label comes first, then the second of every label, and so on; the memory holds
    as many as fit, in this order.
    """

    name = "class-balanced"

    def keep(self, holdings: Sequence[Holding]) -> list[list[int]]:
        """Return the rows that stay of each holding, ascending."""
        return _by_holding(self._balanced(holdings), len(holdings))

    def _balanced(self, holdings: Sequence[Holding]) -> list[Row]:
        ordered = []
        for rows in _by_label(_rows(holdings)):
            rows.sort(key=lambda row: row.rank)
            ordered += list(enumerate(rows[: self.limits.per_label]))
        ordered.sort(key=lambda item: (item[0], item[1].rank))
        return self._fitting(row for _, row in ordered)


class KMeans(ClassBalanced):
    """Keeps as many examples per label as `class-balanced`, but the most representative ones (Wang et al. 2019, EMR).

    For each label of a version, k-means clusters the representations, with its share as k, and the example nearest to
    each centre is kept. When the share shrinks, the kept examples are clustered again.
    """

    name = "k-means"
    needs_representations = True

    def keep(self, holdings: Sequence[Holding]) -> list[list[int]]:
        """Return the rows that stay of each holding, ascending."""
        shares = {(rows[0].holding, rows[0].label): len(rows) for rows in _by_label(self._balanced(holdings))}
        chosen: list[Row] = []
        for rows in _by_label(_rows(holdings)):
            share = shares.get((rows[0].holding, rows[0].label), 0)
            chosen += self._central(rows, share, holdings[rows[0].holding].representations)
        chosen.sort(key=lambda row: row.rank)
        return _by_holding(
            self._fitting(chosen), len(holdings)
        )  # the chosen examples may take more bytes than the balanced ones

    def _central(self, rows: Sequence[Row], share: int, representations: Tensor | None) -> list[Row]:
        assert representations is not None, "k-means was given no representations"  # noqa: S101
        points = representations[[row.position for row in rows]]
        return [rows[index] for index in nearest_to_centres(points, share, self.seed)]


def _rows(holdings: Sequence[Holding]) -> list[Row]:
    return [
        Row(number, position, *row)
        for number, holding in enumerate(holdings)
        for position, row in enumerate(zip(holding.ranks, holding.labels, holding.sizes, strict=True))
    ]


def _by_label(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows by version and label."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.holding, row.label), []).append(row)
    return list(groups.values())


def _by_holding(rows: Iterable[Row], holdings: int) -> list[list[int]]:
    kept: list[list[int]] = [[] for _ in range(holdings)]
    for row in rows:
        kept[row.holding].append(row.position)
    return [sorted(positions) for positions in kept]
