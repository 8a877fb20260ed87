"""Requests and responses of the endpoints that change the workspace."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_Strict = ConfigDict(extra="forbid", strict=True)


class ActivateRequest(BaseModel):
    """The version to make active; `evaluate` measures all tasks afterwards."""

    model_config = _Strict

    version: Annotated[int, Field(ge=1, le=2**31)]
    evaluate: bool = True


class ConsolidateRequest(BaseModel):
    """How to consolidate; `bound` is the largest accepted fall of the accuracy on validation examples, in points."""

    model_config = _Strict

    bound: Annotated[float, Field(ge=0, le=100)] = 0.0
    evaluate: bool = True


class ProgressFields(BaseModel):
    """How far a running job is: the share of its stage, 0 to 1; the change `number` of `total`."""

    stage: str
    share: float
    task: str | None
    number: int
    total: int


class JobFields(BaseModel):
    """A change of the workspace that was requested."""

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

    jobs: list[JobFields]


class LogLine(BaseModel):
    """A line of a job's log; `id` grows."""

    id: int
    time: str
    message: str


class LogResponse(BaseModel):
    """The log of a job, oldest line first."""

    lines: list[LogLine]
