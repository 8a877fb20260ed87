"""Which past examples are drawn for replay, under a budget that does not grow with the number of tasks."""

from __future__ import annotations

import random
from collections.abc import Sequence

from conpet.data import Example
from conpet.replay.memory import Remembered, Split


def split_budget(budget: int, *, old_share: float, has_memory: bool) -> tuple[int, int]:
    """Divide one task's example budget into (new, replayed); the sum never grows with the task's index."""
    replayed = round(budget * old_share) if has_memory else 0
    return budget - replayed, replayed


def draw_dynamic(
    memory: Sequence[Remembered], count: int, split: Split, seed: int
) -> list[tuple[Remembered, list[Example]]]:
    """Draw past examples as dynamic replay does: a past task uniformly, then one of its examples uniformly.

    Args:
        memory: The past tasks.
        count: Number of draws (with replacement).
        split: Which examples of a task.
        seed: Seed of the draws.

    Returns:
        Each drawn task with its drawn examples, `count` of them in all (none if no task has any). A task's rows are
        read once, and only if it is drawn, so the number of tasks read is bounded by `count`.
    """
    sources = [one for one in memory if one.count(split)]
    if not sources:
        return []
    generator = random.Random(seed)  # noqa: S311
    draws: dict[int, list[int]] = {}
    for _ in range(count):
        task = generator.randrange(len(sources))
        draws.setdefault(task, []).append(generator.randrange(sources[task].count(split)))
    return [(sources[task], sources[task].chosen(split, draws[task])) for task in sorted(draws)]
