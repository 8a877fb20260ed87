"""The record of predictions: when, on what input, with which answer, by which modules; an SQLite file of its own."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import sqlite3
import sys
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Executable,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    func,
    literal,
    select,
    text,
)

from conpet.artifact import sync
from conpet.data import Example, Kind
from conpet.errors import ConfigError, ConpetError, CorruptionError, ReadOnlyError, plural, reason_of
from conpet.store.access import missing_right
from conpet.store.actions import ActionLog
from conpet.store.chain import actor
from conpet.store.database import Database, connect, translated
from conpet.types import LogEntry, Prediction

FILE = "predictions.sqlite"
KEY = "predictions.key"
LOG_VERSION = 3
HOUR = 3600
_DAY = 86_400
PAGE = 100
"""Default number of entries in a page."""
_KEY_BYTES = 32
PRUNED = "predictions-pruned"
"""The action that says that entries were deleted by their age."""

_TABLES = MetaData()
_PREDICTION = Table(
    "prediction",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("request", Text),
    Column("place", Integer),
    Column("hash", LargeBinary),
    Column("content", Text),
    Column("kind", Text),
    Column("generation", Integer),
    Column("task", Text),
    Column("version", Integer),
    Column("label", Text),
    Column("score", Float),
    Column("in_scope", Float),
    Column("confidence", Float),
    Column("decision", Text),
    Column("selector", Float),
    Column("scope", Float),
    Column("modules", Text),
    Column("digest", LargeBinary, nullable=False),
    Index("prediction_time", "time"),
    Index("prediction_request", "request"),
    Index("prediction_hash", "hash"),
    sqlite_autoincrement=True,
)
_HOUR = Table(
    "hour",
    _TABLES,
    Column("hour", Integer, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("decision", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("in_scope", Float, nullable=False),
    sqlite_with_rowid=False,
)
_SUMS = ("number", "confidence", "in_scope")
_DAILY = Table(
    "day",
    _TABLES,
    Column("day", Integer, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("decision", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("in_scope", Float, nullable=False),
    sqlite_with_rowid=False,
)
Table(
    "note",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("what", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("digest", LargeBinary),
)
Table("meta", _TABLES, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
_FEEDBACK = Table(
    "feedback",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("prediction", Integer, nullable=False, unique=True),
    Column("time", Float, nullable=False),
    Column("label", Text, nullable=False),
    sqlite_autoincrement=True,
)
Table(
    "alarm",
    _TABLES,
    Column("signal", Text, primary_key=True),
    Column("start", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("sent", Integer, nullable=False),
)

_DAYS_FOLLOW = (
    """CREATE TRIGGER hour_added AFTER INSERT ON hour BEGIN
INSERT INTO day VALUES (NEW.hour / 24, NEW.task, NEW.decision, NEW.number, NEW.confidence, NEW.in_scope)
ON CONFLICT DO UPDATE SET number = number + excluded.number, confidence = confidence + excluded.confidence,
in_scope = in_scope + excluded.in_scope; END""",
    """CREATE TRIGGER hour_changed AFTER UPDATE ON hour BEGIN
UPDATE day SET number = number + NEW.number - OLD.number, confidence = confidence + NEW.confidence - OLD.confidence,
in_scope = in_scope + NEW.in_scope - OLD.in_scope
WHERE day = OLD.hour / 24 AND task = OLD.task AND decision = OLD.decision; END""",
    """CREATE TRIGGER hour_removed AFTER DELETE ON hour BEGIN
UPDATE day SET number = number - OLD.number, confidence = confidence - OLD.confidence,
in_scope = in_scope - OLD.in_scope WHERE day = OLD.hour / 24 AND task = OLD.task AND decision = OLD.decision;
DELETE FROM day WHERE day = OLD.hour / 24 AND task = OLD.task AND decision = OLD.decision AND number <= 0; END""",
)
"""Triggers that keep the counts of days the sums of those of hours, whatever changes these."""


@event.listens_for(_TABLES, "after_create")
def _let_days_follow(_: MetaData, connection: Connection, **__: object) -> None:
    for trigger in _DAYS_FOLLOW:
        connection.exec_driver_sql(trigger)


_FIELDS = tuple(column.name for column in _PREDICTION.columns)[1:-1]
"""The columns that hold what was recorded, in the order in which they are hashed."""
_RECORDED = tuple(_PREDICTION.columns[name] for name in _FIELDS)
_INSERT = f"INSERT INTO prediction ({', '.join(_FIELDS)}, digest) VALUES ({', '.join('?' * (len(_FIELDS) + 1))})"  # noqa: S608
_COUNT = """INSERT INTO hour VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET number = number + excluded.number, confidence = confidence + excluded.confidence,
in_scope = in_scope + excluded.in_scope"""
_CLEAR = f"UPDATE prediction SET {', '.join(f'{name} = NULL' for name in _FIELDS if name != 'time')}"  # noqa: S608
PRUNE_SECONDS = 3600.0
"""Seconds between deletions of entries that are too old."""
_FIRST_DAY = date(1970, 1, 1)
_CHUNK = 10_000
"""Entries that are read, or deleted, at a time."""
_VARIABLES = 500
"""Most numbers that a query names."""

_LAST_PRUNED = "SELECT digest FROM note WHERE what = 'pruned' ORDER BY id DESC LIMIT 1"

Row = tuple[Any, ...]
"""The values of an entry before it has an id and a digest."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What watching needs of an entry; see `LogEntry`. The time is in seconds since 1970, or None if not known."""

    id: int
    time: float | None
    kind: str
    generation: int | None
    task: str
    label: str | None
    in_scope: float
    confidence: float
    decision: str
    selector: float | None
    scope: float | None


@dataclass(frozen=True, slots=True)
class Drawable:
    """What drawing entries for review needs of one; see `LogEntry`.

    Attributes:
        id: Its number.
        time: When it was answered, in seconds since 1970.
        decision: "answer", "ask" or "decline".
        confidence: Probability that the label is right.
        labelled: Whether it names a label.
        readable: Whether its input is recorded.
    """

    id: int
    time: float
    decision: str
    confidence: float | None
    labelled: bool
    readable: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A recorded answer whose right label is known.

    Attributes:
        time: When it was given, in seconds since 1970.
        task: The task that answered.
        label: The label that was given.
        right: The right label.
    """

    time: float
    task: str
    label: str | None
    right: str

    @property
    def correct(self) -> bool:
        """Whether the label that was given is right."""
        return self.label == self.right


@dataclass(frozen=True, slots=True)
class HourCount:
    """Predictions of one period with the same task, label, decision and generation.

    Attributes:
        hour: When the period began.
        generation: The generation that answered; 0 for none.
        task: The task.
        label: The label; "" for a task without labels, or if labels are not counted.
        decision: The decision.
        number: How many there were.
        confidence: Their mean confidence.
        in_scope: Their mean probability of belonging to something learned.
    """

    hour: datetime
    generation: int
    task: str
    label: str
    decision: str
    number: int
    confidence: float
    in_scope: float


@dataclass(frozen=True, slots=True)
class DayCount:
    """Predictions with the same decision, of one day, one task, or both.

    Attributes:
        day: The day, in UTC; None for all days together.
        task: The task that answered; None for all tasks together.
        decision: The decision.
        number: How many there were.
        confidence: Their mean confidence.
        in_scope: Their mean probability of belonging to something learned.
    """

    day: date | None
    task: str | None
    decision: str
    number: int
    confidence: float
    in_scope: float


@dataclass(frozen=True, slots=True)
class KeptAlarm:
    """An alarm that watching has raised.

    Attributes:
        signal: The signal.
        start: Number of the entry at which its reference starts.
        time: When it was raised.
    """

    signal: str
    start: int
    time: datetime


@dataclass(frozen=True, slots=True)
class LogNote:
    """Entries that are not there: lost, pruned or forgotten.

    Attributes:
        time: When this was noted.
        what: "lost" (they could not be written), "pruned" or "forgotten".
        number: How many entries.
        actor: Who did it.
    """

    time: datetime
    what: str
    number: int
    actor: str


@dataclass(frozen=True, slots=True)
class RecordHead:
    """The last entry of a record of predictions; its digest stands for everything up to it.

    Attributes:
        record: A random number that tells the record from others; "" in a head that was noted without it.
        last: Number of the entry.
        digest: Its digest, 64 hexadecimal digits.
    """

    record: str
    last: int
    digest: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """An entry that was noted outside the record, which must still be there, or was pruned.

    Attributes:
        head: The entry as it was noted.
        where: What noted it, for messages: "event 12".
        pruned: Whether it is the last entry of those that were pruned then.
        elsewhere: Whether the record lies outside the workspace's folder.
    """

    head: RecordHead
    where: str
    pruned: bool = False
    elsewhere: bool = False


def pruning_anchors(actions: Iterable[Mapping[str, Any]]) -> Iterator[Anchor]:
    """Yield what a trail of actions in JSON notes of records: the last entry that was pruned, and the last of all."""
    for action in actions:
        if action["verb"] == PRUNED:
            said, where = action["detail"], f"action {action['id']}"
            for number, digest, pruned in (("through", "digest", True), ("last", "last_digest", False)):
                entry = RecordHead(said["record"], said[number], said[digest])
                yield Anchor(entry, where, pruned=pruned, elsewhere=said["elsewhere"])


class PredictionLog:
    """The record of a workspace's predictions; made on disk with the first entry.

    Threads and processes may share the file. What was appended survives a kill of the process; a power failure may take
    the last entries, never older ones. Every entry holds a keyed hash of itself and of the hash before it.

    Args:
        workspace: The workspace's folder.
        folder: Folder of the file, if it is not the workspace's.
    """

    def __init__(self, workspace: Path, folder: Path | None = None) -> None:
        self._workspace = workspace
        self._folder = folder or workspace
        self.file = self._folder / FILE
        self._database = Database(self.file, _TABLES, LOG_VERSION)
        self._lock = threading.Lock()
        self._raw: sqlite3.Connection | None = None
        self._pid = 0
        self._key = b""
        self._lost = 0
        self._pruned = 0.0
        self._announced = 0
        self._actions = ActionLog(workspace, self._folder)
        _renew_in_forks(self)

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return self._folder

    @property
    def exists(self) -> bool:
        """Whether anything was ever recorded."""
        return self.file.is_file()

    @property
    def size(self) -> int:
        """Size of the file with its log, in bytes."""
        found = [path for path in self._folder.glob(f"{FILE}*") if path.is_file()]
        return sum(path.stat().st_size for path in found)

    # Writing

    def require_writable(self) -> None:
        """Check that entries can be written, as far as this is known beforehand.

        Raises:
            ReadOnlyError: The folder or the file is read-only.
            ConfigError: The file records the predictions of another workspace.
        """
        if self._raw is not None and self._pid == os.getpid():
            return
        for path in (self._folder, *([self.file] if self.exists else [])):
            if reason := missing_right(path):
                raise ReadOnlyError(
                    f"predictions are recorded in this workspace (setting log.predictions), but {path} {reason}. Name "
                    "another folder for the record: --log-to FOLDER, in Python ConPET.open(..., log_to=...)"
                )
        if self.exists:
            self._require_own()

    def rows(
        self,
        request: str,
        examples: Sequence[Example],
        predictions: Sequence[Prediction],
        *,
        with_text: bool,
        at: float | None = None,
    ) -> list[Row]:
        """Return what `append` writes of the answers to a request.

        Args:
            request: Id of the request.
            examples: Its inputs.
            predictions: Their answers.
            with_text: Whether to record the inputs.
            at: When they were answered, in seconds since 1970; None for now.
        """
        when = time.time() if at is None else at
        rows = []
        for place, (example, one) in enumerate(zip(examples, predictions, strict=True), start=1):
            trace = one.trace
            label = one.rejected if one.rejected is not None else one.label
            rows.append(
                (
                    when,
                    request,
                    place,
                    self.hash_of(example),
                    content_of(example) if with_text else None,
                    str(example.kind),
                    one.generation,
                    one.task,
                    one.version,
                    label if isinstance(label, str) else None,
                    _number(one.score),
                    _number(one.in_scope),
                    _number(one.confidence),
                    one.decision,
                    _number(trace.selector) if trace else None,
                    _number(trace.scope) if trace else None,
                    json.dumps(trace.modules, ensure_ascii=False) if trace else "[]",
                )
            )
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Write entries, all or none.

        Raises:
            OSError: They cannot be written: the disk is full, or another error of the file. Call `lost` if they are
                given up.
        """
        with self._changing() as raw:
            digest, digested = _head(raw), []
            for row in rows:
                digest = self.digest(digest, row)
                digested.append((*row, digest))
            raw.executemany(_INSERT, digested)
            raw.executemany(_COUNT, _by_hour(rows))
            lost = self._lost
            if lost:
                _add_note(raw, "lost", lost)
        self._lost -= lost  # more may be lost meanwhile

    def lost(self, number: int) -> None:
        """Count entries that could not be written; the next append notes that they are missing."""
        self._lost += number

    def keep_for(self, days: int | None) -> bool:
        """Delete entries older than some days, at most `_CHUNK` at a time; return whether more are left to delete.

        Once none is left, nothing is done for `PRUNE_SECONDS`.

        Args:
            days: The days; None keeps all.
        """
        now = time.monotonic()
        if days is None or (self._pruned and now - self._pruned < PRUNE_SECONDS):
            return False
        self._pruned = now
        more = self.prune(datetime.now(UTC) - timedelta(days=days), _CHUNK) >= _CHUNK
        if more:
            self._pruned = 0.0
        return more

    def prune(self, before: datetime, most: int | None = None) -> int:
        """Delete the entries before a moment, the oldest first; return how many were deleted.

        A transaction deletes at most `_CHUNK` entries, so others can append between them.

        Args:
            before: The moment.
            most: Stop after about so many entries; None to delete all.
        """
        removed, part = 0, _CHUNK
        while self.exists and part == _CHUNK and (most is None or removed < most):
            part = self._prune_chunk(before.timestamp())
            removed += part
        if removed:
            self._clear_journal()
        return removed

    def _prune_chunk(self, limit: float) -> int:
        with self._changing() as raw:
            raw.execute("DELETE FROM hour WHERE hour < ?", (int(limit // HOUR),))
            last, removed = None, 0
            for entry in raw.execute("SELECT id, time, digest FROM prediction ORDER BY id LIMIT ?", (_CHUNK,)):
                if entry[1] >= limit:
                    break
                last, removed = entry, removed + 1
            if last is None:
                return 0
            self._announce(raw, limit, last[0])
            raw.execute("DELETE FROM feedback WHERE prediction <= ?", (last[0],))
            raw.execute("DELETE FROM prediction WHERE id <= ?", (last[0],))
            _note_pruned(raw, removed, last[2])
        return removed

    def _announce(self, raw: sqlite3.Connection, limit: float, through: int) -> None:
        """Record in the trail of actions that the entries before a moment are deleted, once for all parts."""
        if through <= self._announced:
            return
        # Without the index: the first entries are too old, and the search ends at the first one that is not.
        newer = raw.execute("SELECT id FROM prediction WHERE +time >= ? ORDER BY id LIMIT 1", (limit,)).fetchone()
        (first,) = raw.execute("SELECT min(id) FROM prediction").fetchone()
        last_pruned = "SELECT id, digest FROM prediction WHERE id < ? ORDER BY id DESC LIMIT 1"
        number, digest = raw.execute(last_pruned, (newer[0] if newer else sys.maxsize,)).fetchone()
        last = raw.execute("SELECT id, digest FROM prediction ORDER BY id DESC LIMIT 1").fetchone()
        self._actions.append(
            actor(),
            PRUNED,
            number=number - first + 1,
            through=number,
            digest=bytes(digest).hex(),
            last=last[0],
            last_digest=bytes(last[1]).hex(),
            record=raw.execute("SELECT value FROM meta WHERE name = 'record'").fetchone()[0],
            elsewhere=self._folder.resolve() != self._workspace.resolve(),
        )
        self._announced = number

    def forget(
        self, hashes: Collection[bytes] = (), *, tasks: Collection[str] = (), labels: Collection[str] = ()
    ) -> int:
        """Delete what was recorded of inputs, or of all answers of tasks or with labels; return how many entries.

        Of each entry remain its number, its time and its place in the hash chain.

        Args:
            hashes: Hashes of inputs, from `hash_of`.
            tasks: Names of tasks; entries that ran their modules count, too.
            labels: Labels.
        """
        if not self.exists:
            return 0
        cleared = 0
        with self._changing() as raw:
            raw.executemany("DELETE FROM feedback WHERE label = ?", [(label,) for label in labels])
            for column, values in (("hash", hashes), ("task", tasks), ("label", labels)):
                for value in values:
                    cleared += raw.execute(f"{_CLEAR} WHERE {column} = ?", (value,)).rowcount
                    if column != "hash":
                        raw.execute(f"DELETE FROM hour WHERE {column} = ?", (value,))  # noqa: S608 - one of two names
            for task in tasks:
                quoted = json.dumps(task, ensure_ascii=False)
                cleared += raw.execute(f"{_CLEAR} WHERE instr(modules, ?)", (quoted,)).rowcount
            raw.execute("DELETE FROM feedback WHERE prediction IN (SELECT id FROM prediction WHERE request IS NULL)")
            of_tasks = [f"{what} {task}" for task in tasks for what in ("task", "accuracy")]
            signals = [*of_tasks, *(f"label {label}" for label in labels)]
            raw.executemany("DELETE FROM alarm WHERE signal = ?", [(signal,) for signal in signals])
            if cleared:
                _add_note(raw, "forgotten", cleared)
        self._clear_journal()
        return cleared

    def add_feedback(self, right: Mapping[int, str]) -> None:
        """Keep the right labels of entries; a label that is given again replaces the former one.

        Args:
            right: The right label of each entry, by its number.
        """
        rows = [(number, time.time(), label) for number, label in right.items()]
        with self._changing() as raw:
            raw.executemany(
                "INSERT INTO feedback (prediction, time, label) VALUES (?, ?, ?) "
                "ON CONFLICT (prediction) DO UPDATE SET label = excluded.label",
                rows,
            )

    def retract_feedback(self, numbers: Collection[int]) -> None:
        """Forget the right labels of entries."""
        with self._changing() as raw:
            raw.executemany("DELETE FROM feedback WHERE prediction = ?", [(number,) for number in numbers])

    def restart_watch(self) -> None:
        """Let watching begin anew: the present inputs are the reference from now on."""
        with self._changing() as raw:
            (last,) = raw.execute("SELECT coalesce(max(id), 0) FROM prediction").fetchone()
            raw.execute("INSERT OR REPLACE INTO meta VALUES ('watch_after', ?)", (str(last),))

    def keep_alarm(self, signal: str, start: int, at: datetime) -> None:
        """Keep an alarm in the list of all alarms.

        Args:
            signal: The signal.
            start: Number of the entry at which its reference starts.
            at: When it was raised.
        """
        with self._changing() as raw:
            raw.execute("INSERT OR IGNORE INTO alarm VALUES (?, ?, ?, 0)", (signal, start, at.timestamp()))

    def note_sent(self, signal: str, start: int) -> bool:
        """Note that a kept alarm was sent; return whether it is the first time, for all processes together."""
        return self._set_sent(signal, start, sent=True)

    def retract_sent(self, signal: str, start: int) -> None:
        """Forget that an alarm was sent, because it did not arrive."""
        self._set_sent(signal, start, sent=False)

    def _set_sent(self, signal: str, start: int, *, sent: bool) -> bool:
        with self._changing() as raw:
            changed = raw.execute(
                "UPDATE alarm SET sent = ? WHERE signal = ? AND start = ? AND sent <> ?", (sent, signal, start, sent)
            )
            return changed.rowcount == 1

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._disconnect()

    # Reading

    def hash_of(self, example: Example | str) -> bytes:
        """Return the keyed hash (HMAC-SHA256) of an input, by which it is found; its label and id do not matter."""
        content = example if isinstance(example, str) else content_of(example)
        return hmac.digest(self._secret(), content.encode("utf-8", "surrogatepass"), "sha256")

    def entries(
        self,
        *,
        request: str | None = None,
        input_hash: bytes | None = None,
        task: str | None = None,
        label: str | None = None,
        decision: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
        limit: int = PAGE,
    ) -> list[LogEntry]:
        """Return a page of entries, newest first.

        Args:
            request: Only entries of this request.
            input_hash: Only entries of the input with this hash.
            task: Only answers of this task.
            label: Only answers with this label.
            decision: Only answers with this decision.
            since: Only entries from this moment on.
            before: Only entries with lower numbers: the last number of the former page.
            limit: Most entries.
        """
        chosen = {"request": request, "hash": input_hash, "task": task, "label": label, "decision": decision}
        columns = _PREDICTION.columns
        query = select(columns.id, *_RECORDED).where(columns.request.is_not(None)).order_by(columns.id.desc())
        for name, value in chosen.items():
            if value is not None:
                query = query.where(columns[name] == value)
        if since is not None:
            query = query.where(columns.time >= since.timestamp())
        if before is not None:
            query = query.where(columns.id < before)
        return [_entry(row) for row in self.select(query.limit(limit))]

    def entries_of(self, numbers: Collection[int]) -> list[LogEntry]:
        """Return the entries with these numbers that are still recorded, in the order of their numbers."""
        columns, wanted = _PREDICTION.columns, sorted(numbers)
        query = select(columns.id, *_RECORDED).where(columns.request.is_not(None)).order_by(columns.id)
        parts = (wanted[start : start + _VARIABLES] for start in range(0, len(wanted), _VARIABLES))
        return [_entry(row) for part in parts for row in self.select(query.where(columns.id.in_(part)))]

    def drawable(self, after: int) -> Iterator[Drawable]:
        """Yield what drawing entries for review needs of each, oldest first, in constant memory.

        Args:
            after: Only entries with higher numbers.
        """
        columns = _PREDICTION.columns
        query = select(
            columns.id,
            columns.time,
            columns.decision,
            columns.confidence,
            columns.label.is_not(None).label("labelled"),
            columns.content.is_not(None).label("readable"),
        )
        query = query.where(columns.request.is_not(None)).order_by(columns.id)
        while rows := self.select(query.where(columns.id > after).limit(_CHUNK)):
            for row in rows:
                yield Drawable(*row)
            after = rows[-1].id

    def watched(self, after: int, generations: int) -> Iterator[Watched]:
        """Yield what watching needs of each entry, oldest first, in constant memory.

        Args:
            after: Only entries with higher numbers.
            generations: Only answers of this generation or later ones.
        """
        columns = _PREDICTION.columns
        query = select(*(columns[name] for name in Watched.__slots__))
        query = query.where(columns.generation >= generations).order_by(columns.id)
        while rows := self.select(query.where(columns.id > after).limit(_CHUNK)):
            for row in rows:
                yield Watched(*row)
            after = rows[-1].id

    def judged(self, after: int, generations: int, entries_after: int = 0) -> Iterator[tuple[int, Judged]]:
        """Yield the recorded answers whose right labels are known, in the order in which these became known.

        Args:
            after: Only feedback with higher numbers.
            generations: Only answers of this generation or later ones.
            entries_after: Only entries with higher numbers.

        Yields:
            The number of the feedback, and the answer.
        """
        entry, given = _PREDICTION.columns, _FEEDBACK.columns
        query = select(given.id, entry.time, entry.task, entry.label, given.label.label("right"))
        query = query.join_from(_FEEDBACK, _PREDICTION, given.prediction == entry.id).where(
            entry.generation >= generations, entry.id > entries_after
        )
        while rows := self.select(query.where(given.id > after).order_by(given.id).limit(_CHUNK)):
            for number, *values in rows:
                yield number, Judged(*values)
            after = rows[-1].id

    def counts(self, since: datetime | None = None, *, hours: int = 1, labels: bool = True) -> list[HourCount]:
        """Return how many predictions there were, by time, task, label, decision and generation.

        Args:
            since: Only those from the hour of this moment on.
            hours: Length of a period.
            labels: Whether to count each label; otherwise the tasks.
        """
        start = 0 if since is None else int(since.timestamp() // HOUR)
        columns = _HOUR.columns
        period = (columns.hour / hours).cast(Integer) * hours
        label = columns.label if labels else literal("").label("label")
        groups = (columns.generation, columns.task, label, columns.decision)
        sums = [func.sum(columns[name]).label(name) for name in _SUMS]
        query = select(period.label("hour"), *groups, *sums).where(columns.hour >= start)
        rows = self.select(query.group_by(period, *groups).order_by(period))
        return [
            HourCount(
                _moment(row.hour * HOUR),
                row.generation,
                row.task,
                row.label,
                row.decision,
                row.number,
                row.confidence / row.number,
                row.in_scope / row.number,
            )
            for row in rows
        ]

    def daily(
        self,
        since: date | None = None,
        *,
        days: bool = True,
        tasks: bool = True,
        of: Collection[str] | None = None,
    ) -> list[DayCount]:
        """Return how many predictions there were, by day, task and decision; reads counts that are kept, no entries.

        The counts are those of the entries that are kept, to the hour: what is pruned leaves them, and so do answers
        of tasks and with labels that are forgotten. Inputs that are forgotten stay counted.

        Args:
            since: Only those from the start of this day (UTC) on.
            days: Whether to count each day; otherwise all together.
            tasks: Whether to count each task; otherwise all together.
            of: Only answers of these tasks.
        """
        columns = _DAILY.columns
        groups = [*([columns.day] if days else []), *([columns.task] if tasks else []), columns.decision]
        query = select(*groups, *(func.sum(columns[name]).label(name) for name in _SUMS))
        if since is not None:
            query = query.where(columns.day >= (since - _FIRST_DAY).days)
        if of is not None:
            query = query.where(columns.task.in_(of))
        return [
            DayCount(
                _FIRST_DAY + timedelta(days=row.day) if days else None,
                row.task if tasks else None,
                row.decision,
                row.number,
                row.confidence / row.number,
                row.in_scope / row.number,
            )
            for row in self.select(query.group_by(*groups).order_by(*groups))
        ]

    def alarms(self, limit: int = PAGE) -> list[KeptAlarm]:
        """Return the alarms that were ever kept, newest first."""
        query = text("SELECT signal, start, time FROM alarm ORDER BY time DESC, signal LIMIT :limit")
        return [KeptAlarm(signal, start, _moment(at)) for signal, start, at in self.select(query, limit=limit)]

    def total(self) -> int:
        """Return the number of entries."""
        rows = self.select(text("SELECT count(*) FROM prediction"))
        return int(rows[0][0]) if rows else 0

    def oldest(self) -> datetime | None:
        """Return the time of the oldest entry, or None without entries."""
        rows = self.select(text("SELECT min(time) FROM prediction"))
        return _moment(rows[0][0]) if rows and rows[0][0] is not None else None

    def notes(self) -> list[LogNote]:
        """Return where entries are missing, oldest first."""
        rows = self.select(text("SELECT time, what, number, actor FROM note ORDER BY id"))
        return [LogNote(_moment(row[0]), *row[1:]) for row in rows]

    def watch_after(self) -> int:
        """Return the number of the entry after which watching began anew; 0 if it never did."""
        rows = self.select(text("SELECT value FROM meta WHERE name = 'watch_after'"))
        return int(rows[0][0]) if rows else 0

    def head(self) -> RecordHead | None:
        """Return the last entry, safe from a power failure from now on; None without entries."""
        journal = self.file.with_name(f"{self.file.name}-wal")
        with suppress(OSError):  # it is read-only, or there is none
            sync(journal)
        query = select(_PREDICTION.columns.id, _PREDICTION.columns.digest).order_by(_PREDICTION.columns.id.desc())
        rows = self.select(query.limit(1))
        return RecordHead(self.identity, rows[0][0], bytes(rows[0][1]).hex()) if rows else None

    @property
    def identity(self) -> str:
        """The random number that tells this record from others; "" if there is none yet."""
        rows = self.select(text("SELECT value FROM meta WHERE name = 'record'"))
        return str(rows[0][0]) if rows else ""

    def breaks(self, anchors: Iterable[Anchor] = ()) -> Iterator[str]:
        """Yield where entries were changed, removed or moved after they were written, and where counts are wrong.

        Args:
            anchors: Entries that were noted elsewhere, also of other records, beside what the trail of actions notes.
                Without any, entries at the end can be removed together with their number in the file, and the whole
                file, and nobody sees it.
        """
        if not self.exists:
            return
        try:
            identity = self.identity
            pruned = pruning_anchors([action.to_json() for action in self._actions.entries(search=PRUNED)])
            yield from _Check(self, [one for one in (*anchors, *pruned) if one.head.record in ("", identity)]).breaks()
        except (ConpetError, OSError, ValueError, TypeError, LookupError) as error:
            yield f"{self.file} is damaged, or was changed by something else ({reason_of(error)})"

    def verified(self) -> Iterator[Sequence[Any]]:
        """Yield all entries with every column, oldest first, in constant memory."""
        after = -sys.maxsize
        query = select(_PREDICTION.columns.id, *_RECORDED, _PREDICTION.columns.digest).order_by(_PREDICTION.columns.id)
        while rows := self.select(query.where(_PREDICTION.columns.id > after).limit(_CHUNK)):
            yield from rows
            after = rows[-1].id

    # Parts

    def digest(self, before: bytes, row: Sequence[Any]) -> bytes:
        """Return the digest of an entry after another."""
        values = [value.hex() if isinstance(value, bytes) else value for value in row]
        written = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret(), before + written, "sha256")

    def select(self, query: Executable, **values: Any) -> Sequence[Any]:
        """Return the rows of a query of the file; none if it does not exist."""
        if not self.exists:
            return ()
        with self._database.read() as connection:
            return connection.execute(query, values).all()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction, which is committed at the end or undone on an error."""
        with self._lock, translated(self.file):
            raw = self._connected()
            try:
                raw.execute("BEGIN IMMEDIATE")
                yield raw
                raw.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    raw.rollback()
                self._disconnect()  # after an error of the disk, a connection may be of no more use
                raise

    def _connected(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self._raw = None  # a connection does not survive a fork
        if self._raw is None or not self.exists:
            self._disconnect()
            self._make()
            raw = connect(self.file, "rw", any_thread=True)
            raw.execute("PRAGMA synchronous=NORMAL")  # with a write-ahead log: safe unless the power fails
            raw.execute("INSERT OR IGNORE INTO meta VALUES ('record', ?)", (secrets.token_hex(8),))
            self._raw, self._pid = raw, os.getpid()
        return self._raw

    def _disconnect(self) -> None:
        if self._raw is not None and self._pid == os.getpid():
            self._raw.close()
        self._raw = None

    def _clear_journal(self) -> None:
        """Move the write-ahead log into the file, so that nothing that was deleted can be read in it."""
        with self._lock, translated(self.file):
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _make(self) -> None:
        """Make the file, complete or not at all; check that it is of this workspace."""
        self.require_writable()
        if not self.exists:
            insert = text("INSERT INTO meta VALUES ('key', :mark)")
            self._secret()
            self._database.make(lambda connection: connection.execute(insert, {"mark": self.mark}), private=True)

    @property
    def mark(self) -> str:
        """What tells the key of this workspace from others, without showing it."""
        return sha256(self._secret()).hexdigest()[:16]

    def _require_own(self) -> None:
        version = self.select(text("PRAGMA user_version"))
        if version[0][0] != LOG_VERSION:
            raise CorruptionError(f"{self.file} was not written by this version of conpet; move it away")
        if (problem := self.key_problem()) is not None:
            raise ConfigError(problem)

    def key_problem(self) -> str | None:
        """Return why the record cannot be used with the key that is there, or None if it can."""
        if self.key_file is None:
            return (
                f"{self.file} needs its key, but {KEY} is missing: restore it from a backup, or move {FILE} away to "
                "begin a new record"
            )
        if self.select(text("SELECT value FROM meta WHERE name = 'key'"))[0][0] != self.mark:
            return (
                f"{self.file} records the predictions of another workspace: {KEY} is not its key; name another folder"
            )
        return None

    @property
    def key_file(self) -> Path | None:
        """The file with the key of the hashes, or None if it is missing, or not made yet."""
        places = [self._folder / KEY, self._workspace / KEY]
        return next((place for place in places if place.is_file()), None)

    def _secret(self) -> bytes:
        """Return the key of the hashes; made with the first one."""
        if not self._key:
            path = self.key_file
            if path is None:
                if self.exists:
                    self._require_own()
                path = self._folder / KEY if missing_right(self._workspace) else self._workspace / KEY
                _make_key(path)
            self._key = bytes.fromhex(path.read_text(encoding="ascii"))
        return self._key


class _Check:
    """Compares a record with its hashes, with its counts and with what was noted of it elsewhere.

    Args:
        log: The record.
        anchors: What was noted of it.
    """

    def __init__(self, log: PredictionLog, anchors: Sequence[Anchor]) -> None:
        self._log = log
        self._noted = sorted((one for one in anchors if not one.pruned), key=lambda one: one.head.last)
        self._prunings = {one.head.last: one for one in anchors if one.pruned}
        self._pruned = max(self._prunings, default=0)
        self._first = self._last = 0
        self._cleared = 0
        self._cleared_in: Counter[int] = Counter()
        self._counted: Counter[tuple[Any, ...]] = Counter()
        self._digests: dict[int, str] = {}

    def breaks(self) -> Iterator[str]:
        """Yield what is wrong."""
        wrong = self._log.key_problem()
        if wrong is not None:
            yield f"the hashes of its entries cannot be checked: {wrong}"
        keyed = wrong is None
        yield from self._entry_breaks(keyed)
        yield from self._end_breaks()
        yield from self._anchor_breaks()
        noted: Counter[str] = Counter()
        for note in self._log.notes():
            noted[note.what] += note.number
        gone = (self._first or self._ever + 1) - 1
        if noted["pruned"] != gone:
            yield f"the notes of the record say that {noted['pruned']:,} entries were pruned, but {gone:,} are missing"
        forgotten = noted["forgotten"]
        if self._cleared > forgotten:
            missing = plural(self._cleared - forgotten, "prediction")
            yield f"{missing} without content: no note says that they were forgotten"
        yield from self._count_breaks()

    def _entry_breaks(self, keyed: bool) -> Iterator[str]:
        wanted = {one.head.last for one in self._noted}
        digest = b""
        for row in self._log.verified():
            number, *values, stored = row
            if not self._first:
                self._first = number
                if number > self._pruned + 1:
                    yield f"predictions up to {number - 1} are missing, and no action says that they were pruned"
                digest = self._digest_before(number)
            one = dict(zip(_FIELDS, values, strict=True))
            if one["request"] is None:
                self._cleared += 1
                self._cleared_in[int(one["time"] // HOUR)] += 1
            else:
                self._counted[_group(one)] += 1
                if keyed and self._log.digest(digest, values) != stored:
                    yield f"prediction {number}: it, or what was recorded before it, was changed, removed or moved"
            if not keyed and self._last and number != self._last + 1:
                yield f"prediction {number}: what was recorded before it was removed"
            if number in wanted:
                self._digests[number] = bytes(stored).hex()
            digest, self._last = bytes(stored), number

    def _digest_before(self, first: int) -> bytes:
        """Return the digest of the entry before the first one, which was pruned."""
        if first - 1 in self._prunings:
            return bytes.fromhex(self._prunings[first - 1].head.digest)
        # A deletion that was interrupted stopped before the entry that the action names.
        return _pruned_digest(self._log.select(text(_LAST_PRUNED))) if first > 1 else b""

    @property
    def _ever(self) -> int:
        """The number of the last entry that was ever appended, from the file."""
        rows = self._log.select(text("SELECT seq FROM sqlite_sequence WHERE name = 'prediction'"))
        return int(rows[0][0]) if rows else 0

    def _end_breaks(self) -> Iterator[str]:
        ever = self._ever
        present = self._last or min(self._pruned, ever)
        if ever > present:
            yield f"predictions {present + 1:,} to {ever:,} are missing at the end"
        elif self._pruned > ever:
            yield f"prediction {self._pruned}: {self._prunings[self._pruned].where} noted it, but it was never there"

    def _anchor_breaks(self) -> Iterator[str]:
        for one in self._noted:
            if one.head.last in self._digests and self._digests[one.head.last] != one.head.digest:
                yield (
                    f"prediction {one.head.last}: has another digest than {one.where} noted; the record up to it was "
                    "written anew"
                )
                break
        missing = [one for one in self._noted if one.head.last > max(self._last, self._pruned)]
        if missing:
            yield f"prediction {missing[-1].head.last}: {missing[-1].where} noted it, but it is not in the record"

    def _count_breaks(self) -> Iterator[str]:
        """Yield where the counts by hour or day are not those of the entries.

        Forgotten inputs stay counted; the first hour may be pruned in part, and hours before it are not kept.
        """
        columns = _HOUR.columns
        keys = (columns.hour, columns.generation, columns.task, columns.label, columns.decision)
        kept = {tuple(row[:-1]): row[-1] for row in self._log.select(select(*keys, columns.number))}
        hours = {group[0] for group in kept}
        partial = min(hours, default=0) if self._pruned else -1
        surplus: Counter[int] = Counter()
        wrong = set()
        for group in kept.keys() | self._counted.keys():
            hour, more = group[0], kept.get(group, 0) - self._counted[group]
            if hour <= partial or (self._pruned and hour not in hours):
                continue
            surplus[hour] += max(more, 0)
            if more < 0:
                wrong.add(hour)
        wrong |= {hour for hour, more in surplus.items() if more > self._cleared_in[hour]}
        for hour in sorted(wrong):
            yield f"the counts of the hour from {_moment(hour * HOUR):%Y-%m-%d %H:%M} UTC are not those of its entries"
        by_day: Counter[tuple[Any, ...]] = Counter()
        for (hour, _, task, _, decision), number in kept.items():
            by_day[hour // 24, task, decision] += number
        days = _DAILY.columns
        found = self._log.select(select(days.day, days.task, days.decision, days.number))
        if by_day != Counter({tuple(row[:-1]): row[-1] for row in found}):
            yield "the counts of days are not the sums of those of hours"


def _renew_in_forks(log: PredictionLog) -> None:
    """Give a forked child a lock of its own: another thread of the parent may hold the inherited one."""
    reference = weakref.ref(log)

    def renew() -> None:
        if (inherited := reference()) is not None:
            inherited._lock = threading.Lock()

    os.register_at_fork(after_in_child=renew)


def _make_key(path: Path) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        aside.touch(mode=0o600)
        aside.write_text(secrets.token_hex(_KEY_BYTES), encoding="ascii")
        sync(aside)
        with suppress(FileExistsError):  # another process was faster
            path.hardlink_to(aside)
    finally:
        aside.unlink(missing_ok=True)


def content_of(example: Example) -> str:
    """Return an input without label and id, as it is recorded: its text, or JSON."""
    if example.kind is Kind.TEXT:
        return example.text
    document = example.to_json()
    kept = {name: value for name, value in document.items() if name not in ("label", "id")}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True)


def _number(value: float) -> float | None:
    """Return a number as SQLite stores it; it has no NaN."""
    return float(value) if value == value else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _head(raw: sqlite3.Connection) -> bytes:
    """Return the digest of the last entry."""
    last = raw.execute("SELECT digest FROM prediction ORDER BY id DESC LIMIT 1").fetchone()
    return bytes(last[0]) if last else _pruned_digest(raw.execute(_LAST_PRUNED).fetchall())


def _pruned_digest(rows: Sequence[Any]) -> bytes:
    """Return the digest of the last entry that was pruned, from the rows of `_LAST_PRUNED`; b"" without one."""
    return bytes(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else b""


def _note_pruned(raw: sqlite3.Connection, number: int, digest: bytes) -> None:
    """Note that the oldest entries were deleted; what one user deletes on one day (UTC) is one note."""
    query = "SELECT id, time, actor FROM note WHERE what = 'pruned' ORDER BY id DESC LIMIT 1"
    last, now = raw.execute(query).fetchone(), time.time()
    if last is None or (last[1] // _DAY, last[2]) != (now // _DAY, actor()):
        _add_note(raw, "pruned", number, digest)
        return
    raw.execute(
        "UPDATE note SET time = ?, number = number + ?, digest = ? WHERE id = ?", (now, number, digest, last[0])
    )


def _add_note(raw: sqlite3.Connection, what: str, number: int, digest: bytes | None = None) -> None:
    raw.execute(
        "INSERT INTO note (time, what, number, actor, digest) VALUES (?, ?, ?, ?, ?)",
        (time.time(), what, number, actor(), digest),
    )


def _by_hour(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    sums: dict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for row in rows:
        one = dict(zip(_FIELDS, row, strict=True))
        of_group = sums[_group(one)]
        of_group[0] += 1
        of_group[1] += one["confidence"] or 0.0
        of_group[2] += one["in_scope"] or 0.0
    return [(*group, *values) for group, values in sums.items()]


def _group(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what an entry is counted by."""
    return (int(one["time"] // HOUR), one["generation"] or 0, one["task"], one["label"] or "", one["decision"])


def _entry(row: Sequence[Any]) -> LogEntry:
    values = dict(zip(("id", *_FIELDS), row, strict=True))
    values["time"] = _moment(values["time"])
    values["hash"] = bytes(values["hash"]).hex()
    values["modules"] = tuple((task, version) for task, version in json.loads(values["modules"]))
    return LogEntry(**values)
