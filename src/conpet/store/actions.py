"""The trail of what people did beside the changes of the history, in `actions.sqlite`: a hash chain of its own.

Keys that were made or revoked, jobs that were requested or cancelled, verdicts in review, and so on. An entry is added
without the lock of the workspace: a key must be revocable while a task is learned. It holds names of keys, people and
tasks, and numbers; no labels, no texts, no secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import JSON, Text, cast, exists, func, insert, or_, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from conpet.errors import ReadOnlyError
from conpet.store.access import missing_right
from conpet.store.chain import Break, breaks, digest_of
from conpet.store.database import Database
from conpet.store.schema import UtcTime

ACTIONS = "actions.sqlite"
CHAIN = "actions"
"""The chain that an entry belongs to, which an exported entry names."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Action:
    """Something that somebody did.

    Attributes:
        id: Its number, from 1.
        time: When, in UTC.
        actor: Who, as in the history.
        verb: What: "key-made", "key-revoked", "job-requested", ...
        detail: More about it (JSON-ready).
        digest: SHA-256 hash of the digest before it and of all this.
    """

    id: int
    time: datetime
    actor: str
    verb: str
    detail: Mapping[str, Any]
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return everything that is recorded of it, JSON-ready."""
        return {"chain": CHAIN, **asdict(self), "time": self.time.isoformat()}


class _Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcTime, dict[str, Any]: JSON}


class _ActionRow(_Base):
    __tablename__ = "action"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime]
    actor: Mapped[str]
    verb: Mapped[str]
    detail: Mapped[dict[str, Any]]
    digest: Mapped[str]


class ActionLog:
    """The trail of a workspace; made on disk with the first entry. Threads and processes may share it.

    Args:
        workspace: The workspace's folder.
        log_to: Folder of the record of predictions, if that lies elsewhere; the trail is there, too, where the
            workspace's folder cannot be written.
    """

    def __init__(self, workspace: Path, log_to: Path | None = None) -> None:
        self.folder = log_to if log_to is not None and missing_right(workspace) else workspace
        self._database = Database(self.folder / ACTIONS, _Base.metadata, _VERSION)

    def append(self, actor: str, verb: str, **detail: Any) -> None:
        """Add an entry; call it inside the transaction of the action, so that there is neither without the other.

        Args:
            actor: Who does it.
            verb: What.
            detail: More about it (JSON-ready); no secrets, labels or texts.

        Raises:
            ReadOnlyError: The file cannot be written.
            CorruptionError: It is damaged, or was written by another version of conpet.
        """
        file = self._database.file
        if not file.exists():
            if reason := missing_right(file.parent):
                raise _unwritable(file.parent, reason)
            self._database.make()
        if reason := missing_right(file):
            raise _unwritable(file, reason)
        with self._database.write() as connection:
            self._database.require_version(connection, "use the conpet that wrote it")
            last = select(_ActionRow.id, _ActionRow.digest).order_by(_ActionRow.id.desc()).limit(1)
            number, previous = connection.execute(last).tuples().first() or (0, "")
            action = Action(number + 1, datetime.now(UTC), actor, verb, detail, "")
            values = asdict(action) | {"digest": digest_of(previous, action.to_json())}
            connection.execute(insert(_ActionRow).values(values))

    def entries(
        self, *, before: int | None = None, limit: int | None = None, search: str = "", task: str | None = None
    ) -> list[Action]:
        """Return entries, the newest first.

        Args:
            before: Only entries before this one.
            limit: Most entries; None for all.
            search: Only entries that have all of these words in their verb, actor, detail or digest.
            task: Only entries that concern this task.

        Raises:
            CorruptionError: The file is damaged, or was written by another version of conpet.
        """
        if not self._database.file.exists():
            return []
        row = _ActionRow.__table__.c
        query = select(_ActionRow.__table__).order_by(row.id.desc()).limit(limit)
        if before is not None:
            query = query.where(row.id < before)
        if task is not None:
            named = func.json_each(row.detail, "$.tasks").table_valued("value")
            query = query.where(exists().select_from(named).where(named.c.value == task))
        for word in search.split():
            texts = (row.verb, row.actor, cast(row.detail, Text), row.digest)
            query = query.where(or_(*(one.icontains(word, autoescape=True) for one in texts)))
        with self._database.read() as connection:
            self._database.require_version(connection, "use the conpet that wrote it")
            return [Action(**found) for found in connection.execute(query).mappings()]

    def exported(self) -> list[dict[str, Any]]:
        """Return all entries, JSON-ready, the oldest first; errors as in `entries`."""
        return [action.to_json() for action in reversed(self.entries())]

    def breaks(self) -> Iterator[Break]:
        """Yield where the trail is not what was recorded; what is missing at its end is seen by a noted head only."""
        yield from breaks_of(self.exported())


def breaks_of(actions: list[dict[str, Any]]) -> Iterator[Break]:
    """Yield where a trail in JSON, oldest first, is not what was recorded."""
    for one in breaks(actions):
        yield Break(None, f"action {one.event}: {one.reason}")


def _unwritable(path: Path, reason: str) -> ReadOnlyError:
    return ReadOnlyError(
        f"every action is recorded, but {path} {reason}. Act as a user with write permission, or name a folder for "
        "records that can be written (--log-to)"
    )
