"""Labelled examples with their answers, and what follows from them: scores of labels, confusion and calibration.

Pure functions of answers; imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from conpet.data import Example

BINS = 10
"""Number of bins of a calibration; they divide the scores from 0 to 1 into equal widths."""


@dataclass(frozen=True, slots=True)
class AnsweredExample:
    """A labelled example and the answer it got.

    Attributes:
        label: Its label.
        answer: The label answered; None if a task without labels answered.
        score: Probability of the answer among all labels and tasks, 0 to 1.
        task: The task that owns the label; None if the workspace has not learned the label.
        answered_by: The task that answered.
        row: Number of the example from 1: among the examples evaluated on, or among the stored test examples of `task`.
        example: The input; None where the answer is right, and where the workspace stores no texts.
    """

    label: str
    answer: str | None
    score: float
    task: str | None
    answered_by: str
    row: int
    example: Example | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is the label."""
        return self.answer == self.label

    @property
    def input(self) -> str | None:
        """The input as one text (tokens joined by blanks), or None."""
        return self.example.content if self.example else None


@dataclass(frozen=True, slots=True)
class UnansweredExample:
    """A labelled example that is part of no metric: its answer needs a module that is damaged on disk.

    Attributes:
        label: Its label.
        task: The task that owns the label; None if the workspace has not learned the label.
        row: Number of the example, as in `AnsweredExample`.
        reason: Which module is damaged, and how to get it back.
    """

    label: str
    task: str | None
    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How well one label is recognised.

    Attributes:
        label: The label.
        task: The task that owns it.
        correct: Number of its examples that were answered with it.
        answered: Number of examples of any label that were answered with it.
        support: Number of its examples.
    """

    label: str
    task: str
    correct: int
    answered: int
    support: int

    @property
    def precision(self) -> float | None:
        """Share of the answers with this label that are right; None if there was no such answer."""
        return self.correct / self.answered if self.answered else None

    @property
    def recall(self) -> float | None:
        """Share of the label's examples that were answered with it; None without examples."""
        return self.correct / self.support if self.support else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; 0 if no answer is right, None without examples."""
        return 2 * self.correct / (self.answered + self.support) if self.support else None


@dataclass(frozen=True, slots=True)
class LabelAverage:
    """A mean over the labels that have examples; a precision of None counts as 0."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The examples of one label that were answered with another.

    Attributes:
        label: Their label.
        answer: The label answered; None if a task without labels answered.
        support: Number of all examples of `label`.
        examples: The examples behind it, the highest score first.
    """

    label: str
    answer: str | None
    support: int
    examples: tuple[AnsweredExample, ...]

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.examples)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The answers whose score lies in one interval.

    Attributes:
        low: Lower end of the interval, exclusive except for 0.
        high: Upper end, inclusive.
        n: Number of answers.
        score: Their mean score; None without answers.
        accuracy: Share of right ones; None without answers.
    """

    low: float
    high: float
    n: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether scores can be read as probabilities.

    Attributes:
        bins: Ten bins of equal width, lowest scores first.
    """

    bins: tuple[CalibrationBin, ...]

    @property
    def n(self) -> int:
        """Number of answers."""
        return sum(each.n for each in self.bins)

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: mean distance of the accuracy of a bin from its mean score."""
        return fsum(each.n * abs((each.accuracy or 0.0) - (each.score or 0.0)) for each in self.bins) / self.n

    @property
    def overconfidence(self) -> float:
        """Mean score minus accuracy, -1 to 1; negative if scores are lower than the accuracy."""
        return fsum(each.n * ((each.score or 0.0) - (each.accuracy or 0.0)) for each in self.bins) / self.n


def label_scores(answers: Iterable[AnsweredExample]) -> dict[str, LabelScore]:
    """Return the score of each label that has examples or was answered, the lowest F1 first.

    Of labels with the same F1, the one with more examples comes first. Labels without examples come last.
    """
    support: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    owners: dict[str, str] = {}
    for one in answers:
        support[one.label] += 1
        owners[one.label] = str(one.task)
        if one.answer is not None:
            answered[one.answer] += 1
            owners.setdefault(one.answer, one.answered_by)
            correct[one.label] += one.correct
    scores = (LabelScore(name, owners[name], correct[name], answered[name], support[name]) for name in owners)
    return {score.label: score for score in sorted(scores, key=_worst_first)}


def _worst_first(score: LabelScore) -> tuple[bool, float, int, str]:
    return (score.f1 is None, score.f1 or 0.0, -score.support, score.label)


def macro_average(scores: Iterable[LabelScore]) -> LabelAverage | None:
    """Return the mean over labels with examples, in which every label weighs the same; None if there are none."""
    return _average(scores, lambda score: 1)


def weighted_average(scores: Iterable[LabelScore]) -> LabelAverage | None:
    """Return the mean over labels with examples, weighted by their number; None if there are none."""
    return _average(scores, lambda score: score.support)


def _average(scores: Iterable[LabelScore], weight: Callable[[LabelScore], int]) -> LabelAverage | None:
    measured = [score for score in scores if score.support]
    if not measured:
        return None
    total = sum(map(weight, measured))

    def mean(values: Iterable[float | None]) -> float:
        return fsum(weight(score) * (value or 0.0) for score, value in zip(measured, values, strict=True)) / total

    return LabelAverage(
        mean(score.precision for score in measured),
        mean(score.recall for score in measured),
        mean(score.f1 for score in measured),
    )


def confusions(answers: Iterable[AnsweredExample]) -> tuple[Confusion, ...]:
    """Return every pair of a label and a wrong answer with the examples behind it, the most frequent first."""
    support: Counter[str] = Counter()
    wrong: dict[tuple[str, str | None], list[AnsweredExample]] = {}
    for one in answers:
        support[one.label] += 1
        if not one.correct:
            wrong.setdefault((one.label, one.answer), []).append(one)
    pairs = [
        Confusion(label, answer, support[label], tuple(sorted(examples, key=lambda one: -one.score)))
        for (label, answer), examples in wrong.items()
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.count, pair.label, pair.answer or "")))


def calibration(answers: Sequence[AnsweredExample]) -> Calibration | None:
    """Return the calibration of the scores (Guo et al. 2017, section 2); None without answers."""
    if not answers:
        return None
    members: list[list[AnsweredExample]] = [[] for _ in range(BINS)]
    for one in answers:
        members[_bin_of(one.score)].append(one)
    return Calibration(
        tuple(
            CalibrationBin(
                number / BINS,
                (number + 1) / BINS,
                len(inside),
                fsum(one.score for one in inside) / len(inside) if inside else None,
                sum(one.correct for one in inside) / len(inside) if inside else None,
            )
            for number, inside in enumerate(members)
        )
    )


def _bin_of(score: float) -> int:
    """Return the bin of a score; its upper end belongs to a bin."""
    return next((number for number in range(BINS) if score <= (number + 1) / BINS), BINS - 1)
