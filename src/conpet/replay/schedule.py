"""Draw past examples for a task's training, within a budget that does not grow with the number of tasks."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.backbone.backbone import Backbone
from conpet.config import ScheduleConfig
from conpet.replay import SCHEDULES
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Budget, Rehearsal

OLD_SHARE = 0.5
"""Share of old examples in a batch, if there are any (Song et al. 2023, section 3.2)."""


def divide_budget(budget: int, *, old_share: float, has_memory: bool) -> tuple[int, int]:
    """Divide an example budget into (new, replayed)."""
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
        schedule: The schedule's settings.
        steps: Optimiser steps.
        per_step: Past examples in each batch (see `divide_budget`).
        seed: Seed of the draws.

    Returns:
        The rehearsal, or None if there are no past examples or no room for them.
    """
    sources = [source for source in memory if source.count(Subset.TRAIN)]
    budget = Budget(steps, per_step, seed)
    if not sources or not budget.examples:
        return None
    rehearsal: Rehearsal = SCHEDULES[schedule.name](sources, backbone, budget, schedule)
    return rehearsal
