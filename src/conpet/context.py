"""The circumstances of one change to a workspace: past examples, costs, seed, checkpoints, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conpet.cost import CostLedger
from conpet.replay.memory import StoredExamples

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""


def ignore(stage: str, share: float) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainContext:
    """Where and how one change is worked out.

    Attributes:
        memory: The past tasks' examples, blind to test labels.
        costs: Collects what the stages cost.
        seed: Seed of everything random in this change: the workspace's seed and the task's name decide it.
        scratch: Folder for checkpoints, or None.
        progress: Called with a stage's name and the share done, 0 to 1.
    """

    memory: Sequence[StoredExamples]
    costs: CostLedger
    seed: int
    scratch: Path | None = None
    progress: Progress = ignore
