"""The gate: whether a change makes the answers to earlier labels worse, with the examples that show it.

Pure functions of answers before and after the change; imports no torch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from math import ceil, log, log1p
from typing import Any

from conpet.config import GateConfig
from conpet.errors import listed, plural
from conpet.evaluation.answers import AnsweredExample
from conpet.evaluation.composite import Composite, shown_money

GATE = "gate"
"""Key of an event's detail: what the gate found (`GateReport.summary`), or that it was off (`OFF`)."""
OFF = {"verdict": "off"}
"""The gate's entry in the history for a change that was made without it."""
REFUSED_AT = "refused_at"
"""Key of the gate's entry for a candidate that was made: when it was refused; numbers of candidates are used again."""
_SHOWN = 5
"""Most labels and tasks that a message lists."""


class Level(StrEnum):
    """What a comparison covers."""

    LABEL = "label"
    TASK = "task"
    WHOLE = "whole"


class Verdict(StrEnum):
    """What a comparison shows.

    Attributes:
        BROKEN: The accuracy falls by more than the margin.
        HELD: It does not fall by as much as the margin.
        NOT_PROVEN: There are too few examples to say either.
    """

    BROKEN = "broken"
    HELD = "held"
    NOT_PROVEN = "not proven"


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """A held-out example with its answer before and after a change."""

    before: AnsweredExample
    after: AnsweredExample

    @property
    def changed(self) -> bool:
        """Whether the answer differs."""
        return self.before.answer != self.after.answer

    @property
    def lost(self) -> bool:
        """Whether a right answer becomes wrong."""
        return self.before.correct and not self.after.correct

    @property
    def gained(self) -> bool:
        """Whether a wrong answer becomes right."""
        return self.after.correct and not self.before.correct

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, without the input."""
        before, after = self.before, self.after
        return {
            "task": before.task,
            "label": before.label,
            "row": before.row,
            "before": {"label": before.answer, "task": before.answered_by, "score": before.score},
            "after": {"label": after.answer, "task": after.answered_by, "score": after.score},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AnswerPair:
        """Rebuild a pair from `to_json`."""
        label, task, row = document["label"], document["task"], document["row"]
        before, after = (
            AnsweredExample(label, answer["label"], answer["score"], task, answer["task"], row)
            for answer in (document["before"], document["after"])
        )
        return cls(before, after)


@dataclass(frozen=True, slots=True)
class Taker:
    """A label that gets answers that were right before.

    Attributes:
        label: The label.
        task: Its task.
        new: Whether the change adds it.
        count: Number of these answers.
    """

    label: str
    task: str
    new: bool
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The held-out examples of one label, one task or all, before and after a change.

    Attributes:
        level: What it covers.
        name: The label or the task; empty for all.
        task: The task; empty for all.
        n: Number of examples.
        right_before: Number that were answered right before.
        lost: Number that were answered right before and wrong after.
        gained: Number that were answered wrong before and right after.
        takers: The labels that get the lost answers, the most frequent first.
        p: p-value against a fall of at most the margin, corrected for all comparisons of this level; None without
            examples.
        verdict: What it shows.
    """

    level: Level
    name: str
    task: str
    n: int
    right_before: int
    lost: int
    gained: int
    takers: tuple[Taker, ...] = ()
    p: float | None = None
    verdict: Verdict = Verdict.NOT_PROVEN

    @property
    def right_after(self) -> int:
        """Number that are answered right after."""
        return self.right_before - self.lost + self.gained

    @property
    def fall(self) -> float:
        """Fall of the accuracy in points; negative for a rise, 0 without examples."""
        return 100 * (self.lost - self.gained) / self.n if self.n else 0.0

    @property
    def shown(self) -> str:
        """Its name for people."""
        match self.level:
            case Level.LABEL:
                return f"label {self.name!r} of task {self.task!r}"
            case Level.TASK:
                return f"task {self.name!r}"
            case Level.WHOLE:
                return "all earlier labels together"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "level": str(self.level),
            "name": self.name,
            "task": self.task,
            "n": self.n,
            "right_before": self.right_before,
            "right_after": self.right_after,
            "lost": self.lost,
            "gained": self.gained,
            "fall": self.fall,
            "p": self.p,
            "verdict": str(self.verdict),
            "takers": [
                {"label": one.label, "task": one.task, "new": one.new, "count": one.count} for one in self.takers
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Comparison:
        """Rebuild a comparison from `to_json`."""
        return cls(
            Level(document["level"]),
            document["name"],
            document["task"],
            document["n"],
            document["right_before"],
            document["lost"],
            document["gained"],
            tuple(Taker(**one) for one in document["takers"]),
            document["p"],
            Verdict(document["verdict"]),
        )

    def __str__(self) -> str:
        line = f"{self.shown}: {self.right_before:,} of {plural(self.n, 'held-out example')} right before, "
        line += f"{self.right_after:,} after"
        if self.p is not None and self.verdict is Verdict.BROKEN:
            line += f" (p = {self.p:.2g})"
        takers = [f"{one.count:,} to {one.label!r}{' (new)' if one.new else ''}" for one in self.takers]
        return f"{line}; answers lost: {listed(takers, _SHOWN)}" if takers else line


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found about a change; `str(report)` is a sentence.

    Attributes:
        generation: The generation that the change was made for.
        config: The margins and the confidence.
        comparisons: The comparisons: all earlier labels together, each task, each label.
        changed: The examples whose answers differ, also from one wrong answer to another.
        available: Number of held-out examples that the earlier tasks have; those beyond the limits are not compared.
        left_out: Number of held-out examples of changed tasks that are not compared, because the other version was
            trained on them, or a new version gives them another label.
        versions: Numbers of the versions that the change goes back to, by task; their held-out examples are compared
            instead of those of the present ones.
        verb: The change.
        tasks: Names of the tasks that it learns, changes or removes.
        score_before: What 1,000 answers cost before, if that is an objective: the held-out examples of earlier and new
            labels are answered, and those of new ones are wrong.
        score_after: The same after, with the cost of the change.
    """

    generation: int
    config: GateConfig
    comparisons: tuple[Comparison, ...] = ()
    changed: tuple[AnswerPair, ...] = ()
    available: int = 0
    left_out: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)
    verb: str = ""
    tasks: tuple[str, ...] = ()
    score_before: Composite | None = None
    score_after: Composite | None = None

    @property
    def title(self) -> str:
        """The change with the tasks that it concerns."""
        return " ".join([self.verb, listed([repr(name) for name in self.tasks], _SHOWN)]).strip()

    @property
    def compared(self) -> int:
        """Number of examples compared."""
        return next((one.n for one in self.comparisons if one.level is Level.WHOLE), 0)

    @property
    def broken(self) -> tuple[Comparison, ...]:
        """The comparisons that show a fall larger than the margin, the largest fall first."""
        found = [one for one in self.comparisons if one.verdict is Verdict.BROKEN]
        return tuple(sorted(found, key=lambda one: -one.fall))

    @property
    def fell(self) -> dict[Level, int]:
        """Number of labels and tasks that fall by more than the margin, and 1 for the whole if it does."""
        numbers = Counter(one.level for one in self.broken)
        return {level: numbers[level] for level in Level if numbers[level]}

    @property
    def not_proven(self) -> tuple[Comparison, ...]:
        """The comparisons with too few examples."""
        return tuple(one for one in self.comparisons if one.verdict is Verdict.NOT_PROVEN)

    @property
    def needed(self) -> dict[Level, int | None]:
        """The fewest held-out examples that show for each level that nothing falls, if no answer changes.

        None for a margin of 0, which no number of examples can show.
        """
        doubt = 1 - self.config.confidence
        margins = {level: points / 100 for level, points in margins_of(self.config).items()}
        return {level: ceil(log(doubt) / log1p(-margin)) if margin else None for level, margin in margins.items()}

    @property
    def refused(self) -> bool:
        """Whether the change is refused."""
        return bool(self.broken) or self.dearer or (self.config.require_proof and bool(self.not_proven))

    @property
    def dearer(self) -> bool:
        """Whether answers get dearer and that is an objective."""
        if self.config.objective != "composite" or self.score_before is None or self.score_after is None:
            return False
        return self.score_after.total > self.score_before.total

    @property
    def note(self) -> str | None:
        """A sentence on earlier tasks about which too little is known; None if there are none."""
        tasks = [one for one in self.not_proven if one.level is Level.TASK]
        if not tasks:
            return None
        needed, fewest = self.needed[Level.TASK], min(one.n for one in tasks)
        have = f"has {fewest:,}" if len(tasks) == 1 else f"the fewest is {fewest:,}"
        return (
            f"gate: no earlier held-out answer broke, but {plural(len(tasks), 'earlier task')} "
            f"({listed([one.name for one in tasks], _SHOWN)}) {'has' if len(tasks) == 1 else 'have'} too few held-out "
            f"examples to show a fall below {self.config.task_margin:g} points"
            f"{f' (at least {needed:,} validation examples are needed, {have})' if needed else ''}"
        )

    @property
    def remark(self) -> str | None:
        """A sentence on held-out examples of changed tasks that were not compared; None if all were."""
        if not self.left_out:
            return None
        return (
            f"gate: {self.left_out:,} of {self.available:,} held-out examples were not compared, because the new "
            "version was trained on them or gives them another label"
        )

    def judged(self, config: GateConfig) -> GateReport:
        """Return the same comparisons, judged with other margins or another confidence."""
        return replace(self, config=config, comparisons=judge(self.comparisons, config))

    def summary(self) -> dict[str, Any]:
        """Return what the history keeps: counts without names, which may have to be forgotten."""
        return {
            "verdict": "refused" if self.refused else "passed",
            "examples": self.compared,
            "changed": len(self.changed),
            "broken": len(self.broken),
            "not_proven": len(self.not_proven),
            **({"fell": {str(level): number for level, number in self.fell.items()}} if self.broken else {}),
            **({"left_out": self.left_out} if self.left_out else {}),
            **({"score": [one.total for one in self._scores]} if self._scores else {}),
        }

    @property
    def _scores(self) -> tuple[Composite, ...]:
        """The scores before and after; empty if they are no objective."""
        return tuple(one for one in (self.score_before, self.score_after) if one is not None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, without inputs."""
        return {
            "verb": self.verb,
            "tasks": list(self.tasks),
            "generation": self.generation,
            "refused": self.refused,
            "config": self.config.model_dump(mode="json"),
            "available": self.available,
            "left_out": self.left_out,
            "versions": dict(self.versions),
            "needed": {str(level): number for level, number in self.needed.items()},
            "comparisons": [one.to_json() for one in self.comparisons],
            "changed": [pair.to_json() for pair in self.changed],
            "scores": [one.to_json() for one in self._scores],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> GateReport:
        """Rebuild a report from `to_json`."""
        return cls(
            document["generation"],
            GateConfig.parse(document["config"]),
            tuple(map(Comparison.from_json, document["comparisons"])),
            tuple(map(AnswerPair.from_json, document["changed"])),
            document["available"],
            document["left_out"],
            document.get("versions", {}),
            document["verb"],
            tuple(document["tasks"]),
            *map(Composite.from_json, document.get("scores", ())),
        )

    def __str__(self) -> str:
        sentence = self._answers()
        if not self.dearer:
            return sentence
        before, after = (shown_money(one.total) for one in self._scores)
        return f"{sentence}; 1,000 answers would cost {after} instead of {before}"

    def _answers(self) -> str:
        if not self.compared:
            return "there are no held-out examples of earlier labels to compare"
        counts = f"{self.compared:,} held-out answers compared, {len(self.changed):,} changed"
        if self.broken:
            levels = dict.fromkeys(one.level for one in self.broken)
            margins = ", ".join(
                f"{level} {margin:g}" for level, margin in margins_of(self.config).items() if level in levels
            )
            return f"{counts}; {self._counted(self.broken)} would fall by more than the margin (points: {margins})"
        unknown = f"; not proven for {self._counted(self.not_proven)}" if self.not_proven else ""
        return f"{counts}; none would fall by more than its margin{unknown}"

    @staticmethod
    def _counted(found: Sequence[Comparison]) -> str:
        """Return how many labels and tasks there are, in words."""
        numbers = Counter(one.level for one in found)
        parts = [plural(numbers[level], level) for level in (Level.LABEL, Level.TASK) if numbers[level]]
        parts += ["the whole"] if numbers[Level.WHOLE] else []
        return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """A change that was computed but not made.

    Attributes:
        number: Its number in the workspace.
        verb: The change.
        generation: The generation that it was made for.
        created: Time, in UTC.
        bytes: Size of what it would store.
        outdated: Whether the workspace has changed since, so that it can no longer be made.
    """

    number: int
    verb: str
    generation: int
    created: datetime
    bytes: int
    outdated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"created": self.created.isoformat()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CandidateRecord:
        """Rebuild a record from `to_json`."""
        return cls(**{**document, "created": datetime.fromisoformat(document["created"])})


def compare(
    pairs: Iterable[AnswerPair], labels: Mapping[str, str], new: Iterable[str], config: GateConfig
) -> tuple[Comparison, ...]:
    """Compare answers before and after a change, over all examples, by task and by label.

    Args:
        pairs: The examples with their answers.
        labels: The task of each label that is known before and after the change; labels without examples are not
            proven.
        new: Labels that the change adds.
        config: The margins and the confidence.
    """
    by_label = {label: _Counted() for label in labels}
    by_task = defaultdict(_Counted, {task: _Counted() for task in labels.values()})
    every = _Counted()
    for pair in pairs:
        label = pair.before.label
        for counted in (every, by_label[label], by_task[labels[label]]):
            counted.add(pair)
    if not labels:
        return ()
    added = frozenset(new)
    found = [every.comparison(Level.WHOLE, "", "", added)]
    found += [own.comparison(Level.TASK, task, task, added) for task, own in by_task.items()]
    found += [
        own.comparison(Level.LABEL, label, labels[label], added)
        for label, own in by_label.items()
        if not label.startswith("\0")  # the class of a task without labels
    ]
    return judge(found, config)


def margins_of(config: GateConfig) -> dict[Level, float]:
    """Return the margin of each level, in points."""
    return {Level.LABEL: config.label_margin, Level.TASK: config.task_margin, Level.WHOLE: config.whole_margin}


def judge(comparisons: Sequence[Comparison], config: GateConfig) -> tuple[Comparison, ...]:
    """Return comparisons with their verdicts.

    The probability of a wrong refusal, 1 - confidence, is divided equally between labels, tasks and the whole; within
    labels and tasks it is held by Holm's correction. How many answers of a label change by chance is estimated from all
    examples. What is shown to hold needs no correction, because a change is proven only if all comparisons are.

    Args:
        comparisons: The comparisons.
        config: The margins and the confidence.
    """
    from conpet.evaluation.significance import holm, no_worse_p, worse_p  # imports numpy

    alpha = 1 - config.confidence
    margins = margins_of(config)
    whole = next((one for one in comparisons if one.level is Level.WHOLE and one.n), None)
    chance = {Level.LABEL: whole.gained / whole.n} if whole else {}
    judged: dict[int, Comparison] = {}
    for level, points in margins.items():
        margin = points / 100
        places = [place for place, one in enumerate(comparisons) if one.level is level]
        own = [comparisons[place] for place in places]
        p_values = holm(
            [worse_p(one.n, one.lost, one.gained, margin, chance.get(level)) if one.n else None for one in own]
        )
        for place, one, p in zip(places, own, p_values, strict=True):
            verdict = Verdict.NOT_PROVEN
            if p is not None and p <= alpha / len(margins):
                verdict = Verdict.BROKEN
            elif one.n and no_worse_p(one.n, one.lost, one.gained, margin) <= alpha:
                verdict = Verdict.HELD
            judged[place] = replace(one, p=p, verdict=verdict)
    return tuple(judged[place] for place in range(len(comparisons)))


@dataclass(slots=True)
class _Counted:
    """Counts the examples that a comparison covers."""

    n: int = 0
    right_before: int = 0
    changed: list[AnswerPair] = field(default_factory=list)

    def add(self, pair: AnswerPair) -> None:
        """Count an example."""
        self.n += 1
        self.right_before += pair.before.correct
        if pair.changed:
            self.changed.append(pair)

    def comparison(self, level: Level, name: str, task: str, new: frozenset[str]) -> Comparison:
        """Return the comparison; its verdict comes from `judge`."""
        lost = [pair.after for pair in self.changed if pair.lost]
        takers = Counter((str(one.answer), one.answered_by) for one in lost)
        return Comparison(
            level,
            name,
            task,
            self.n,
            self.right_before,
            len(lost),
            sum(pair.gained for pair in self.changed),
            tuple(Taker(label, owner, label in new, count) for (label, owner), count in takers.most_common()),
        )
