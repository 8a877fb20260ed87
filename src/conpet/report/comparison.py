"""The result of a comparison of learners as plain values: accuracy, costs and choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from conpet.report import text

LEVEL = 0.05
"""A learner is clearly worse than the best if the p-value is below this."""
CONSOLIDATE = "+consolidate"
"""Ending of a learner's name: the workspace is consolidated after the last task."""
CONSOLIDATE_TOP = "+consolidate-top"
"""Ending of a learner's name: only the layers above the cut are consolidated (`consolidation.layers=top`)."""
LEARNERS = (
    "lda",
    "logistic",
    f"lda{CONSOLIDATE}",
    f"logistic{CONSOLIDATE}",
    "dynamic",
    f"dynamic{CONSOLIDATE_TOP}",
    f"dynamic{CONSOLIDATE}",
)
"""The learners compared by default, simplest first."""


def method_and_ending(learner: str) -> tuple[str, str]:
    """Return the method of a learner, and the ending that says how it is consolidated ("" if it is not)."""
    ending = next((one for one in (CONSOLIDATE_TOP, CONSOLIDATE) if learner.endswith(one)), "")
    return learner.removesuffix(ending), ending


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LearnerResult(_Frozen):
    """What a learner reached, and what it cost.

    With several divisions, costs are means over them.

    Attributes:
        learner: A method, alone or with "+consolidate" or "+consolidate-top".
        correct: Number of measured examples it answered correctly, over all divisions.
        accuracies: Its accuracy in each division.
        only_it: Number of distinct examples that it answered correctly more often than the best learner.
        only_best: Number of distinct examples that the best learner answered correctly more often.
        p_value: Two-sided p-value of the exact sign test of these two numbers; 1 for the best learner.
        seconds: Wall time of learning, with the states of the frozen layers already in the cache. Learners whose
            consolidations train the same backbone are each charged its time, though it is trained once.
        cpu_seconds: Processor time of the same.
        passes_per_example: Forward-pass equivalents of learning for each training example. A backward pass counts as
            two forward passes; cached states count as if computed.
        ms_per_answer: Milliseconds per answer, in batches and without the cache.
        bytes_stored: Size of the workspace's learned objects.
        fall: Points by which the consolidation lowered accuracy on the learners' validation examples, so that
            `consolidate` keeps it only with a bound; None if it did not.
    """

    learner: str
    correct: NonNegativeInt
    only_it: NonNegativeInt
    only_best: NonNegativeInt
    p_value: float
    accuracies: tuple[float, ...] = ()
    seconds: NonNegativeFloat
    cpu_seconds: NonNegativeFloat
    passes_per_example: NonNegativeFloat
    ms_per_answer: NonNegativeFloat
    bytes_stored: NonNegativeInt
    fall: float | None = None

    @property
    def method(self) -> str:
        """The method of its workspace."""
        return method_and_ending(self.learner)[0]

    @property
    def consolidated(self) -> bool:
        """Whether the workspace is consolidated after the last task."""
        return self.learner != self.method

    @property
    def only_top(self) -> bool:
        """Whether only the layers above the cut are consolidated."""
        return self.learner.endswith(CONSOLIDATE_TOP)


class ComparisonReport(_Frozen):
    """The result of `compare_learners`; `str(report)` is a one-line summary.

    Attributes:
        backbone: The backbone.
        tasks: Names of the tasks, in order.
        labels: Number of their labels.
        train: Number of training examples.
        validation: Number of validation examples given to the learners.
        measured: Number of other validation examples, on which accuracy was measured, over all divisions.
        distinct: Number of distinct examples among them.
        divisions: Number of random divisions of the validation examples.
        seed: Seed of all random choices, and of the first division.
        settings: The settings that all workspaces were given, for `ConPET.create(path, method=..., **settings)`.
        results: The learners that were measured, in the order in which they were named.
        failed: Why a learner has no result, by its name.
        best: The most accurate learner.
        chosen: The cheapest learner that is not clearly worse than the best.
        reading_seconds: Wall time of passing the examples through the frozen layers, once for all learners.
        notes: Notes for the user.
    """

    backbone: str
    tasks: tuple[str, ...]
    labels: int
    train: int
    validation: int
    measured: int
    distinct: int
    divisions: int
    seed: int
    settings: Mapping[str, Any]
    results: tuple[LearnerResult, ...]
    failed: Mapping[str, str]
    best: str
    chosen: str
    reading_seconds: NonNegativeFloat
    notes: tuple[str, ...] = ()

    def result(self, learner: str) -> LearnerResult:
        """Return the result of a learner that was measured."""
        return next(result for result in self.results if result.learner == learner)

    @property
    def choice(self) -> LearnerResult:
        """The result of the chosen learner."""
        return self.result(self.chosen)

    def accuracy(self, learner: str) -> float:
        """Return the share of measured examples that a learner answered correctly."""
        return self.result(learner).correct / self.measured

    @property
    def undecided(self) -> tuple[str, ...]:
        """The other learners that the measured examples cannot tell from the best."""
        return tuple(one.learner for one in self.results if one.p_value >= LEVEL and one.learner != self.chosen)

    def __str__(self) -> str:
        of = f"{self.distinct:,} validation examples" + (
            f" in {self.divisions} divisions" if self.divisions > 1 else ""
        )
        chosen = f"{self.chosen} ({text.percent(self.accuracy(self.chosen))} of {of})"
        if not self.undecided:
            return f"use {chosen}: it is the most accurate, and all others are clearly worse"
        why = f"the cheapest of those that these examples cannot tell apart (also {', '.join(self.undecided)})"
        if self.chosen == self.best:
            return f"use {chosen}: {why}"
        more = 100 * (self.accuracy(self.best) - self.accuracy(self.chosen))
        best = f"{self.best}, {text.percent(self.accuracy(self.best))}"
        worth = f"take it if {more:.1f} points that may be chance are worth its cost"
        return f"use {chosen}: {why}; most accurate: {best}: {worth}"
