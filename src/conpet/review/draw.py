"""Draw recorded predictions for review: at random, so that their accuracy can be estimated, and those in doubt."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from conpet.review.records import ItemKind
from conpet.store.prediction_log import Drawable

SURE, UNCERTAIN, DECLINED = "sure", "uncertain", "declined"
"""Strata of recorded predictions; those of which no more are drawn than of all belong to the first."""


class Picked(NamedTuple):
    """A drawn entry: why, its place in the random order, its stratum and number."""

    kind: ItemKind
    position: int
    stratum: str
    entry: int


@dataclass(frozen=True, slots=True)
class Pick:
    """What was drawn.

    Attributes:
        picked: The entries.
        sizes: Number of entries by stratum.
        last: Number of the last entry that was seen; 0 without any.
        since: When the first entry was recorded, in seconds since 1970.
        until: When the last one was recorded.
        unreadable: Number of entries without their input.
        unlabelled: Number of entries without a label.
    """

    picked: tuple[Picked, ...]
    sizes: Mapping[str, int]
    last: int
    since: float
    until: float
    unreadable: int
    unlabelled: int


def stratum_of(decision: str, confidence: float | None, below: float) -> str:
    """Return the stratum of an answer."""
    if decision == "decline":
        return DECLINED
    return UNCERTAIN if decision == "ask" or (confidence or 0.0) < below else SURE


@dataclass(slots=True)
class _Smallest:
    """The entries with the smallest random keys: a random sample, in a random order."""

    most: int
    heap: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, key: float, entry: int, stratum: str) -> None:
        item = (-key, entry, stratum)
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, item)
        elif self.most and item > self.heap[0]:
            heapq.heapreplace(self.heap, item)

    def in_order(self) -> list[tuple[int, str]]:
        return [(entry, stratum) for _, entry, stratum in sorted(self.heap, reverse=True)]


def pick(entries: Iterable[Drawable], wanted: Mapping[ItemKind, int], below: float, generator: Random) -> Pick:
    """Draw entries without replacement, in one pass and constant memory.

    The random ones are drawn from all entries, and uncertain and declined ones from the others of their stratum. So
    what is drawn of a stratum is a random sample of it, whatever its size.

    Args:
        entries: The entries.
        wanted: How many of each kind.
        below: Confidence below which an answer is uncertain.
        generator: Source of randomness.
    """
    everything = wanted[ItemKind.RANDOM]
    of_all = _Smallest(everything)
    # As many more as the random ones may take.
    of_stratum = {
        UNCERTAIN: _Smallest(wanted[ItemKind.UNCERTAIN] and wanted[ItemKind.UNCERTAIN] + everything),
        DECLINED: _Smallest(wanted[ItemKind.DECLINED] and wanted[ItemKind.DECLINED] + everything),
    }
    sizes: Counter[str] = Counter()
    last, since, until, unreadable, unlabelled = 0, 0.0, 0.0, 0, 0
    for one in entries:
        last, until = one.id, one.time
        since = since or one.time
        if not one.labelled:
            unlabelled += 1
        elif not one.readable:
            unreadable += 1
        else:
            stratum = stratum_of(one.decision, one.confidence, below)
            if stratum in of_stratum and not of_stratum[stratum].most:
                stratum = SURE  # no more of them are drawn than of the others
            sizes[stratum] += 1
            of_all.add(generator.random(), one.id, stratum)
            if stratum in of_stratum:
                of_stratum[stratum].add(generator.random(), one.id, stratum)
    picked = [Picked(ItemKind.RANDOM, at, stratum, entry) for at, (entry, stratum) in enumerate(of_all.in_order())]
    taken = {one.entry for one in picked}
    for kind, stratum in ((ItemKind.UNCERTAIN, UNCERTAIN), (ItemKind.DECLINED, DECLINED)):
        left = [entry for entry, _ in of_stratum[stratum].in_order() if entry not in taken]
        picked += [Picked(kind, at, stratum, entry) for at, entry in enumerate(left[: wanted[kind]])]
    return Pick(tuple(picked), dict(sizes), last, since, until, unreadable, unlabelled)
