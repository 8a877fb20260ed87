"""A search for a design, as plain values: what was tried, what it cost, what was chosen."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from conpet.report import text


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Design(_Frozen):
    """The settings that are searched.

    Attributes:
        frozen_layers: `backbone.frozen_layers`.
        rank: `module.rank`, or None for a kind of module without one.
        targets: `module.targets`, likewise.
        learning_rate: `training.learning_rate`.
        epochs: `training.epochs`.
        warmup: `backbone.warmup`.
    """

    frozen_layers: NonNegativeInt
    rank: int | None
    targets: str | tuple[str, ...] | None
    learning_rate: float
    epochs: int
    warmup: str = "none"

    @property
    def targets_text(self) -> str:
        """The targets on one line."""
        targets = self.targets or ""
        return targets if isinstance(targets, str) else ", ".join(targets)

    def __str__(self) -> str:
        parts = [text.plural(self.frozen_layers, "frozen layer")]
        parts += [f"rank {self.rank}"] if self.rank is not None else []
        parts += [f"targets {self.targets_text}"] if self.targets else []
        parts += [f"learning rate {self.learning_rate:g}", text.plural(self.epochs, "epoch")]
        return ", ".join(parts + ([] if self.warmup == "none" else [f"warm-up {self.warmup}"]))

    @property
    def for_task(self) -> dict[str, Any]:
        """What a task's settings take from it, by dotted keys."""
        found = {"training.learning_rate": self.learning_rate, "training.epochs": self.epochs}
        own = {"module.rank": self.rank, "module.targets": self.targets}
        return found | {key: value for key, value in own.items() if value is not None}

    @property
    def for_workspace(self) -> dict[str, Any]:
        """What a workspace's settings take from it, by dotted keys."""
        return self.for_task | {"backbone.frozen_layers": self.frozen_layers, "backbone.warmup": self.warmup}


class Outcome(StrEnum):
    """How a trial ended: only one that is finished can be chosen."""

    FINISHED = "finished"
    HALVED = "halved"
    """Left at a rung to those that did better there."""
    STOPPED = "stopped"
    """The limit was reached."""
    DIVERGED = "diverged"
    """Its loss was no longer a number."""


class Rung(NamedTuple):
    """Right answers among the validation examples after so many optimiser steps; a JSON list of three."""

    step: int
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share that is right, 0 to 1."""
        return self.correct / self.total


class DesignTrial(_Frozen):
    """One design that was tried.

    Attributes:
        number: 1 is the design in force before the search.
        design: The design.
        outcome: How it ended.
        rungs: What was measured, by optimiser steps (those of a warm-up come first).
        steps: Optimiser steps taken.
        seconds: Wall time of this trial, with what had to be read for it first.
        passes: Forward-pass equivalents, likewise.
        parameters: Trained parameters of the module, without head.
        passes_per_example: Forward-pass equivalents that learning by this design to the end takes a training example.
    """

    number: int
    design: Design
    outcome: Outcome
    rungs: tuple[Rung, ...] = ()
    steps: NonNegativeInt
    seconds: NonNegativeFloat
    passes: NonNegativeFloat
    parameters: NonNegativeInt
    passes_per_example: NonNegativeFloat

    @property
    def accuracy(self) -> float | None:
        """Accuracy at the last rung reached, or None if there was none."""
        return self.rungs[-1].accuracy if self.rungs else None


class TuneReport(_Frozen):
    """A search; `print` it for one line.

    Attributes:
        task: The task it was made on.
        train: Number of its training examples.
        validation: Number of its validation examples.
        method: The workspace's method.
        trials: What was tried, in order.
        chosen: Number of the trial whose design was chosen.
        seconds: Wall time of the search.
        passes: Forward-pass equivalents of the search: passes of the whole backbone over one example of the task, of
            mean length. A backward pass counts as two forward passes, a state from the cache as if it were computed.
        seconds_limit: Limit that was given, or None.
        passes_limit: Limit that was given, or None.
        trials_limit: Limit that was given, or None.
        seed: Seed of the search.
        notes: What was not searched, and why.
        applied: Whether the workspace's settings were changed to the chosen design.
    """

    task: str
    train: int
    validation: int
    method: str
    trials: tuple[DesignTrial, ...]
    chosen: int
    seconds: NonNegativeFloat
    passes: NonNegativeFloat
    seconds_limit: float | None = None
    passes_limit: float | None = None
    trials_limit: int | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()
    applied: bool = False

    @property
    def choice(self) -> DesignTrial:
        """The trial whose design was chosen."""
        return self.trials[self.chosen - 1]

    @property
    def before(self) -> DesignTrial:
        """The trial of the design that was in force before."""
        return self.trials[0]

    @property
    def ranked(self) -> tuple[DesignTrial, ...]:
        """All trials: the chosen one first, then those that were finished, then the rest, each by accuracy."""

        def rank(trial: DesignTrial) -> tuple[bool, bool, float, int]:
            unfinished = trial.outcome is not Outcome.FINISHED
            return trial.number != self.chosen, unfinished, -(trial.accuracy or 0.0), trial.number

        return tuple(sorted(self.trials, key=rank))

    def __str__(self) -> str:
        accuracy = self.choice.accuracy or 0.0
        return (
            f"{self.task}: {self.choice.design}: {accuracy:.1%} of {self.validation} validation examples; "
            f"{len(self.trials)} designs tried in {self.seconds:.1f} s, {self.passes:,.0f} forward-pass equivalents"
        )
