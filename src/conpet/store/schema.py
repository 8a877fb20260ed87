"""The tables of `workspace.sqlite`. A change here, or in the content of objects, needs a new `SCHEMA_VERSION`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Dialect, ForeignKey, Index, String, TypeDecorator, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 6


class UtcTime(TypeDecorator[datetime]):
    """A moment, as an ISO 8601 text in UTC."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Convert for the database."""
        return None if value is None else value.astimezone(UTC).isoformat()

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Convert from the database."""
        return None if value is None else datetime.fromisoformat(value)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
        Any: JSON(none_as_null=True),
    }


class HeaderRow(Base):
    """A single row that describes the workspace. `conpet_version` must stay readable in every later schema."""

    __tablename__ = "header"

    id: Mapped[int] = mapped_column(primary_key=True)
    settings: Mapped[dict[str, Any]]
    backbone: Mapped[dict[str, Any]]
    created: Mapped[datetime]
    conpet_version: Mapped[str]


class EventRow(Base):
    """A change; its id is the generation. Task names are text, because events outlive tasks."""

    __tablename__ = "event"
    __table_args__ = (Index("event_task", "task"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime]
    verb: Mapped[str]
    task: Mapped[str | None]
    version: Mapped[int | None]
    detail: Mapped[dict[str, Any]]
    confusion: Mapped[Any] = mapped_column(nullable=True)
    bytes_stored: Mapped[int]
    restores: Mapped[int | None]
    actor: Mapped[str]
    written: Mapped[dict[str, Any]]
    digest: Mapped[str]


class LedgerRow(Base):
    """Common columns of the rows of an event."""

    __abstract__ = True

    event_id: Mapped[int] = mapped_column(ForeignKey("event.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)


class MetricRow(LedgerRow):
    """A `records.Metric`."""

    __tablename__ = "metric"

    task: Mapped[str]
    metric: Mapped[str]
    value: Mapped[float]
    n: Mapped[int]


class ReferenceRow(LedgerRow):
    """A `records.Reference`."""

    __tablename__ = "reference"

    name: Mapped[str]
    value: Mapped[float]
    n: Mapped[int]


class CostRow(LedgerRow):
    """A `records.Cost`."""

    __tablename__ = "cost"

    stage: Mapped[str]
    seconds: Mapped[float]
    tokens: Mapped[int]
    cached_tokens: Mapped[int]
    steps: Mapped[int]
    parameters: Mapped[int]
    head_parameters: Mapped[int]
    peak_bytes: Mapped[int]


class TaskRow(Base):
    """A task that has not been removed."""

    __tablename__ = "task"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    position: Mapped[int]


class VersionRow(Base):
    """A version of a task."""

    __tablename__ = "version"
    __table_args__ = (
        UniqueConstraint("task_id", "number"),
        Index("version_active", "task_id", unique=True, sqlite_where=text("active")),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"))
    number: Mapped[int]
    active: Mapped[bool]
    digest: Mapped[str]
    labels: Mapped[list[str]]
    description: Mapped[dict[str, Any]]
    parameters: Mapped[int]
    head_parameters: Mapped[int]
    created: Mapped[datetime]


class ObjectRow(Base):
    """A folder in `objects/`: in use, or released by an event and deleted when neither reader nor pin needs it."""

    __tablename__ = "object"
    __table_args__ = (Index("object_released", "released_event"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(unique=True)
    manifest: Mapped[dict[str, Any]]
    bytes: Mapped[int]
    created_event: Mapped[int] = mapped_column(ForeignKey("event.id"))
    released_event: Mapped[int | None] = mapped_column(ForeignKey("event.id"))


class PinRow(Base):
    """A former generation that can be made present again; `state` holds its rows (see `conpet.store.pins`)."""

    __tablename__ = "pin"

    generation: Mapped[int] = mapped_column(ForeignKey("event.id"), primary_key=True)
    state: Mapped[dict[str, Any]]


class PinObjectRow(Base):
    """An object of a pinned generation, which is not deleted."""

    __tablename__ = "pin_object"
    __table_args__ = (Index("pin_object_object", "object_id"),)

    generation: Mapped[int] = mapped_column(ForeignKey("pin.generation", ondelete="CASCADE"), primary_key=True)
    object_id: Mapped[int] = mapped_column(ForeignKey("object.id"), primary_key=True)


class VersionObjectRow(Base):
    """The object in a slot of a version."""

    __tablename__ = "version_object"

    version_id: Mapped[int] = mapped_column(ForeignKey("version.id", ondelete="CASCADE"), primary_key=True)
    slot: Mapped[str] = mapped_column(primary_key=True)
    object_id: Mapped[int] = mapped_column(ForeignKey("object.id"), unique=True)


class SharedRow(Base):
    """The object in a slot of the workspace."""

    __tablename__ = "shared"

    slot: Mapped[str] = mapped_column(primary_key=True)
    object_id: Mapped[int] = mapped_column(ForeignKey("object.id"), unique=True)
