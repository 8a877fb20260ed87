"""Jobs as callers see them, in Python and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

FILE_FORMATS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "parquet")
"""Formats of files that a server takes."""


USER = "user "
"""First part of the id of a caller whom a proxy has named; others are ids of keys, or addresses."""

KEY = "key "
"""First part of the name of a key in the history."""


def actor_of(caller: str) -> str | None:
    """Return who makes the changes that a caller has requested, for the history; None for the user of this process."""
    if not caller or caller.startswith(USER):
        return caller or None
    return f"{KEY}{caller}"


class JobKind(StrEnum):
    """What a job does; see the methods of `ConPET` with these names, and `ConPET.learn_reviewed`."""

    LEARN = "learn"
    EXTEND = "extend"
    REMOVE = "remove"
    ACTIVATE = "activate"
    CONSOLIDATE = "consolidate"
    PROMOTE = "promote"
    FORGET = "forget"
    REVIEW = "review"
    RENAME = "rename"
    RETIRE = "retire"
    SPLIT = "split"
    RESTORE = "restore"

    @property
    def in_parts(self) -> bool:
        """Whether it may commit several changes, so that a next attempt goes on after those already made."""
        return self in (JobKind.LEARN, JobKind.EXTEND, JobKind.REVIEW)


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job is over."""
        return self in ENDED


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is to do.

    Attributes:
        kind: The kind of change.
        options: Arguments of the change, by name (JSON-ready).
        tasks: Names of the tasks concerned, as far as known.
    """

    kind: JobKind
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a running job is.

    Attributes:
        stage: The stage of the change that is computed.
        share: Share of the stage that is done, 0 to 1.
        task: The task being learned, or None.
        number: Number of the change within the job, from 1.
        total: Number of changes that the job makes.
    """

    stage: str
    share: float
    task: str | None = None
    number: int = 1
    total: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "stage": self.stage,
            "share": self.share,
            "task": self.task,
            "number": self.number,
            "total": self.total,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobProgress:
        """Rebuild from `to_json`."""
        return cls(document["stage"], document["share"], document.get("task"), document["number"], document["total"])


@dataclass(frozen=True, slots=True)
class Job:
    """A change of a workspace that was requested.

    Times are in UTC, by the server's clock.

    Attributes:
        id: Its id.
        kind: What it does.
        state: Where it is.
        tasks: Names of the tasks concerned, as far as known.
        options: The arguments of the change, by name.
        created: When it was accepted.
        started: When it was first started, or None.
        ended: When it ended, or None.
        attempts: How often it was started; more than once after a restart of the server.
        progress: How far it is, or None before the first stage.
        result: What it did, once it succeeded (or was cancelled after some of its tasks were learned), or None.
        error: Why it failed, as problem details, or None.
    """

    id: str
    kind: JobKind
    state: JobState
    tasks: tuple[str, ...]
    options: Mapping[str, Any]
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 0
    progress: JobProgress | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "id": self.id,
            "kind": str(self.kind),
            "state": str(self.state),
            "tasks": list(self.tasks),
            "options": dict(self.options),
            "created": self.created.isoformat(),
            "started": self.started.isoformat() if self.started else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "attempts": self.attempts,
            "progress": self.progress.to_json() if self.progress else None,
            "result": dict(self.result) if self.result is not None else None,
            "error": dict(self.error) if self.error is not None else None,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Job:
        """Rebuild a job from `to_json`."""
        started, ended = (document[name] and datetime.fromisoformat(document[name]) for name in ("started", "ended"))
        return cls(
            document["id"],
            JobKind(document["kind"]),
            JobState(document["state"]),
            tuple(document["tasks"]),
            document["options"],
            datetime.fromisoformat(document["created"]),
            started,
            ended,
            document["attempts"],
            JobProgress.from_json(document["progress"]) if document["progress"] else None,
            document["result"],
            document["error"],
        )


class JobEventKind(StrEnum):
    """What happened to a job."""

    STATE = "state"
    PROGRESS = "progress"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        id: Number that grows with every event.
        time: When, in UTC.
        kind: What kind of event.
        data: A new state ("state"), progress as in `JobProgress`, or a line of the log ("message").
    """

    id: int
    time: datetime
    kind: JobEventKind
    data: Mapping[str, Any]

    @property
    def ends(self) -> bool:
        """Whether the job ended with this event."""
        return self.kind is JobEventKind.STATE and JobState(self.data["state"]).ended

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {"id": self.id, "time": self.time.isoformat(), "kind": str(self.kind), "data": dict(self.data)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobEvent:
        """Rebuild an event from `to_json`."""
        return cls(
            document["id"], datetime.fromisoformat(document["time"]), JobEventKind(document["kind"]), document["data"]
        )
