"""Watches a stream of answers: shares, scores and decisions against a reference, by sequential tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from conpet.store.prediction_log import Watched
from conpet.watching.martingale import (
    BLOCK,
    SCORE_BETS,
    SHARE_BETS,
    Array,
    Martingales,
    Ranks,
    Shares,
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


@dataclass(frozen=True)
class Baseline:
    """What the workspace knows from learning, with which inputs are compared.

    Attributes:
        labels: The labels of each task, by name.
        held_out: Scores of held-out examples of learned labels, ascending, by kind of input.
    """

    labels: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[float]] = field(default_factory=dict)


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
        self._first = self._last = 0.0
        self._reference: list[Watched] | None = []
        self._waiting: list[Watched] = []
        self._recent: deque[Watched] = deque()
        self._times: list[float] = []  # of the first input of each block after the reference
        self._families: list[_Family] = []
        self._reference_size = 0
        self._learning = _LearningFamily(baseline, self._threshold)
        self._learning_waits: list[Watched] = []
        self._learning_times: list[float] = []

    @property
    def inputs(self) -> int:
        """Number of inputs so far."""
        return self._inputs

    @property
    def alarm(self) -> bool:
        """Whether any signal has raised an alarm."""
        return any(bool((family.tests.alarm >= 0).any()) for family in (*self._families, self._learning))

    def add(self, answers: Iterable[Watched]) -> None:
        """Add answers."""
        for one in answers:
            if not self._inputs:
                self._first = one.time
            self._inputs += 1
            self._last = one.time
            self._remember(one)
            if self._reference is None:
                self._waiting.append(one)
            elif self._belongs_to_reference(one):
                self._reference.append(one)
            else:
                self._begin(self._reference)
                self._waiting.append(one)
            self._learning_waits.append(one)
        self._advance()

    def report(self) -> WatchReport:
        """Return what was found so far."""
        recent = list(self._recent)
        signals = [signal for family in self._families for signal in family.signals(recent, self._times)]
        if self._learning.possible:
            signals += self._learning.signals(recent, self._learning_times)
        complete = self._reference is None
        return WatchReport(
            self._generation,
            self._inputs,
            self._reference_size if self._reference is None else len(self._reference),
            complete,
            len(recent),
            moment(self._first) if self._inputs else None,
            moment(self._last) if self._inputs else None,
            self._start,
            self._options.false_alarm,
            tuple(signals),
        )

    def _remember(self, one: Watched) -> None:
        """Keep the window."""
        self._recent.append(one)
        options = self._options
        if not options.window_seconds:
            while len(self._recent) > options.window:
                self._recent.popleft()
            return
        while self._recent[0].time < one.time - options.window:
            self._recent.popleft()

    def _belongs_to_reference(self, one: Watched) -> bool:
        former = len(self._reference or ())
        if former < LEAST_REFERENCE:
            return True
        options = self._options
        return one.time < self._first + options.reference if options.reference_seconds else former < options.reference

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
        for block in _blocks(self._waiting):
            self._times.append(block[0].time)
            for family in self._families:
                family.add(block)
        for block in _blocks(self._learning_waits):
            self._learning_times.append(block[0].time)
            self._learning.add(block)


def _blocks(waiting: list[Watched]) -> Iterator[list[Watched]]:
    """Yield complete blocks; what is left waits."""
    blocks = len(waiting) // BLOCK
    for number in range(blocks):
        yield waiting[number * BLOCK : (number + 1) * BLOCK]
    del waiting[: blocks * BLOCK]


_FAMILIES = ("tasks", "labels", "declined", "asked", "unfit", "selector", "confidence", "scope", "learning")
Threshold = Callable[[int], float]


class _Family(ABC):
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

    @abstractmethod
    def add(self, block: Sequence[Watched]) -> None:
        """Bet on a block."""

    @abstractmethod
    def values(self, answers: Sequence[Watched]) -> list[float | None]:
        """Return the value of each signal in some answers."""

    @abstractmethod
    def references(self) -> list[float | None]:
        """Return the value of each signal in the reference."""

    def signals(self, recent: Sequence[Watched], times: Sequence[float]) -> list[Signal]:
        """Return the signals.

        Args:
            recent: The window.
            times: Time of the first input of each block.
        """
        tests = self.tests
        found = []
        rows = zip(self._names, self.values(recent), self.references(), strict=True)
        for at, (name, value, reference) in enumerate(rows):
            alarm, since = int(tests.alarm[at]), int(tests.since[at])
            found.append(
                Signal(
                    name,
                    self._meaning(name),
                    value,
                    reference,
                    float(np.exp(min(tests.highest[at], 700.0))),
                    float(tests.thresholds[at]),
                    alarm=alarm >= 0,
                    at=moment(times[min(alarm + 1, len(times) - 1)]) if alarm >= 0 else None,
                    since=moment(times[since]) if alarm >= 0 else None,
                    inputs=(alarm + 1) * BLOCK if alarm >= 0 else None,
                    hint=_HINTS[self._name] if alarm >= 0 else "",
                )
            )
        return found

    def _meaning(self, name: str) -> str:
        if self._name == "tasks":
            return f"share of answers by the {name}"
        return f"share of answers with the {name}" if self._name == "labels" else _MEANINGS[self._name]


class _SharesFamily(_Family):
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


class _ScoresFamily(_Family):
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


class _LearningFamily(_Family):
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


def _mean(answers: Sequence[Watched], of: Callable[[Watched], float | None]) -> float | None:
    known = [value for one in answers if (value := of(one)) is not None]
    return sum(known) / len(known) if known else None
