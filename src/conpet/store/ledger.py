"""The ledger of a workspace: what every operation has cost, in `ledger.sqlite` beside the history.

It holds names of tasks and numbers, no labels and no texts. Entries are only added; answers are added up by hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import JSON, Connection, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from conpet.cost import Resources
from conpet.store.access import missing_right
from conpet.store.database import Database
from conpet.store.schema import UtcTime

LEDGER = "ledger.sqlite"
_OTHER_VERSION = "use the conpet that wrote it, or delete the file to start a new ledger"
_VERSION = 1


class CostKind(StrEnum):
    """What a cost was for."""

    LEARN = "learn"
    CHANGE = "change"
    GATE = "gate"
    EVALUATE = "evaluate"
    CONSOLIDATE = "consolidate"
    TUNE = "tune"
    PREDICT = "predict"
    REVIEW = "review"


class CostSource(StrEnum):
    """Where an operation ran: in a program or a command, as a job of a server, or in the server itself."""

    LOCAL = "local"
    JOB = "job"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What an operation, or the answers of an hour, have cost.

    Attributes:
        time: When it ended; of answers, the beginning of the hour. In UTC.
        kind: What it was for.
        verb: The operation in the history's words ("learn", "rollback", ...).
        source: Where it ran.
        task: The task it was for; None for several, or all.
        generation: The generation that it made, or that answered.
        outcome: "done", "refused" (by the gate or an accuracy bound) or "interrupted".
        examples: Number of examples learned, compared, tested or answered.
        resources: What was used up.
        new_labels: Number of labels that could not be answered before.
        needed_since: The day from which they were needed; None if they were learned at once.
        suffix_share: Share of the backbone's layers that lie above the cut, 0 to 1.
        bytes_stored: Size of all objects in use after it; None if it does not change.
        job: Id of the job that it was part of.
        note: A note of the user.
        tasks: Number of answers by task.
        decisions: Number of answers by decision.
    """

    time: datetime
    kind: CostKind
    verb: str
    source: CostSource
    task: str | None = None
    generation: int | None = None
    outcome: str = "done"
    examples: int = 0
    resources: Resources = field(default_factory=Resources)
    new_labels: int = 0
    needed_since: date | None = None
    suffix_share: float = 1.0
    bytes_stored: int | None = None
    job: str | None = None
    note: str = ""
    tasks: Mapping[str, int] = field(default_factory=dict)
    decisions: Mapping[str, int] = field(default_factory=dict)


class _Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcTime, dict[str, Any]: JSON}


class _EntryRow(_Base):
    """An operation."""

    __tablename__ = "entry"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime]
    kind: Mapped[str]
    task: Mapped[str | None]
    generation: Mapped[int | None]
    detail: Mapped[dict[str, Any]]
    resources: Mapped[dict[str, Any]]


class _AnswersRow(_Base):
    """The answers that a generation gave in an hour."""

    __tablename__ = "answers"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    detail: Mapped[dict[str, Any]]
    resources: Mapped[dict[str, Any]]


_DETAIL = ("verb", "source", "outcome", "examples", "new_labels", "suffix_share", "bytes_stored", "job", "note")
_ANSWERS_DETAIL = ("examples", "suffix_share", "tasks", "decisions")


class Ledger:
    """The ledger of one workspace; made on disk with the first entry. Threads and processes may share it.

    Where this process may not write, and on a full disk, nothing is recorded.

    Args:
        workspace: The workspace's folder.
    """

    def __init__(self, workspace: Path) -> None:
        self._database = Database(workspace / LEDGER, _Base.metadata, _VERSION)

    def add(self, entries: Sequence[LedgerEntry]) -> bool:
        """Add entries; return whether they were recorded."""
        rows = [
            {
                "time": one.time,
                "kind": str(one.kind),
                "task": one.task,
                "generation": one.generation,
                "detail": {name: getattr(one, name) for name in _DETAIL}
                | {"needed_since": one.needed_since.isoformat() if one.needed_since else None},
                "resources": asdict(one.resources),
            }
            for one in entries
        ]
        return not rows or self._write(lambda connection: connection.execute(insert(_EntryRow), rows))

    def add_answers(self, answers: Sequence[LedgerEntry]) -> bool:
        """Add answers to those of their hour, source and generation; return whether they were recorded."""

        def add(connection: Connection) -> None:
            for one in answers:
                _add_answers(connection, one)

        return not answers or self._write(add)

    def entries(self, since: datetime | None = None) -> list[LedgerEntry]:
        """Return all entries, or those since a moment, the oldest first; answers count from the beginning of its hour.

        Raises:
            CorruptionError: The file is damaged, or was written by another version of conpet.
        """
        if not self._database.file.exists():
            return []
        with self._database.read() as connection:
            self._database.require_version(connection, _OTHER_VERSION)
            entries, answers = select(_EntryRow.__table__).order_by(_EntryRow.id), select(_AnswersRow.__table__)
            if since is not None:
                entries = entries.where(_EntryRow.time >= since)
                answers = answers.where(_AnswersRow.hour >= hour_of(since))
            found = [*map(_entry, connection.execute(entries)), *map(_answers, connection.execute(answers))]
        return sorted(found, key=lambda one: one.time)

    def _write(self, work: Callable[[Connection], object]) -> bool:
        """Do some work in a transaction; return whether it was possible."""
        file = self._database.file
        if missing_right(file.parent) or (file.exists() and missing_right(file)):
            return False
        try:
            if not file.exists():
                self._database.make()
            with self._database.write() as connection:
                self._database.require_version(connection, _OTHER_VERSION)
                work(connection)
        except OSError:  # a full or failing disk, or a damaged ledger, must not stop the operation
            return False
        return True


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of an hour."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _add_answers(connection: Connection, one: LedgerEntry) -> None:
    this = _is((one.time, str(one.source), one.generation))
    former = connection.execute(select(_AnswersRow.__table__).where(*this)).first()
    added = one if former is None else _together(_answers(former), one)
    connection.execute(delete(_AnswersRow).where(*this))
    connection.execute(
        insert(_AnswersRow).values(
            hour=one.time,
            source=str(one.source),
            generation=one.generation,
            detail={name: getattr(added, name) for name in _ANSWERS_DETAIL},
            resources=asdict(added.resources),
        )
    )


def _is(key: tuple[datetime, str, int | None]) -> tuple[Any, ...]:
    hour, source, generation = key
    return (_AnswersRow.hour == hour, _AnswersRow.source == source, _AnswersRow.generation == generation)


def _together(one: LedgerEntry, other: LedgerEntry) -> LedgerEntry:
    return replace(
        one,
        examples=one.examples + other.examples,
        resources=one.resources + other.resources,
        suffix_share=min(one.suffix_share, other.suffix_share),
        tasks=dict(Counter(one.tasks) + Counter(other.tasks)),
        decisions=dict(Counter(one.decisions) + Counter(other.decisions)),
    )


def _entry(row: Any) -> LedgerEntry:
    detail = dict(row.detail)
    since = detail.pop("needed_since")
    return LedgerEntry(
        row.time,
        CostKind(row.kind),
        task=row.task,
        generation=row.generation,
        resources=Resources(**row.resources),
        needed_since=date.fromisoformat(since) if since else None,
        **{**detail, "source": CostSource(detail["source"])},
    )


def _answers(row: Any) -> LedgerEntry:
    return LedgerEntry(
        row.hour,
        CostKind.PREDICT,
        "predict",
        CostSource(row.source),
        generation=row.generation,
        resources=Resources(**row.resources),
        **row.detail,
    )


def total(entries: Iterable[LedgerEntry]) -> Resources:
    """Return the sum of the resources of entries."""
    return sum((one.resources for one in entries), Resources())
