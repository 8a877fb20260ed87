"""Watches a stream of answers: shares, scores and decisions against a reference, by sequential tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from conpet.store.prediction_log import Judged, Watched
from conpet.watching.martingale import (
    BLOCK,
    ERROR_BETS,
    SCORE_BETS,
    SHARE_BETS,
    Array,
    Martingales,
    Ranks,
    Shares,
    error_gains,
    highest_rate,
    score_gains,
    share_gains,
)
from conpet.watching.report import LEAST_REFERENCE, Signal, WatchOptions, WatchReport, moment

LEAST_HELD_OUT = 20
"""Fewest held-out examples that inputs are compared with."""
UNFIT = 0.5
"""An input fits no label if its probability of belonging to something learned is lower."""
RARE = 0.05
"""Inputs whose score is among so many of the lowest of held-out examples are counted."""
FEEDBACK_BLOCK = 5
"""Right labels between looks at the capital of the bets on errors."""
Item = TypeVar("Item")
Answer = TypeVar("Answer", Watched, Judged)


@dataclass(frozen=True)
class Baseline:
    """What the workspace knows from learning, with which inputs are compared.

    Attributes:
        labels: The labels of each task, by name.
        held_out: Scores of held-out examples of learned labels, ascending, by kind of input.
        answered: Number of held-out examples that were answered, and of those answered right.
        margin: The fall of the accuracy that is accepted, 0 to 1.
        answered_by_task: As `answered`, of the examples of each task.
        task_margin: The fall of the accuracy of a task that is accepted.
    """

    labels: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[float]] = field(default_factory=dict)
    answered: tuple[int, int] = (0, 0)
    margin: float = 0.0
    answered_by_task: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    task_margin: float = 0.0


_HINTS = {
    "tasks": "see which inputs come: `conpet predict -i`, and `conpet evaluate` on labelled ones",
    "labels": "see which inputs come: `conpet predict -i`, and `conpet evaluate` on labelled ones",
    "declined": "label some of the inputs that were declined, and learn them as a new task: `conpet learn`",
    "asked": "label some of the inputs that were asked about: `conpet learn --extend`",
    "unfit": "label some of these inputs, and learn them as a new task: `conpet learn`",
    "selector": "check the accuracy on new labelled inputs: `conpet evaluate -i`",
    "confidence": "check the accuracy on new labelled inputs: `conpet evaluate -i`",
    "scope": "look at recent inputs: spelling, language or subject may have changed; `conpet evaluate -i` on labelled "
    "ones",
    "learning": "the inputs are unlike the examples: add some of them with `conpet learn --extend`",
    "accuracy": "see which labels are taken for which, and add such inputs with their right labels: `conpet learn "
    "--extend`",
}
"""What to do after an alarm, by family of signals."""

_MEANINGS = {
    "declined": "share of inputs that were declined",
    "asked": "share of inputs that were answered by a question",
    "unfit": "share of inputs that fit no label",
    "selector": "mean probability of the likeliest task",
    "confidence": "mean probability that the answer is right",
    "scope": "mean probability that an input belongs to something learned",
    "learning": f"share of inputs less like the labels than {1 - RARE:.0%} of held-out examples",
}
_HELD_OUT_REFERENCE = "the reference is that of held-out examples"


class Mark(NamedTuple):
    """Where a block of answers begins: the number and the time of its first one."""

    number: int
    time: float | None


class _Window(Generic[Answer]):
    """The last answers, by number or by time."""

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self.answers: deque[Answer] = deque()

    def add(self, one: Answer) -> None:
        """Add an answer, and drop those that are too old."""
        self.answers.append(one)
        options = self._options
        while len(self.answers) > 1 and (
            (self.answers[0].time or 0.0) < (one.time or 0.0) - options.window
            if options.window_seconds
            else len(self.answers) > options.window
        ):
            self.answers.popleft()


class Watch:
    """Watches answers in the order in which they were given; `add` may be called any number of times.

    The probability of `false_alarm` is divided evenly over the families of signals, and in a family over its signals.

    Args:
        baseline: What inputs are compared with.
        options: How to watch.
        generation: The oldest generation whose answers are added.
        start: Number of the first entry of the record.
    """

    def __init__(self, baseline: Baseline, options: WatchOptions, generation: int = 0, start: int = 0) -> None:
        self._options = options
        self._generation = generation
        self._start = start
        self._baseline = baseline
        self._inputs = 0
        self._first: float | None = None
        self._last: float | None = None
        self._reference: list[Watched] | None = []
        self._waiting: list[Watched] = []
        self._recent: _Window[Watched] = _Window(options)
        self._marks: list[Mark] = []  # of the blocks after the reference
        self._families: list[_Family[Watched]] = []
        self._reference_size = 0
        self._learning = _LearningFamily(baseline, self._threshold)
        self._learning_waits: list[Watched] = []
        self._learning_marks: list[Mark] = []
        self._owners = {label: task for task, labels in baseline.labels.items() for label in labels}
        self._accuracy, self._task_accuracy = _accuracies(baseline, options)

    @property
    def inputs(self) -> int:
        """Number of inputs so far."""
        return self._inputs

    @property
    def alarm(self) -> bool:
        """Whether any signal has raised an alarm."""
        accuracies = [self._accuracy, *self._task_accuracy.values()]
        tests = [*(family.tests for family in self._families), self._learning.tests]
        tests += [one.family.tests for one in accuracies]
        return any(bool((one.alarm >= 0).any()) for one in tests)

    def add(self, answers: Iterable[Watched]) -> None:
        """Add answers."""
        for one in answers:
            if not self._inputs:
                self._first = one.time
            self._inputs += 1
            self._last = one.time
            self._recent.add(one)
            if self._reference is None:
                self._waiting.append(one)
            elif self._belongs_to_reference(one):
                self._reference.append(one)
            else:
                self._begin(self._reference)
                self._waiting.append(one)
            self._learning_waits.append(one)
        self._advance()

    def add_feedback(self, answers: Iterable[Judged]) -> None:
        """Add answers whose right labels are known, in the order in which these became known."""
        for one in answers:
            self._accuracy.add(one)
            if (of_task := self._task_accuracy.get(self._owners.get(one.right, ""))) is not None:
                of_task.add(one)

    def report(self) -> WatchReport:
        """Return what was found so far."""
        recent = list(self._recent.answers)
        signals = [signal for family in self._families for signal in family.signals(recent, self._marks)]
        if self._learning.possible:
            signals += self._learning.signals(recent, self._learning_marks)
        for accuracy in (self._accuracy, *self._task_accuracy.values()):
            signals += accuracy.signals()
        complete = self._reference is None
        return WatchReport(
            self._generation,
            self._inputs,
            self._reference_size if self._reference is None else len(self._reference),
            complete,
            len(recent),
            moment(self._first),
            moment(self._last),
            self._start,
            self._options.false_alarm,
            tuple(signals),
        )

    def _belongs_to_reference(self, one: Watched) -> bool:
        former = len(self._reference or ())
        if former < LEAST_REFERENCE:
            return True
        options = self._options
        if not options.reference_seconds:
            return former < options.reference
        return (one.time or 0.0) < (self._first or 0.0) + options.reference

    def _threshold(self, members: int) -> float:
        """Return the threshold of a test in a family with some members."""
        return len(_FAMILIES) * members / self._options.false_alarm

    def _begin(self, reference: Sequence[Watched]) -> None:
        """Begin to compare with the reference, which is complete."""
        self._reference, self._reference_size = None, len(reference)
        tasks = list(self._baseline.labels)
        labels = [label for of_task in self._baseline.labels.values() for label in of_task]
        self._families = [
            _SharesFamily("tasks", tasks, lambda one: one.task, reference, self._threshold),
            _SharesFamily("labels", labels, lambda one: one.label, reference, self._threshold),
            _SharesFamily("declined", [True], lambda one: one.decision == "decline", reference, self._threshold),
            _SharesFamily("asked", [True], lambda one: one.decision == "ask", reference, self._threshold),
            _SharesFamily("unfit", [True], lambda one: one.in_scope < UNFIT, reference, self._threshold),
            _ScoresFamily("selector", lambda one: one.selector, lambda one: one.selector, reference, self._threshold),
            _ScoresFamily(
                "confidence", lambda one: one.confidence, lambda one: one.confidence, reference, self._threshold
            ),
            _ScoresFamily("scope", lambda one: one.scope, lambda one: one.in_scope, reference, self._threshold),
        ]

    def _advance(self) -> None:
        """Bet on all complete blocks."""
        for block in _blocks(self._waiting, BLOCK):
            self._marks.append(Mark(block[0].id, block[0].time))
            for family in self._families:
                family.add(block)
        for block in _blocks(self._learning_waits, BLOCK):
            self._learning_marks.append(Mark(block[0].id, block[0].time))
            self._learning.add(block)


def _blocks(waiting: list[Item], size: int) -> Iterator[list[Item]]:
    """Yield complete blocks; what is left waits."""
    blocks = len(waiting) // size
    for number in range(blocks):
        yield waiting[number * size : (number + 1) * size]
    del waiting[: blocks * size]


_FAMILIES = ("tasks", "labels", "declined", "asked", "unfit", "selector", "confidence", "scope", "learning", "accuracy")
Threshold = Callable[[int], float]


class _Family(ABC, Generic[Answer]):
    """Signals that are tested together.

    Args:
        name: Name of the family.
        names: Name of each signal.
        tests: Their tests.
    """

    def __init__(self, name: str, names: Sequence[str], tests: Martingales) -> None:
        self._name = name
        self._names = names
        self.tests = tests
        self._random = np.random.default_rng(int.from_bytes(sha256(name.encode()).digest()[:8]))

    block = BLOCK
    """Answers in a block."""

    @abstractmethod
    def add(self, block: Sequence[Answer]) -> None:
        """Bet on a block."""

    @abstractmethod
    def values(self, answers: Sequence[Answer]) -> list[float | None]:
        """Return the value of each signal in some answers."""

    @abstractmethod
    def references(self) -> list[float | None]:
        """Return the value of each signal in the reference."""

    def signals(self, recent: Sequence[Answer], marks: Sequence[Mark]) -> list[Signal]:
        """Return the signals.

        Args:
            recent: The window.
            marks: Where each block begins.
        """
        tests = self.tests
        found = []
        rows = zip(self._names, self.values(recent), self.references(), strict=True)
        for at, (name, value, reference) in enumerate(rows):
            alarm = int(tests.alarm[at])
            raised = alarm >= 0
            reached = marks[min(alarm + 1, len(marks) - 1)] if raised else None
            began = marks[int(tests.since[at])] if raised else None
            found.append(
                Signal(
                    name,
                    self._meaning(name),
                    value,
                    reference,
                    float(np.exp(min(tests.highest[at], 700.0))),
                    float(tests.thresholds[at]),
                    alarm=raised,
                    at=moment(reached.time) if reached else None,
                    since=moment(began.time) if began else None,
                    at_input=reached.number if reached else None,
                    since_input=began.number if began else None,
                    inputs=(alarm + 1) * self.block if raised else None,
                    hint=_HINTS[self._name] if raised else "",
                )
            )
        return found

    def _meaning(self, name: str) -> str:
        if self._name == "tasks":
            return f"share of answers by the {name}"
        return f"share of answers with the {name}" if self._name == "labels" else _MEANINGS[self._name]


class _SharesFamily(_Family[Watched]):
    """Shares of answers.

    Args:
        name: Name of the family.
        values: The values that are counted.
        of: Returns the value of an answer.
        reference: The reference.
        threshold: Returns the threshold of a test, given their number.
    """

    def __init__(
        self,
        name: str,
        values: Sequence[object],
        of: Callable[[Watched], object],
        reference: Sequence[Watched],
        threshold: Threshold,
    ) -> None:
        singular = {"tasks": "task", "labels": "label"}.get(name)
        names = [f"{singular} {value}" if singular else name for value in values]
        super().__init__(name, names, Martingales(np.full(len(names), threshold(len(names))), SHARE_BETS))
        self._columns = {value: column for column, value in enumerate(values)}
        self._of = of
        happened = self._events(reference).sum(axis=0)
        self._shares = Shares(happened, len(reference))
        self._reference = (happened / len(reference)).tolist()

    def add(self, block: Sequence[Watched]) -> None:
        """Bet on a block."""
        events, expected = self._events(block), self._shares.expected
        p_values = self._shares.p_values(events, self._random.random(events.shape))
        self.tests.add(share_gains(p_values, expected))

    def values(self, answers: Sequence[Watched]) -> list[float | None]:
        """Return the share of each."""
        events = self._events(answers)
        return list(events.mean(axis=0).tolist()) if len(answers) else [None] * events.shape[1]

    def references(self) -> list[float | None]:
        """Return the share of each in the reference."""
        return list(self._reference)

    def _events(self, answers: Sequence[Watched]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        events = np.zeros((len(answers), len(self._columns)), dtype=np.bool_)
        for row, one in enumerate(answers):
            column = self._columns.get(self._of(one))
            if column is not None:
                events[row, column] = True
        return events


class _ScoresFamily(_Family[Watched]):
    """One score of each answer.

    Args:
        name: Name of the family.
        of: Returns the score of an answer, or None if it has none.
        shown: Returns what is shown of an answer.
        reference: The reference.
        threshold: Returns the threshold of a test, given their number.
    """

    def __init__(
        self,
        name: str,
        of: Callable[[Watched], float | None],
        shown: Callable[[Watched], float | None],
        reference: Sequence[Watched],
        threshold: Threshold,
    ) -> None:
        super().__init__(name, [name], Martingales(np.full(1, threshold(1)), SCORE_BETS))
        self._of = of
        self._shown = shown
        self._ranks = _RanksByKind(of)
        self._ranks.begin_with(reference)
        self._reference = _mean(reference, shown)

    def add(self, block: Sequence[Watched]) -> None:
        """Bet on a block."""
        self.tests.add(score_gains(self._ranks.p_values(block, self._random)))

    def values(self, answers: Sequence[Watched]) -> list[float | None]:
        """Return the mean."""
        return [_mean(answers, self._shown)]

    def references(self) -> list[float | None]:
        """Return the mean in the reference."""
        return [self._reference]


class _RanksByKind:
    """Conformal p-values of scores that are comparable within a kind of input only.

    Args:
        of: Returns the score of an answer, or None if it has none.
    """

    def __init__(self, of: Callable[[Watched], float | None]) -> None:
        self._of = of
        self._ranks: dict[str, Ranks] = {}

    def begin(self, former: Mapping[str, Array]) -> None:
        """Remember scores before the first, by kind."""
        self._ranks = {kind: Ranks(scores) for kind, scores in former.items()}

    def begin_with(self, answers: Sequence[Watched]) -> None:
        """Remember the scores of answers before the first."""
        self.begin({kind: scores for kind, (_, scores) in self._by_kind(answers).items()})

    def p_values(self, block: Sequence[Watched], generator: np.random.Generator) -> Array:
        """Return the p-values of a block, without answers that have no score."""
        draws = generator.random(len(block))
        p_values = np.full(len(block), np.nan)
        for kind, (rows, scores) in self._by_kind(block).items():
            ranks = self._ranks.setdefault(kind, Ranks(np.empty(0)))
            p_values[rows] = ranks.p_values(scores, draws[rows])
        known: Array = p_values[~np.isnan(p_values)]
        return known

    def _by_kind(self, answers: Sequence[Watched]) -> dict[str, tuple[list[int], Array]]:
        found: dict[str, tuple[list[int], list[float]]] = {}
        for row, one in enumerate(answers):
            score = self._of(one)
            if score is not None:
                rows, scores = found.setdefault(one.kind, ([], []))
                rows.append(row)
                scores.append(score)
        return {kind: (rows, np.array(scores)) for kind, (rows, scores) in found.items()}


class _LearningFamily(_Family[Watched]):
    """Scores of belonging to something learned, against those of held-out examples.

    Args:
        baseline: What inputs are compared with.
        threshold: Returns the threshold of a test, given their number.
    """

    def __init__(self, baseline: Baseline, threshold: Threshold) -> None:
        super().__init__("learning", ["learning"], Martingales(np.full(1, threshold(1)), SCORE_BETS))
        held_out = {kind: scores for kind, scores in baseline.held_out.items() if len(scores) >= LEAST_HELD_OUT}
        self._limits = {kind: float(np.quantile(scores, RARE)) for kind, scores in held_out.items()}
        self._ranks = _RanksByKind(self._score)
        self._ranks.begin({kind: np.array(scores) for kind, scores in held_out.items()})

    @property
    def possible(self) -> bool:
        """Whether there are enough held-out examples."""
        return bool(self._limits)

    def add(self, block: Sequence[Watched]) -> None:
        """Bet on a block."""
        self.tests.add(score_gains(self._ranks.p_values(block, self._random)))

    def values(self, answers: Sequence[Watched]) -> list[float | None]:
        """Return the share of inputs with a low score."""
        low = [score < self._limits[one.kind] for one in answers if (score := self._score(one)) is not None]
        return [sum(low) / len(low) if low else None]

    def references(self) -> list[float | None]:
        """Return the share of held-out examples with a low score."""
        return [RARE]

    def _score(self, one: Watched) -> float | None:
        return one.scope if one.kind in self._limits else None


class _AccuracyFamily(_Family[Judged]):
    """Right answers to inputs of all tasks or of one, against those to held-out examples.

    The limit of the error rate is the upper confidence limit of that of held-out examples, and the margin. Half of the
    probability of a false alarm is for that limit, half for the bets against it.

    Args:
        task: The task; None for all.
        answered: Number of held-out examples that were answered, and of those answered right.
        margin: The fall of the accuracy that is accepted, 0 to 1.
        false_alarm: Probability of a false alarm, ever.
    """

    block = FEEDBACK_BLOCK

    def __init__(self, task: str | None, answered: tuple[int, int], margin: float, false_alarm: float) -> None:
        name = "accuracy" if task is None else f"accuracy {task}"
        super().__init__("accuracy", [name], Martingales(np.full(1, 2 / false_alarm), ERROR_BETS))
        self._task = task
        n, right = answered
        self._reference = right / n if n else None
        limit = 1.0 if n < LEAST_HELD_OUT else highest_rate(n - right, n, false_alarm / 2) + margin
        self.possible = limit < 1
        self._limit = limit

    def add(self, block: Sequence[Judged]) -> None:
        """Bet on a block."""
        if self.possible:
            self.tests.add(error_gains(sum(not one.correct for one in block), len(block), self._limit))

    def values(self, answers: Sequence[Judged]) -> list[float | None]:
        """Return the share of right answers."""
        return [sum(one.correct for one in answers) / len(answers) if answers else None]

    def references(self) -> list[float | None]:
        """Return the share of held-out examples that were answered right."""
        return [self._reference]

    def _meaning(self, name: str) -> str:
        whose = "" if self._task is None else f" to inputs of the task {self._task}"
        return f"share of right answers{whose} among those whose right label is known; {_HELD_OUT_REFERENCE}"


class _Accuracy:
    """The accuracy of the answers whose right labels are known, in the order in which these became known.

    Args:
        family: What tests it.
        options: How to watch.
    """

    def __init__(self, family: _AccuracyFamily, options: WatchOptions) -> None:
        self.family = family
        self._waiting: list[Judged] = []
        self._marks: list[Mark] = []
        self._recent: _Window[Judged] = _Window(options)
        self._number = 0

    def add(self, one: Judged) -> None:
        """Add an answer, and bet on each complete block."""
        self._waiting.append(one)
        self._recent.add(one)
        for block in _blocks(self._waiting, FEEDBACK_BLOCK):
            self._marks.append(Mark(self._number + 1, block[0].time))
            self._number += len(block)
            self.family.add(block)

    def signals(self) -> list[Signal]:
        """Return its signal; none before the first answer, or without enough held-out examples."""
        recent = list(self._recent.answers)
        return self.family.signals(recent, self._marks) if recent and self.family.possible else []


def _accuracies(baseline: Baseline, options: WatchOptions) -> tuple[_Accuracy, dict[str, _Accuracy]]:
    """Return the accuracy of all tasks together, and that of each task that has enough held-out examples.

    If there are several tasks, half of the probability of a false alarm is for all together, and the other half is
    divided evenly over the tasks.
    """
    probability = options.false_alarm / len(_FAMILIES)
    tested = {task: given for task, given in baseline.answered_by_task.items() if given[0] >= LEAST_HELD_OUT}
    if len(baseline.answered_by_task) < 2 or not tested:
        return _Accuracy(_AccuracyFamily(None, baseline.answered, baseline.margin, probability), options), {}
    each = probability / 2 / len(tested)
    return _Accuracy(_AccuracyFamily(None, baseline.answered, baseline.margin, probability / 2), options), {
        task: _Accuracy(_AccuracyFamily(task, given, baseline.task_margin, each), options)
        for task, given in tested.items()
    }


def _mean(answers: Sequence[Watched], of: Callable[[Watched], float | None]) -> float | None:
    known = [value for one in answers if (value := of(one)) is not None]
    return sum(known) / len(known) if known else None
