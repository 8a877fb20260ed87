"""How far reviewers agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from conpet.review.records import Agreement


def agreement_of(items: Iterable[Sequence[str | None]]) -> Agreement:
    """Return the agreement on items, each with the labels that its reviewers gave; None stands for "nothing fits".

    Items with fewer than two labels do not count. Krippendorff's alpha for nominal data is 1 - D/E: D is the share of
    pairs of labels of the same item that differ, E that of pairs over all items.
    """
    pairable = [list(labels) for labels in items if len(labels) > 1]
    if not pairable:
        return Agreement(0, None, None)
    totals: Counter[str | None] = Counter(label for labels in pairable for label in labels)
    number = sum(totals.values())
    differing = sum(_differing(Counter(labels)) / (len(labels) - 1) for labels in pairable) / number
    expected = _differing(totals) / (number * (number - 1))
    return Agreement(len(pairable), 1 - differing, 1 - differing / expected if expected else None)


def _differing(counts: Counter[str | None]) -> int:
    """Return the number of ordered pairs of different labels."""
    number = sum(counts.values())
    return sum(count * (number - count) for count in counts.values())
