"""Results by label as plain values: scores, confusion and calibration."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelRow(_Frozen):
    """How well one label is recognised; None where there is nothing to measure it on.

    Attributes:
        label: The label.
        task: The task that owns it.
        precision: Share of the answers with this label that are right.
        recall: Share of its examples that were answered with it.
        f1: Harmonic mean of both.
        support: Number of its examples.
        answered: Number of answers with this label.
        correct: Number of right ones.
    """

    label: str
    task: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: NonNegativeInt
    answered: NonNegativeInt
    correct: NonNegativeInt


class Average(_Frozen):
    """A mean over the labels that have examples."""

    precision: float
    recall: float
    f1: float


class ConfusedExample(_Frozen):
    """An example that got a wrong answer.

    Attributes:
        row: Its number from 1: its row in the file, or its place among the stored test examples of its task.
        id: Its identifier, if it has one.
        text: The input (tokens joined by blanks); None if the workspace stores no texts.
        score: Score of the wrong answer.
        answered_by: The task that answered.
    """

    row: NonNegativeInt
    id: Any = None
    text: str | None = None
    score: float
    answered_by: str


class ConfusedPair(_Frozen):
    """A label and the label that some of its examples were answered with.

    Attributes:
        label: The label.
        answer: The label answered; None if a task without labels answered.
        count: Number of examples.
        support: Number of all examples of `label`.
        examples: The examples, the highest score first.
    """

    label: str
    answer: str | None
    count: NonNegativeInt
    support: NonNegativeInt
    examples: tuple[ConfusedExample, ...] = ()


class ReliabilityBin(_Frozen):
    """The answers with a score above `low` and up to `high`; means are None without answers."""

    low: float
    high: float
    n: NonNegativeInt
    score: float | None
    accuracy: float | None


class Reliability(_Frozen):
    """Accuracy by score.

    Attributes:
        expected_calibration_error: Mean difference of accuracy and mean score of the bin, over all answers, 0 to 1.
        overconfidence: Mean score minus accuracy.
        n: Number of answers.
        bins: Bins of equal width, lowest scores first.
    """

    expected_calibration_error: float
    overconfidence: float
    n: NonNegativeInt
    bins: tuple[ReliabilityBin, ...]


class LabelResults(_Frozen):
    """Results by label on test examples.

    Attributes:
        label_scores: A row per label that has examples or was answered, the lowest F1 first.
        macro_average: Mean of the scores in which every label weighs the same.
        weighted_average: Mean of the scores, weighted by the number of examples.
        confusion: Which label is taken for which, the most frequent first.
        calibration: Whether scores can be read as probabilities.
    """

    label_scores: tuple[LabelRow, ...]
    macro_average: Average
    weighted_average: Average
    confusion: tuple[ConfusedPair, ...]
    calibration: Reliability
