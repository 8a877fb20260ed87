"""Requests and responses of the endpoints that read."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator
from pydantic.config import JsonDict

from conpet.data import Example, Span
from conpet.types import Decision

_Strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _finite(value: JsonValue) -> JsonValue:
    """Return a value if it can be written as JSON, which has neither NaN nor infinite numbers."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("NaN and infinite numbers are not JSON") from None
    return value


Id = Annotated[JsonValue, AfterValidator(_finite)]
Words = Annotated[str, Field(json_schema_extra={"pattern": r"\S"})]
"""Text that is not blank; checked with the other inputs, for one error for all of them."""


class SpanFields(BaseModel):
    """Words `start` to `end` (exclusive) of an input's `tokens`, counted from 0."""

    model_config = _Strict

    start: Annotated[int, Field(ge=0, le=1_000_000)]
    end: Annotated[int, Field(ge=0, le=1_000_000)]

    def span(self) -> Span:
        """Return the span."""
        return Span(self.start, self.end)


class TextInput(BaseModel):
    """A text."""

    model_config = _Strict

    text: Words
    id: Id = None

    def example(self) -> Example:
        """Return the input as an example."""
        return Example.of_text(self.text, id=self.id)


class RelationInput(BaseModel):
    """Words in which two entities are marked, whose relation is asked."""

    model_config = _Strict

    tokens: Annotated[list[str], Field(json_schema_extra={"minItems": 1})]
    head: SpanFields
    tail: SpanFields
    id: Id = None

    def example(self) -> Example:
        """Return the input as an example."""
        return Example.of_relation(self.tokens, self.head.span(), self.tail.span(), id=self.id)


class MentionInput(BaseModel):
    """Words in which an entity is marked, whose type is asked."""

    model_config = _Strict

    tokens: Annotated[list[str], Field(json_schema_extra={"minItems": 1})]
    mention: SpanFields
    id: Id = None

    def example(self) -> Example:
        """Return the input as an example."""
        return Example.of_mention(self.tokens, self.mention.span(), id=self.id)


def _form(value: object) -> str:
    """Return the tag of an input's form; the errors of an input are then those of its form alone."""
    match value:
        case dict():
            spans = "#relation" if value.keys() & {"tokens", "head", "tail"} else "#text"
            return "#mention" if "mention" in value else spans
        case list():
            return "#list"
        case _:
            return "#string"


_Forms = (
    Annotated[Words, Tag("#string")]
    | Annotated[TextInput, Tag("#text")]
    | Annotated[RelationInput, Tag("#relation")]
    | Annotated[MentionInput, Tag("#mention")]
)
Input = Annotated[_Forms, Discriminator(_form)]
Inputs = Annotated[_Forms | Annotated[list[Input], Tag("#list"), Field(min_length=1)], Discriminator(_form)]


class PredictRequest(BaseModel):
    """Inputs to answer.

    Attributes:
        inputs: One input or a list of them.
        top_n: Number of labels with scores for each input, the answer included.
        min_score: Answers with a lower score are rejected: `label` is null, and `rejected` has the answer.
        tasks: Names of the tasks to answer among; without it, all.
        explain: Whether to return why each input was answered as it was.
        min_generation: The oldest generation that may answer; the request waits for it.
    """

    model_config = _Strict

    inputs: Inputs
    top_n: Annotated[int, Field(ge=1, le=1000)] = 3
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    tasks: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    explain: bool = False
    min_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None

    def examples(self) -> list[Example]:
        """Return the inputs as examples."""
        inputs = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        return [Example.of_text(one) if isinstance(one, str) else one.example() for one in inputs]


_TIME = "2026-11-29T04:02:44+00:00"
_PREDICTED: JsonDict = {
    "generation": 11,
    "predictions": [
        {
            "label": "card_swallowed",
            "score": 0.93,
            "task": "cards",
            "version": 1,
            "generation": 11,
            "runners_up": [{"label": "lost_card", "score": 0.04, "task": "cards"}],
            "decision": "answer",
            "reason": "right with probability 0.91",
            "in_scope": 0.98,
            "confidence": 0.91,
        }
    ],
}
_TASKS: JsonDict = {
    "generation": 11,
    "tasks": [
        {
            "name": "cards",
            "version": 1,
            "labels": 2,
            "kind": "text",
            "head": "labels",
            "template": None,
            "learned": _TIME,
        }
    ],
}
_LABELS: JsonDict = {"generation": 11, "labels": [{"label": "lost_card", "task": "cards"}]}
_VERSIONS: JsonDict = {
    "generation": 11,
    "versions": [
        {
            "task": "cards",
            "version": 1,
            "active": True,
            "labels": ["card_swallowed", "lost_card"],
            "parameters": 55_296,
            "head_parameters": 770,
            "bytes": 1_250_000,
            "created": _TIME,
        }
    ],
}
_COST: JsonDict = {
    "currency": "EUR",
    "prices": {"currency": "EUR", "cpu_hour": 0.05, "wrong_answer": 2.0, "answers": 100_000},
    "since": _TIME,
    "money": 41.7,
    "kwh": 0.31,
    "answers": 20_000,
    "per_thousand_answers": 2.085,
    "accuracy": 0.93,
    "per_point_of_accuracy": 0.448,
    "score": None,
    "storage": {"gb_months": 0.02, "money": 0.0004},
    "kinds": [],
    "sources": [],
    "tasks": [],
    "alternatives": [],
    "versions": [],
    "notes": [],
}
_WATCHED: JsonDict = {
    "generation": 11,
    "inputs": 2340,
    "reference": 500,
    "complete": True,
    "window": 500,
    "first": _TIME,
    "last": _TIME,
    "start": 1,
    "false_alarm": 0.05,
    "alarms": ["unfit"],
    "signals": [
        {
            "name": "unfit",
            "meaning": "share of inputs that fit no label",
            "value": 0.11,
            "reference": 0.03,
            "evidence": 1250.0,
            "threshold": 180.0,
            "alarm": True,
            "at": _TIME,
            "since": _TIME,
            "at_input": 1651,
            "since_input": 1276,
            "inputs": 1150,
            "hint": "label some of these inputs, and learn them as a new task: `conpet learn`",
        }
    ],
}
_RECORDED: JsonDict = {
    "predictions": [
        {
            "id": 81_233,
            "time": _TIME,
            "request": "68ce46170f8ba2987f4f326d",
            "place": 1,
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "content": "my card was swallowed",
            "kind": "text",
            "generation": 11,
            "task": "cards",
            "version": 1,
            "label": "card_swallowed",
            "score": 0.93,
            "in_scope": 0.98,
            "confidence": 0.91,
            "decision": "answer",
            "selector": 0.97,
            "scope": 4.2,
            "modules": [{"task": "cards", "version": 1}],
        }
    ],
    "next": 81_233,
}
_PROBLEM: JsonDict = {
    "type": "urn:conpet:problem:invalid-inputs",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "some inputs cannot be answered",
    "request_id": "68ce46170f8ba2987f4f326d",
    "errors": [{"pointer": "/inputs/1", "detail": "empty text"}],
}


class CandidateFields(BaseModel):
    """A possible answer; the label is null for a task without labels."""

    label: str | None
    score: float
    task: str


class NeighbourFields(BaseModel):
    """A stored example like the input; `example` is null if its text is not stored, or your key may not see it."""

    task: str
    label: str | None
    similarity: float
    example: dict[str, Any] | None


class RankedFields(BaseModel):
    """A task with its probability."""

    task: str
    score: float


class ExplanationFields(BaseModel):
    """Why an input was answered as it was."""

    ranking: list[RankedFields]
    modules: list[str]
    nearest: list[NeighbourFields]


class PredictionFields(BaseModel):
    """The answer for one input; the fields of `conpet.Prediction`."""

    id: JsonValue = None
    answer: Any = None
    label: str | None
    score: float
    task: str
    version: int
    generation: int
    runners_up: list[CandidateFields]
    decision: Decision
    reason: str
    in_scope: float
    confidence: float
    candidates: list[CandidateFields] | None = None
    candidates_score: float | None = None
    rejected: Any = None
    cut_tokens: int | None = None
    request_id: str | None = None
    explanation: ExplanationFields | None = None


class PredictResponse(BaseModel):
    """The answers, in the order of the inputs, all by one generation."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PREDICTED]})

    generation: int
    predictions: list[PredictionFields]


class TaskFields(BaseModel):
    """A learned task in its active version."""

    name: str
    version: int
    labels: int
    kind: str
    head: str
    template: str | None
    learned: str


class TasksResponse(BaseModel):
    """The learned tasks, in the order in which they were first learned."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TASKS]})

    generation: int
    tasks: list[TaskFields]


class CostResponse(BaseModel):
    """What the workspace has cost, in `currency`; estimates are named so in `notes` and in the guide."""

    model_config = ConfigDict(json_schema_extra={"examples": [_COST]})

    currency: str
    prices: dict[str, Any]
    since: str | None
    money: float
    kwh: float
    answers: int
    per_thousand_answers: float | None
    accuracy: float | None
    per_point_of_accuracy: float | None
    score: dict[str, float] | None
    storage: dict[str, float]
    kinds: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    alternatives: list[dict[str, Any]]
    versions: list[dict[str, Any]]
    notes: list[str]


class LabelFields(BaseModel):
    """A label and its task."""

    label: str
    task: str


class LabelsResponse(BaseModel):
    """All labels, task by task."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LABELS]})

    generation: int
    labels: list[LabelFields]


class VersionFields(BaseModel):
    """A version of a task."""

    task: str
    version: int
    active: bool
    labels: list[str]
    parameters: int
    head_parameters: int
    bytes: int
    created: str


class VersionsResponse(BaseModel):
    """All versions of all tasks."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERSIONS]})

    generation: int
    versions: list[VersionFields]


class SignalFields(BaseModel):
    """A quantity that is watched; the fields of `conpet.watching.report.Signal`."""

    name: str
    meaning: str
    value: float | None
    reference: float | None
    evidence: float
    threshold: float
    alarm: bool
    at: str | None
    since: str | None
    at_input: int | None
    since_input: int | None
    inputs: int | None
    hint: str


class WatchResponse(BaseModel):
    """What watching the recorded predictions since the last change has found."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WATCHED]})

    generation: int
    inputs: int
    reference: int
    complete: bool
    window: int
    first: str | None
    last: str | None
    start: int
    false_alarm: float
    alarms: list[str]
    signals: list[SignalFields]
    accuracy: dict[str, Any] | None = None


class ModuleFields(BaseModel):
    """A task and a version whose module was run."""

    task: str
    version: int


class RecordedFields(BaseModel):
    """A recorded prediction; the fields of `conpet.types.LogEntry`.

    `content` is the input if inputs are recorded; `label` is the likeliest one, also if it was not given as the answer.
    """

    id: int
    time: str
    request: str
    place: int
    hash: str
    content: str | None
    kind: str
    generation: int | None
    task: str
    version: int
    label: str | None
    score: float | None
    in_scope: float | None
    confidence: float | None
    decision: Decision
    selector: float | None
    scope: float | None
    modules: list[ModuleFields]


class RecordedResponse(BaseModel):
    """A page of recorded predictions, the newest first; `next` is `before` of the next page, null on the last one."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RECORDED]})

    predictions: list[RecordedFields]
    next: int | None


class FeedbackFields(BaseModel):
    """The right label of an answer: that to input `place` of a request, or the newest one to a text."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(min_length=1)]
    request_id: Annotated[str, Field(min_length=1)] | None = None
    place: Annotated[int, Field(ge=1)] = 1
    text: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.request_id is None) == (self.text is None):
            raise ValueError("give either request_id or text")
        return self


class FeedbackRequest(BaseModel):
    """Right labels of recorded answers."""

    model_config = ConfigDict(extra="forbid")

    feedback: Annotated[list[FeedbackFields], Field(min_length=1, max_length=10_000)]


class FeedbackResponse(BaseModel):
    """How many of the answers were found in the record, how many were not, and which labels are not learned.

    An answer whose right label is not learned counts as wrong.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"found": 2, "missing": 0, "not_learned": []}]})

    found: int
    missing: int
    not_learned: list[str]


class ProblemFields(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PROBLEM]})

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[dict[str, Any]] | None = None
