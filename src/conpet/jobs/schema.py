"""The tables of `jobs.sqlite`. A change here needs a new `JOBS_VERSION`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from conpet.store.schema import UtcTime

JOBS_VERSION = 1


class JobsBase(DeclarativeBase):
    """Base of the tables of jobs."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON,
    }


class JobRow(JobsBase):
    """A job. `number` is the order of the queue, whatever the clock says."""

    __tablename__ = "job"
    __table_args__ = (
        Index("job_state", "state"),
        UniqueConstraint("caller", "idempotency_key"),
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    state: Mapped[str]
    tasks: Mapped[list[str]]
    options: Mapped[dict[str, Any]]
    caller: Mapped[str]
    idempotency_key: Mapped[str | None]
    digest: Mapped[str]
    request_id: Mapped[str]
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    attempts: Mapped[int]
    lost: Mapped[int]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]


class JobEventRow(JobsBase):
    """Something that happened to a job."""

    __tablename__ = "job_event"
    __table_args__ = (Index("job_event_job", "job", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey("job.number", ondelete="CASCADE"))
    time: Mapped[datetime]
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]
