"""What a workspace has cost, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from conpet.cost import Resources
from conpet.evaluation.composite import Composite, shown_money, weighted_mean


@dataclass(frozen=True, slots=True)
class CostLine:
    """A sum of entries of the ledger.

    Attributes:
        name: A kind of operation, or where operations ran.
        operations: Number of operations; of answers, 0.
        examples: Number of examples learned, compared, tested or answered.
        resources: What was used up.
        kwh: Energy in kilowatt-hours, estimated.
        money: Its price.
    """

    name: str
    operations: int
    examples: int
    resources: Resources
    kwh: float
    money: float


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a task has cost.

    Attributes:
        task: Its name; empty for what concerns all tasks.
        present: Whether it has not been removed.
        updates: Money spent on learning and changing it.
        running: Its share of the money spent on answers, by their number.
        review: Money spent on people's work for it.
        answers: Number of answers it gave.
    """

    task: str
    present: bool
    updates: float
    running: float
    review: float
    answers: int

    @property
    def money(self) -> float:
        """All of it."""
        return self.updates + self.running + self.review

    @property
    def per_thousand(self) -> float | None:
        """Money for 1,000 answers; None without answers."""
        return 1000 * self.money / self.answers if self.answers else None


@dataclass(frozen=True, slots=True)
class Alternative:
    """What another way would have cost: an estimate from the measured unit costs.

    Attributes:
        name: The way.
        learning: Forward-pass tokens of all learning, as if nothing came from the cache.
        learning_money: Their price at the measured price of a token.
        learning_times: Ratio to what was needed; None if nothing was learned.
        answering: Forward-pass tokens of all answers.
        answering_money: Their price in the same way.
        answering_times: Ratio to what was needed; None without answers.
        bytes_stored: Size of what would be stored, backbone included.
        storage_times: Ratio to what is stored, backbone included.
    """

    name: str
    learning: int
    learning_money: float
    learning_times: float | None
    answering: int
    answering_money: float
    answering_times: float | None
    bytes_stored: int
    storage_times: float | None


@dataclass(frozen=True, slots=True)
class VersionCost:
    """What a version of the workspace has cost, and its composite score.

    Attributes:
        generation: The generation.
        time: When it was made, in UTC.
        verb: The change.
        tasks: The tasks that it changed.
        accuracy: Whole accuracy on test examples; None if it was not evaluated.
        tested: Number of test examples.
        updates: Money spent on making it, with refused and interrupted attempts before it.
        answers: Number of answers it gave.
        running: Money spent on answering and storing.
        review: Money spent on people's work while it answered.
        late_days: Days of delay, summed over the labels that it was the first to answer.
        score: The composite score; None without an evaluation, a price of a wrong answer, or a number of answers.
        volume: Number of answers over which its costs are spread; 0 if it is not known.
        estimated: Whether the running cost is an estimate, from evaluations or other versions, because it gave no
            answers.
        per_point: Money spent on it for each point of accuracy gained since the last evaluated version; None if
            accuracy did not rise.
    """

    generation: int
    time: datetime
    verb: str
    tasks: tuple[str, ...]
    accuracy: float | None
    tested: int
    updates: float
    answers: int
    running: float
    review: float
    late_days: int
    score: Composite | None
    volume: int
    estimated: bool
    per_point: float | None


@dataclass(frozen=True, slots=True)
class CostReport:
    """What a workspace has cost.

    Attributes:
        currency: The currency of all money.
        prices: The settings of the section `prices`.
        since: Time of the first entry; None for an empty ledger.
        kinds: By kind of operation.
        sources: The same by where operations ran: in programs and commands, in jobs of a server, in the server itself.
        tasks: By task, in the order of the tasks; removed ones, and what concerns all, last.
        storage_gb_months: Gigabytes stored, times months of 30 days.
        storage_money: Their price.
        answers: Number of answers.
        accuracy: Whole accuracy when it was last measured; None without test examples.
        alternatives: What other ways would have cost (estimates).
        versions: By version, oldest first.
        notes: What is missing or estimated.
    """

    currency: str
    prices: Mapping[str, Any]
    since: datetime | None
    kinds: tuple[CostLine, ...]
    sources: tuple[CostLine, ...]
    tasks: tuple[TaskCost, ...]
    storage_gb_months: float
    storage_money: float
    answers: int
    accuracy: float | None
    alternatives: tuple[Alternative, ...]
    versions: tuple[VersionCost, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def money(self) -> float:
        """All money."""
        return sum(line.money for line in self.kinds) + self.storage_money

    @property
    def kwh(self) -> float:
        """All energy in kilowatt-hours, estimated."""
        return sum(line.kwh for line in self.kinds)

    @property
    def per_thousand(self) -> float | None:
        """Money for 1,000 answers; None without answers."""
        return 1000 * self.money / self.answers if self.answers else None

    @property
    def score(self) -> Composite | None:
        """The mean score of all versions, each weighted by its number of answers; None if one has no score.

        It compares methods, designs or schedules.
        """
        scores = [(one.score, one.volume) for one in self.versions if one.score is not None]
        if not scores or len(scores) < len(self.versions):
            return None
        return weighted_mean(scores)

    @property
    def per_point(self) -> float | None:
        """Money for a point of whole accuracy; None if it was not measured."""
        return self.money / (100 * self.accuracy) if self.accuracy else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "currency": self.currency,
            "prices": dict(self.prices),
            "since": self.since.isoformat() if self.since else None,
            "money": self.money,
            "kwh": self.kwh,
            "answers": self.answers,
            "per_thousand_answers": self.per_thousand,
            "accuracy": self.accuracy,
            "per_point_of_accuracy": self.per_point,
            "score": self.score.to_json() if self.score else None,
            "storage": {"gb_months": self.storage_gb_months, "money": self.storage_money},
            "kinds": [asdict(line) for line in self.kinds],
            "sources": [asdict(line) for line in self.sources],
            "tasks": [
                {**asdict(task), "money": task.money, "per_thousand_answers": task.per_thousand} for task in self.tasks
            ],
            "alternatives": [asdict(each) for each in self.alternatives],
            "versions": [
                {
                    **asdict(version),
                    "time": version.time.isoformat(),
                    "tasks": list(version.tasks),
                    "score": version.score.to_json() if version.score else None,
                }
                for version in self.versions
            ],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        parts = [f"{shown_money(self.money)} {self.currency} spent"]
        if self.per_thousand is not None:
            parts.append(f"{shown_money(self.per_thousand)} for 1,000 of {self.answers:,} answers")
        if self.per_point is not None:
            parts.append(f"{shown_money(self.per_point)} for a point of accuracy")
        return "; ".join(parts)
