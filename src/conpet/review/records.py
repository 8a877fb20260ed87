"""Items of review, verdicts and counts, as callers see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from conpet.data import Example
from conpet.types import Addition, Candidate


class ItemKind(StrEnum):
    """Why an input is in review."""

    REPORTED = "reported"
    RANDOM = "random"
    UNCERTAIN = "uncertain"
    DECLINED = "declined"
    IMPORTED = "imported"


DRAWN = (ItemKind.RANDOM, ItemKind.UNCERTAIN, ItemKind.DECLINED)
"""The kinds that are drawn from the record of predictions."""


class ItemState(StrEnum):
    """Where an item is: open, disputed (verdicts differ), skipped by all who saw it, or done."""

    OPEN = "open"
    DISPUTED = "disputed"
    SKIPPED = "skipped"
    DONE = "done"


class VerdictKind(StrEnum):
    """What a reviewer says of an item.

    "confirm": the answer is right, also if it was to decline. "correct": another learned label is right. "new": a label
    that is not learned yet is right. "none": it belongs to nothing learned. "skip": the reviewer cannot say.
    """

    CONFIRM = "confirm"
    CORRECT = "correct"
    NEW = "new"
    NONE = "none"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reviewer said of an item.

    Attributes:
        reviewer: Who.
        verdict: What.
        label: The right label; None for "none" and "skip", and for a confirmed refusal.
        note: A note.
        time: When.
        seconds: Time taken.
    """

    reviewer: str
    verdict: VerdictKind
    label: str | None
    note: str
    time: datetime
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"verdict": str(self.verdict), "time": self.time.isoformat()}


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """An input in review, with the answer that it got.

    Attributes:
        id: Its number.
        kind: Why it is in review.
        state: Where it is.
        example: The input.
        created: When it came into review.
        prediction: Number of the recorded prediction, or None.
        request: Id of the request of that prediction, or None.
        place: Number of the input in the request, from 1.
        generation: The generation that answered, or None if no answer is known.
        task: The task that answered.
        label: The likeliest label, also if it was not given as the answer.
        score: Probability of the label if the input belongs to something learned.
        confidence: Probability that the label is right.
        decision: "answer", "ask" or "decline".
        reports: How often it was reported as wrong.
        suggested: The right label by the last report that named one.
        note: The note of the last report that had one.
        reported_by: Who wrote it.
        double: Whether two reviewers look at it, to measure their agreement.
        right: The right label once it is done; None if nothing learned fits.
        new: Whether the right label was not learned when it was given.
        learned: The generation that learned it, or None.
        claimed_by: The reviewer who has it, or None.
        claimed_until: Until when.
        verdicts: What reviewers said, oldest first.
        candidates: Present answers to choose from, likeliest first, if asked for.
    """

    id: int
    kind: ItemKind
    state: ItemState
    example: Example
    created: datetime
    prediction: int | None = None
    request: str | None = None
    place: int | None = None
    generation: int | None = None
    task: str | None = None
    label: str | None = None
    score: float | None = None
    confidence: float | None = None
    decision: str | None = None
    reports: int = 0
    suggested: str | None = None
    note: str = ""
    reported_by: str = ""
    double: bool = False
    right: str | None = None
    new: bool = False
    learned: int | None = None
    claimed_by: str | None = None
    claimed_until: datetime | None = None
    verdicts: tuple[Verdict, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def answer(self) -> str | None:
        """The label that was answered or asked about; None if the input was declined, or no answer is known."""
        return None if self.decision == "decline" else self.label

    @property
    def answered(self) -> bool:
        """Whether an answer is known that can be confirmed."""
        return self.decision == "decline" or self.label is not None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {
            "kind": str(self.kind),
            "state": str(self.state),
            "example": self.example.to_json(),
            "created": self.created.isoformat(),
            "claimed_until": self.claimed_until.isoformat() if self.claimed_until else None,
            "verdicts": [one.to_json() for one in self.verdicts],
            "candidates": [one.to_json() for one in self.candidates],
        }


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a draw has put into review; `str(...)` is a summary.

    Attributes:
        batch: Its number; None if there was nothing to draw from.
        population: Number of recorded predictions that it was drawn from.
        sizes: Number of them by stratum: "sure", "uncertain", "declined".
        drawn: Number that were drawn, by kind.
        added: Number of new items; the other inputs were in review already.
        unreadable: Number of predictions left out because their inputs are not recorded.
        unlabelled: Number left out because their task has no labels.
    """

    batch: int | None
    population: int
    sizes: Mapping[str, int]
    drawn: Mapping[str, int]
    added: int
    unreadable: int
    unlabelled: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{number:,} {kind}" for kind, number in self.drawn.items()]
        return f"{', '.join(parts)}; {self.added:,} new in review (from {self.population:,} recorded predictions)"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has put into review.

    Attributes:
        items: Number of new items.
        known: Number of inputs that were in review already.
        verdicts: Number of verdicts taken over.
        unchanged: Number of verdicts that were there already, or whose items were learned.
    """

    items: int
    known: int
    verdicts: int
    unchanged: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far reviewers agree on items that two or more of them have answered.

    Attributes:
        items: Number of such items.
        observed: Share of pairs of verdicts that agree; None without items.
        alpha: Krippendorff's alpha for nominal data: 1 is perfect, 0 is chance; None if all gave one label.
    """

    items: int
    observed: float | None
    alpha: float | None


@dataclass(frozen=True, slots=True)
class ReviewerCount:
    """What one reviewer has done: number of verdicts, of skipped items among them, and minutes."""

    reviewer: str
    verdicts: int
    skipped: int
    minutes: float


@dataclass(frozen=True, slots=True)
class ReviewStatus:
    """How far the review is.

    Attributes:
        states: Number of items by state.
        waiting: Number of items that are not done, by kind.
        claimed: Number of items that reviewers have at the moment.
        learnable: Number of items that are done, have a right label and are not learned.
        new_labels: Labels that reviewers have introduced and no task has, with the number of their items.
        learned: Number of items that were learned.
        reviewers: By reviewer.
        minutes: Minutes of all reviewers.
        agreement: How far they agree.
        last_draw: When was last drawn, or None.
        text_missing: Why recorded predictions cannot be drawn at present, or None.
        first_deleted: When the oldest item that waits to be learned will be deleted by `log.keep_days`, or None.
    """

    states: Mapping[str, int]
    waiting: Mapping[str, int]
    claimed: int
    learnable: int
    new_labels: Mapping[str, int]
    learned: int
    reviewers: tuple[ReviewerCount, ...]
    minutes: float
    agreement: Agreement
    last_draw: datetime | None = None
    text_missing: str | None = None
    first_deleted: datetime | None = None

    @property
    def total(self) -> int:
        """Number of items."""
        return sum(self.states.values())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        times = {
            "last_draw": self.last_draw.isoformat() if self.last_draw else None,
            "first_deleted": self.first_deleted.isoformat() if self.first_deleted else None,
        }
        return asdict(self) | times | {"reviewers": [asdict(one) for one in self.reviewers]}


class HeldBecause(StrEnum):
    """Why an item cannot be learned: its label is not learned any more, has no task yet, or contradicts an example."""

    NOT_LEARNED = "not-learned"
    NO_TASK = "no-task"
    CONTRADICTS = "contradicts"


@dataclass(frozen=True, slots=True)
class Held:
    """An item that is done and cannot be learned as it is: its number, its label, and why, also in a sentence."""

    item: int
    label: str
    because: HeldBecause
    reason: str


@dataclass(frozen=True, slots=True)
class ReviewPlan:
    """What learning the reviewed items would do.

    Attributes:
        additions: What each task gets.
        items: Number of items that would be learned.
        held: Items that would not, and why.
    """

    additions: tuple[Addition, ...] = ()
    items: int = 0
    held: tuple[Held, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "additions": [asdict(one) for one in self.additions],
            "items": self.items,
            "held": [asdict(one) for one in self.held],
        }
