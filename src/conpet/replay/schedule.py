"""Which past examples are drawn, under a budget that does not grow with the number of tasks."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.backbone.backbone import Backbone
from conpet.config import ScheduleConfig
from conpet.replay import SCHEDULES
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Budget, Rehearsal

OLD_SHARE = 0.5
"""Share of a batch that is old examples, where there are any (Song et al. 2023, section 3.2)."""


def divide_budget(budget: int, *, old_share: float, has_memory: bool) -> tuple[int, int]:
    """Divide one task's example budget into (new, replayed); the sum never grows with the task's index."""
    replayed = round(budget * old_share) if has_memory else 0
    return budget - replayed, replayed


def rehearse(
    memory: Sequence[StoredExamples],
    backbone: Backbone,
    *,
    schedule: ScheduleConfig,
    steps: int,
    per_step: int,
    seed: int,
) -> Rehearsal | None:
    """Prepare past examples for the training of one task.

    Args:
        memory: The past tasks.
        backbone: The frozen model.
        schedule: Name and settings of a schedule.
        steps: Optimiser steps.
        per_step: Past examples in each batch (see `divide_budget`).
        seed: Seed of what is drawn.

    Returns:
        The rehearsal, or None if there is nothing old or no room for it.
    """
    sources = [one for one in memory if one.count(Subset.TRAIN)]
    budget = Budget(steps, per_step, seed)
    if not sources or not budget.examples:
        return None
    rehearsal: Rehearsal = SCHEDULES[schedule.name](sources, backbone, budget, schedule)
    return rehearsal
