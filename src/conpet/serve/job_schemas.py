"""Requests and responses of the endpoints that change the workspace."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

Name = Annotated[str, Field(min_length=1, max_length=1000)]
_Strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_JOB: JsonDict = {
    "id": "9f86d081884c7d65",
    "kind": "learn",
    "state": "succeeded",
    "tasks": ["cards"],
    "options": {"evaluate": True, "batch": 1},
    "created": "2026-03-02T09:30:00+00:00",
    "started": "2026-03-02T09:30:01+00:00",
    "ended": "2026-03-02T09:30:09+00:00",
    "attempts": 1,
    "progress": {"stage": "evaluation", "share": 1.0, "task": "cards", "number": 1, "total": 1},
    "result": {"tasks": [{"task": "cards", "version": 1, "skipped": False}], "generation": 12},
    "error": None,
}
_CANDIDATE: JsonDict = {
    "number": 1,
    "verb": "learn",
    "generation": 12,
    "created": "2026-03-02T09:30:09+00:00",
    "bytes": 162235,
    "outdated": False,
}
_GATE: JsonDict = {
    "verb": "learn",
    "tasks": ["cards"],
    "generation": 12,
    "refused": True,
    "config": {"label_margin": 10.0, "confidence": 0.95},
    "available": 900,
    "left_out": 0,
    "versions": {},
    "comparisons": [
        {
            "level": "label",
            "name": "pin_lost",
            "task": "security",
            "n": 20,
            "right_before": 19,
            "right_after": 3,
            "lost": 16,
            "gained": 0,
            "fall": 80.0,
            "p": 0.0002,
            "verdict": "broken",
            "takers": [{"label": "pin_missing", "task": "cards", "new": True, "count": 16}],
        }
    ],
    "changed": [
        {
            "task": "security",
            "label": "pin_lost",
            "row": 3,
            "before": {"label": "pin_lost", "task": "security", "score": 0.97},
            "after": {"label": "pin_missing", "task": "cards", "score": 0.81},
        }
    ],
}
_GENERATION: JsonDict = {
    "number": 12,
    "time": "2026-03-02T09:30:09+00:00",
    "verb": "learn",
    "present": False,
    "tasks": ["cards"],
    "labels": 2,
    "consolidated": 0,
    "layers": None,
    "whole_accuracy": 0.93,
    "bytes": 1250000,
}
_LINE: JsonDict = {
    "id": 41,
    "time": "2026-03-02T09:30:09+00:00",
    "message": "cards: learned 2 labels as version 1 in 6.1 s",
}


class ActivateRequest(BaseModel):
    """The version to make active; `evaluate` measures all tasks afterwards, `gate` protects earlier answers."""

    model_config = _Strict

    version: Annotated[int, Field(ge=1, le=2**31)]
    evaluate: bool = True
    gate: bool = True


class ConsolidateRequest(BaseModel):
    """How to consolidate; `bound` is the largest accepted fall of the accuracy on validation examples, in points.

    `layers` is the workspace's setting `consolidation.layers` unless it is given. If nothing has changed since the last
    consolidation, nothing is done unless `again` is true. `evaluate` measures all tasks
    afterwards, `gate` protects earlier answers.
    """

    model_config = _Strict

    bound: Annotated[float, Field(ge=0, le=100)] = 0.0
    layers: Literal["all", "top"] | None = None
    again: bool = False
    evaluate: bool = True
    gate: bool = True


class ForgetRequest(BaseModel):
    """What to forget: rows (texts, or objects with the fields of a row), ids, hashes of texts, labels, tasks, an age.

    `keep_modules` trains nothing again; `drop_labels` lets a label go with its last training example; `reason` is
    written into the history and the receipt; `evaluate` measures all tasks afterwards.
    """

    model_config = _Strict

    rows: Annotated[list[str | dict[str, Any]], Field(max_length=100_000)] = []
    ids: Annotated[list[str | int], Field(max_length=100_000)] = []
    hashes: Annotated[list[str], Field(max_length=100_000)] = []
    labels: Annotated[list[str], Field(max_length=100_000)] = []
    tasks: Annotated[list[str], Field(max_length=100_000)] = []
    older_than_days: Annotated[int, Field(ge=1, le=100_000)] | None = None
    reason: Annotated[str, Field(max_length=1000)] = ""
    keep_modules: bool = False
    drop_labels: bool = False
    evaluate: bool = True


class RestoreRequest(BaseModel):
    """How to go back; `evaluate` measures all tasks afterwards, `gate` protects earlier answers."""

    model_config = _Strict

    evaluate: bool = True
    gate: bool = True


class GenerationFields(BaseModel):
    """A generation that can be gone back to, or the present one."""

    number: int
    time: str
    verb: str
    present: bool
    tasks: list[str]
    labels: int
    consolidated: int
    layers: str | None
    whole_accuracy: float | None
    bytes: int


class GenerationsResponse(BaseModel):
    """The kept generations and the present one, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"generations": [_GENERATION]}]})

    generations: list[GenerationFields]


class RenameRequest(BaseModel):
    """A label and its new name; `evaluate` measures all tasks afterwards, `gate` protects earlier answers."""

    model_config = _Strict

    label: Name
    name: Name
    evaluate: bool = True
    gate: bool = True


class RetireRequest(BaseModel):
    """A label to remove with its examples; `evaluate` and `gate` as for a new name."""

    model_config = _Strict

    label: Name
    evaluate: bool = True
    gate: bool = True


class SplitRequest(BaseModel):
    """A label to replace by finer ones, and examples of these: rows with the fields of a data file.

    Stored examples that are also in `rows` get their finer label; the others are dropped, all of them only with
    `replace`. `evaluate` and `gate` as for a new name.
    """

    model_config = _Strict

    label: Name
    rows: Annotated[list[dict[str, Any]], Field(min_length=2, max_length=100_000)]
    replace: bool = False
    evaluate: bool = True
    gate: bool = True


class PromoteRequest(BaseModel):
    """Whether the gate judges the candidate again; `false` makes the change whatever it breaks."""

    model_config = _Strict

    gate: bool = True


class ProgressFields(BaseModel):
    """How far a running job is: the share of its stage, 0 to 1; the change `number` of `total`."""

    stage: str
    share: float
    task: str | None
    number: int
    total: int


class JobFields(BaseModel):
    """A change of the workspace that was requested."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    id: str
    kind: str
    state: str
    tasks: list[str]
    options: dict[str, Any]
    created: str
    started: str | None
    ended: str | None
    attempts: int
    progress: ProgressFields | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class JobsResponse(BaseModel):
    """Jobs, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": [_JOB]}]})

    jobs: list[JobFields]


class LogLine(BaseModel):
    """A line of a job's log; `id` grows."""

    id: int
    time: str
    message: str


class LogResponse(BaseModel):
    """The log of a job, oldest line first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lines": [_LINE]}]})

    lines: list[LogLine]


class CandidateFields(BaseModel):
    """A change that the gate refused; it can be made until the workspace changes, then it is outdated."""

    number: int
    verb: str
    generation: int
    created: str
    bytes: int
    outdated: bool


class CandidatesResponse(BaseModel):
    """The refused changes, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"candidates": [_CANDIDATE]}]})

    candidates: list[CandidateFields]


class DiscardResponse(BaseModel):
    """A refused change that was deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"discarded": 3}]})

    discarded: int


class GateReportFields(BaseModel):
    """What a change would do to earlier answers: comparisons of all labels together, each task, and each label."""

    model_config = ConfigDict(json_schema_extra={"examples": [_GATE]})

    verb: str
    tasks: list[str]
    generation: int
    refused: bool
    config: dict[str, Any]
    available: int
    left_out: int
    versions: dict[str, int]
    comparisons: list[dict[str, Any]]
    changed: list[dict[str, Any]]
