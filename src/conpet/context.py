"""The context of one change to a workspace: past examples, costs, seed, checkpoints, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conpet.cost import CostLedger
from conpet.replay.memory import StoredExamples

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share done, 0 to 1; once with "resumed" when training resumes."""


def ignore(stage: str, share: float) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainContext:
    """The context in which a method learns or updates tasks.

    Attributes:
        memory: The examples of past tasks, without test labels.
        costs: Collects the costs of the stages.
        seed: Seed of all randomness in this change, derived from the workspace's seed and the task's name.
        scratch: Folder for checkpoints, or None.
        progress: Called with a stage's name and the share done, 0 to 1.
    """

    memory: Sequence[StoredExamples]
    costs: CostLedger
    seed: int
    scratch: Path | None = None
    progress: Progress = ignore
