"""The metrics of continual learning: pure functions of counts, each with its definition.

R[i][j] is the accuracy on the test set of task j after learning event i, and n the last event. None always means that
there were no test examples to measure on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from conpet.errors import DataError


@dataclass(frozen=True, slots=True)
class Measurement:
    """The mean of a metric over test examples.

    Attributes:
        value: The mean.
        n: Number of examples, 0 or more.
    """

    value: float
    n: int

    @property
    def total(self) -> float:
        """The sum over the examples, rounded to a whole number if it is one up to rounding errors."""
        total = self.value * self.n
        return float(round(total)) if abs(total - round(total)) < 1e-6 else total

    @property
    def tally(self) -> Tally:
        """The number of correct answers, if the metric is their share."""
        return Tally(round(self.value * self.n), self.n)

    @classmethod
    def of(cls, tally: Tally) -> Measurement:
        """Return the share of correct answers."""
        return cls(tally.accuracy or 0.0, tally.total)


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of correct answers out of a number of test examples.

    Attributes:
        correct: From 0 to `total`.
        total: Number of test examples, 0 or more.
    """

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total:
            raise DataError(f"{self.correct} correct of {self.total}: give a count between 0 and the total")

    @classmethod
    def of(cls, predicted: Sequence[str], truth: Sequence[str]) -> Tally:
        """Count the predictions that equal the truth."""
        return cls.within([[name] for name in predicted], truth, k=1)

    @classmethod
    def within(cls, ranked: Sequence[Sequence[str]], truth: Sequence[str], k: int) -> Tally:
        """Count the rankings, best first, that contain the truth among their first k."""
        if len(ranked) != len(truth):
            raise DataError(
                f"{len(ranked)} predictions for {len(truth)} test examples: give one prediction for each example"
            )
        return cls(sum(true in names[:k] for names, true in zip(ranked, truth, strict=True)), len(truth))

    @property
    def accuracy(self) -> float | None:
        """Share of correct answers, 0 to 1; None without test examples."""
        return self.correct / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Row:
    """The measurements after one event.

    Attributes:
        learned: The task the event learned, or None (a task was removed or rolled back).
        tallies: The tally of each task present after the event.
    """

    learned: str | None
    tallies: Mapping[str, Tally] = field(default_factory=dict)

    def accuracy(self, task: str) -> float | None:
        """Return the accuracy on a task, or None if it was not measured or not present."""
        return self.tallies[task].accuracy if task in self.tallies else None


@dataclass(frozen=True, slots=True)
class AccuracyMatrix:
    """R: one row for each event, one column for each task ever seen.

    Attributes:
        rows: Oldest first.
    """

    rows: tuple[Row, ...] = ()

    def followed_by(self, row: Row) -> AccuracyMatrix:
        """Return the matrix with one more event."""
        return AccuracyMatrix((*self.rows, row))

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks ever seen, in the order of their first measurement."""
        return tuple(dict.fromkeys(task for row in self.rows for task in row.tallies))

    def table(self) -> list[list[float | None]]:
        """Return R with a column for each of `tasks`; None if a task was not measured, not yet learned, or removed."""
        return [[row.accuracy(task) for task in self.tasks] for row in self.rows]


def pooled(measurements: Iterable[Measurement]) -> float | None:
    """Return the mean of a metric over the examples of all tasks, or None if there are none."""
    pool = list(measurements)
    examples = sum(measurement.n for measurement in pool)
    return fsum(measurement.total for measurement in pool) / examples if examples else None


def whole_accuracy(tallies: Mapping[str, Tally]) -> float | None:
    """Return the share of correct answers over the test examples of all tasks: large tasks weigh more."""
    return _pooled(tallies.values()).accuracy


def average_accuracy(tallies: Mapping[str, Tally]) -> float | None:
    """Return the mean over tasks j of R[i][j]: every task weighs the same. Tasks without test examples are left out."""
    return _mean(tally.accuracy for tally in tallies.values())


def forgetting(matrix: AccuracyMatrix) -> float | None:
    """Return the mean over earlier tasks j of (best R[i][j] for j <= i < n) - R[n][j].

    Negative if the last event made earlier tasks better than ever before. The last event's own task and removed tasks
    do not count, nor do measurements of a task from before it was last learned, because that was another version. 0.0
    if no earlier task was measured, as after the first task; None for an empty matrix or a last row without test
    examples.
    """
    return _mean_change(matrix, lambda earlier, now: max(earlier) - now)


def forgetting_by_example(matrix: AccuracyMatrix) -> float | None:
    """Return `forgetting` with each earlier task weighed by its test examples, so that a tiny task cannot decide it."""
    fall = forgetting(matrix)
    number = forgetting_examples(matrix)
    if fall is None or not number:
        return fall
    now = matrix.rows[-1].tallies
    lost = (max(earlier) * now[task].total - now[task].correct for task, earlier in _measured_before(matrix))
    return fsum(lost) / number


def backward_transfer(matrix: AccuracyMatrix) -> float | None:
    """Return the mean over earlier tasks j of R[n][j] - R[j][j]; negative if later learning did harm.

    R[j][j] is the first measurement since task j was last learned. Which tasks count, 0.0 and None: as in `forgetting`.
    """
    return _mean_change(matrix, lambda earlier, now: now - earlier[0])


def forgetting_examples(matrix: AccuracyMatrix) -> int:
    """Return the number of test examples on which `forgetting` and `backward_transfer` are measured."""
    if not matrix.rows:
        return 0
    return sum(matrix.rows[-1].tallies[task].total for task, _ in _measured_before(matrix))


def stream_average(metric: Callable[[Mapping[str, Tally]], float | None], matrix: AccuracyMatrix) -> float | None:
    """Return the mean of `whole_accuracy` or `average_accuracy` over the rows that learned a task."""
    return _mean(metric(row.tallies) for row in matrix.rows if row.learned is not None)


def selector_accuracy(ranked: Sequence[Sequence[str]], truth: Sequence[str], k: int = 1) -> float | None:
    """Return the share of inputs whose true task is among the first k of the selector's ranking.

    Args:
        ranked: Task names of each input, best first.
        truth: The true task of each input.
        k: 1 or more.
    """
    return Tally.within(ranked, truth, k).accuracy


def within_task_accuracy(predicted: Sequence[str], truth: Sequence[str]) -> float | None:
    """Return the share of inputs that get the right label when their true task is given.

    Args:
        predicted: The best label among those of each input's true task.
        truth: The true label of each input.
    """
    return Tally.of(predicted, truth).accuracy


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float | None:
    """Return the probability that a score of `inside` is above one of `outside`, with ties counting half.

    This is the area under the ROC curve of separating the two by a threshold; 0.5 is chance. None if either is empty.
    """
    if not inside or not outside:
        return None
    ordered = sorted(outside)
    wins = sum(bisect_left(ordered, score) + bisect_right(ordered, score) for score in inside) / 2
    return wins / (len(inside) * len(outside))


def _pooled(tallies: Iterable[Tally]) -> Tally:
    counted = list(tallies)
    return Tally(sum(tally.correct for tally in counted), sum(tally.total for tally in counted))


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fsum(measured) / len(measured) if measured else None


def _mean_change(matrix: AccuracyMatrix, change: Callable[[list[float], float], float]) -> float | None:
    """Average over tasks `change(accuracies since last learned, without the last row; accuracy in the last row)`."""
    if not matrix.rows or whole_accuracy(matrix.rows[-1].tallies) is None:
        return None
    last = matrix.rows[-1]
    changes = (change(earlier, last.accuracy(task) or 0.0) for task, earlier in _measured_before(matrix))
    return _mean(changes) or 0.0


def _measured_before(matrix: AccuracyMatrix) -> Iterator[tuple[str, list[float]]]:
    """Yield the tasks of the last row that were measured before, with these accuracies since they were learned."""
    last = matrix.rows[-1]
    for task in last.tallies:
        earlier = _accuracies_since_learned(matrix.rows, task)[:-1]
        if last.accuracy(task) is not None and earlier:
            yield task, earlier


def _accuracies_since_learned(rows: Sequence[Row], task: str) -> list[float]:
    """Return the accuracies on a task from the row that last learned it, or from its first measurement."""
    learned = [index for index, row in enumerate(rows) if row.learned == task]
    since = (row.accuracy(task) for row in rows[learned[-1] if learned else 0 :])
    return [accuracy for accuracy in since if accuracy is not None]
