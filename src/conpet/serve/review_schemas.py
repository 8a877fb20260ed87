"""Requests and responses of the endpoints of the review queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

from conpet.data import Example
from conpet.serve.schemas import Input

_Strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Kind = Literal["reported", "random", "uncertain", "declined", "imported"]
State = Literal["open", "disputed", "skipped", "done"]
VerdictName = Literal["confirm", "correct", "new", "none", "skip"]
Count = Annotated[int, Field(ge=0, le=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Label = Annotated[str, Field(min_length=1, max_length=1000)]
Note = Annotated[str, Field(max_length=4000)]
Person = Annotated[str, Field(min_length=1, max_length=100)]
_REVIEWER = "the person, if one key serves several"

_TIME = "2026-11-29T04:02:44+00:00"
_ITEM: JsonDict = {
    "id": 12,
    "kind": "uncertain",
    "state": "open",
    "example": {"kind": "text", "text": "my card was swallowed"},
    "created": _TIME,
    "prediction": 81234,
    "request": "5f0d1c2b9a31e7c4",
    "place": 1,
    "generation": 11,
    "task": "cards",
    "label": "lost_card",
    "score": 0.48,
    "confidence": 0.41,
    "decision": "ask",
    "reports": 0,
    "suggested": None,
    "note": "",
    "reported_by": "",
    "double": False,
    "right": None,
    "new": False,
    "learned": None,
    "claimed_by": "key 3f1c",
    "claimed_until": _TIME,
    "verdicts": [],
    "candidates": [{"label": "lost_card", "score": 0.48, "task": "cards"}],
}
_DRAWN: JsonDict = {
    "batch": 3,
    "population": 9000,
    "sizes": {"sure": 8100, "uncertain": 700, "declined": 200},
    "drawn": {"random": 50, "uncertain": 25, "declined": 25},
    "added": 97,
    "unreadable": 0,
    "unlabelled": 0,
}
_STATUS: JsonDict = {
    "states": {"open": 40, "disputed": 1, "skipped": 2, "done": 57},
    "waiting": {"random": 20, "uncertain": 20},
    "claimed": 1,
    "learnable": 50,
    "new_labels": {"card_expired": 3},
    "learned": 0,
    "reviewers": [{"reviewer": "key 3f1c", "verdicts": 66, "skipped": 2, "minutes": 9.5}],
    "minutes": 9.5,
    "agreement": {"items": 6, "observed": 0.83, "alpha": 0.8},
    "last_draw": _TIME,
    "text_missing": None,
    "first_deleted": None,
}
_ACCURACY: JsonDict = {
    "estimate": {"value": 0.93, "low": 0.89, "high": 0.96, "population": 9000, "reviewed": 97},
    "decisions": {},
    "batches": [],
    "skipped": 1,
    "missing": {},
}
_PLAN: JsonDict = {
    "additions": [
        {
            "task": "cards",
            "new": False,
            "labels": ["lost_card"],
            "new_labels": [],
            "train": 12,
            "validation": 0,
            "test": 0,
            "stored": 1,
            "repeated": 0,
        }
    ],
    "items": 13,
    "held": [
        {
            "item": 40,
            "label": "card_frozen",
            "because": "no-task",
            "reason": "the label is new: say which task learns it",
        }
    ],
}


class DrawRequest(BaseModel):
    """How many recorded predictions to draw: of all, and more of those in doubt and of those declined.

    `below` is the confidence below which an answer is in doubt; `double` the share that two people review; `since` a
    day, a time or a duration like 30d, before which nothing is drawn.
    """

    model_config = _Strict

    random: Count = 50
    uncertain: Count = 25
    declined: Count = 25
    below: Share = 0.5
    double: Share = 0.0
    since: Annotated[str, Field(max_length=40)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None


class NextRequest(BaseModel):
    """Whose turn it is, and for how long: `candidates` adds so many present answers to choose from."""

    model_config = _Strict

    kind: Kind | None = None
    minutes: Annotated[float, Field(gt=0, le=1440)] = 15.0
    candidates: Annotated[int, Field(ge=0, le=50)] = 0
    reviewer: Annotated[Person, Field(description=_REVIEWER)] | None = None


class AnswerRequest(BaseModel):
    """What is right: "confirm", "correct" or "new" with a label, "none" (nothing learned fits) or "skip".

    `seconds` is the time that it took; without it, the time since the item was taken.
    """

    model_config = _Strict

    verdict: VerdictName
    label: Label | None = None
    note: Note = ""
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    reviewer: Annotated[Person, Field(description=_REVIEWER)] | None = None


class UndoRequest(BaseModel):
    """Whose last verdict is taken back."""

    model_config = _Strict

    reviewer: Annotated[Person, Field(description=_REVIEWER)] | None = None


class ReportRequest(BaseModel):
    """An answer that is wrong: to an input, to input `place` of a request, or both."""

    model_config = _Strict

    input: Input | None = None
    request_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    place: Annotated[int, Field(ge=1, le=2**31)] = 1
    label: Label | None = None
    note: Note = ""

    def example(self) -> Example | None:
        """Return the input as an example."""
        if self.input is None or isinstance(self.input, str):
            return None if self.input is None else Example.of_text(self.input)
        return self.input.example()


class LearnReviewedRequest(BaseModel):
    """Which task gets new labels: a known one (`into`), or a new one (`name`); without either, they wait.

    `evaluate` measures all tasks afterwards; `gate` protects earlier answers (false needs the role operate).
    """

    model_config = _Strict

    into: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    evaluate: bool = True
    gate: bool = True


class ImportRequest(BaseModel):
    """Tasks of Label Studio (JSON or JSON-MIN), or rows (texts, or objects with the fields of a data file).

    Labels of rows are taken as the verdicts of the caller.
    """

    model_config = _Strict

    tasks: Annotated[list[dict[str, JsonValue]], Field(max_length=100_000)] = []
    rows: Annotated[list[str | dict[str, JsonValue]], Field(max_length=100_000)] = []
    double: Share = 0.0


class ItemFields(BaseModel):
    """An input in review, with the answer that it got and what reviewers said."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ITEM]})

    id: int
    kind: Kind
    state: State
    example: dict[str, Any]
    created: str
    prediction: int | None
    request: str | None
    place: int | None
    generation: int | None
    task: str | None
    label: str | None
    score: float | None
    confidence: float | None
    decision: str | None
    reports: int
    suggested: str | None
    note: str
    reported_by: str
    double: bool
    right: str | None
    new: bool
    learned: int | None
    claimed_by: str | None
    claimed_until: str | None
    verdicts: list[dict[str, Any]]
    candidates: list[dict[str, Any]]


class NextResponse(BaseModel):
    """The next item; null if none waits."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": _ITEM}]})

    item: ItemFields | None


class ItemsResponse(BaseModel):
    """Items, oldest first; `next` is the `after` of the next page, or null."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_ITEM], "next": None}]})

    items: list[ItemFields]
    next: int | None


class ReportResponse(BaseModel):
    """The number of the item, and whether somebody has to look at it: not if it was reviewed, with another label."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": 12, "waits": True}]})

    item: int
    waits: bool


class DrawResponse(BaseModel):
    """What was drawn; `batch` is null if nothing was recorded since the last draw."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DRAWN]})

    batch: int | None
    population: int
    sizes: dict[str, int]
    drawn: dict[str, int]
    added: int
    unreadable: int
    unlabelled: int


class StatusResponse(BaseModel):
    """How far the review is."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STATUS]})

    states: dict[str, int]
    waiting: dict[str, int]
    claimed: int
    learnable: int
    new_labels: dict[str, int]
    learned: int
    reviewers: list[dict[str, Any]]
    minutes: float
    agreement: dict[str, Any]
    last_draw: str | None
    text_missing: str | None
    first_deleted: str | None


class AccuracyResponse(BaseModel):
    """The accuracy of recorded answers, estimated from those that were drawn and reviewed, with 95% intervals."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ACCURACY]})

    estimate: dict[str, Any]
    decisions: dict[str, dict[str, Any]]
    batches: list[dict[str, Any]]
    skipped: int
    missing: dict[str, str]


class PlanResponse(BaseModel):
    """What learning the reviewed items would give to each task, and which items wait, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PLAN]})

    additions: list[dict[str, Any]]
    items: int
    held: list[dict[str, Any]]


class ImportResponse(BaseModel):
    """What was imported; verdicts that were there already, or of learned items, are `unchanged`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": 40, "known": 3, "verdicts": 43, "unchanged": 0}]}
    )

    items: int
    known: int
    verdicts: int
    unchanged: int
