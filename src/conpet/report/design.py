"""The result of a design search as plain values: trials, costs and choice."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from conpet.report import text


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Design(_Frozen):
    """The settings searched.

    Attributes:
        frozen_layers: `backbone.frozen_layers`.
        rank: `module.rank`, or None for a kind of module without a rank.
        targets: `module.targets`, or None for a kind of module without targets.
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
        """The settings of a task that it determines, by dotted keys."""
        training = {"training.learning_rate": self.learning_rate, "training.epochs": self.epochs}
        module = {"module.rank": self.rank, "module.targets": self.targets}
        return training | {key: value for key, value in module.items() if value is not None}

    @property
    def for_workspace(self) -> dict[str, Any]:
        """The settings of a workspace that it determines, by dotted keys."""
        return self.for_task | {"backbone.frozen_layers": self.frozen_layers, "backbone.warmup": self.warmup}


class Outcome(StrEnum):
    """How a trial ended. Only a finished trial can be chosen."""

    FINISHED = "finished"
    HALVED = "halved"
    """Stopped at a rung because others were better there."""
    STOPPED = "stopped"
    """The limit of the search was reached."""
    DIVERGED = "diverged"
    """Its loss became NaN or infinite."""


class Rung(NamedTuple):
    """Correct answers and validation examples after a number of optimiser steps; a JSON list of three numbers."""

    step: int
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Fraction correct, 0 to 1."""
        return self.correct / self.total


class DesignTrial(_Frozen):
    """A design that was tried.

    Attributes:
        number: 1 is the design before the search.
        design: The design.
        outcome: How it ended.
        rungs: Validation results by optimiser steps (warm-up steps included).
        steps: Optimiser steps taken.
        seconds: Wall time of the trial, including the encoding of examples for it.
        passes: Forward-pass equivalents, including the encoding of examples for it.
        parameters: Trained parameters of the module, without head.
        passes_per_example: Forward-pass equivalents per training example to train this design to the end.
        score: Composite score of a finished design, if that is the objective: money for 1,000 answers.
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
    score: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Accuracy at the last rung reached, or None if there was none."""
        return self.rungs[-1].accuracy if self.rungs else None


class TuneReport(_Frozen):
    """The result of a search; `print` it for a one-line summary.

    Attributes:
        task: Name of the task searched on.
        train: Number of its training examples.
        validation: Number of its validation examples.
        method: The workspace's method.
        trials: The trials, in order.
        chosen: Number of the chosen trial.
        seconds: Wall time of the search.
        passes: Forward-pass equivalents of the search: passes of the whole backbone over an example of mean length. A
            backward pass counts as two forward passes; cached states count as if computed.
        seconds_limit: Limit on `seconds`, or None.
        passes_limit: Limit on `passes`, or None.
        trials_limit: Limit on the number of trials, or None.
        seed: Seed of the search.
        notes: What was not searched, and why.
        applied: Whether the workspace's settings were changed to the chosen design.
        objective: What was chosen by: "accuracy" or "composite".
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
    objective: Literal["accuracy", "composite"] = "accuracy"

    @property
    def choice(self) -> DesignTrial:
        """The trial whose design was chosen."""
        return self.trials[self.chosen - 1]

    @property
    def before(self) -> DesignTrial:
        """The trial of the design before the search."""
        return self.trials[0]

    @property
    def ranked(self) -> tuple[DesignTrial, ...]:
        """All trials: the chosen one, then finished ones, then the others, each group by accuracy."""

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
