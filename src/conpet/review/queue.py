"""The review queue of a workspace on disk: an SQLite file beside the record of predictions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from conpet.data import Example
from conpet.errors import ConfigError, ReadOnlyError, ReviewConflictError, UnknownNameError
from conpet.review.agreement import agreement_of
from conpet.review.estimate import DrawnAnswer, ReviewAccuracy, accuracy_of
from conpet.review.records import ItemKind, ItemState, ReviewerCount, ReviewItem, ReviewStatus, Verdict, VerdictKind
from conpet.review.schema import BATCH, DRAW, FILE, ITEM, META, STRATUM, TABLES, VERDICT, VERSION, WORK
from conpet.store.access import missing_right
from conpet.store.database import Database
from conpet.store.prediction_log import PRUNE_SECONDS, PredictionLog, content_of
from conpet.types import LogEntry, example_of

LEASE_SECONDS = 900.0
"""How long an item stays with the reviewer who takes it."""
REPORTED, IMPORTED = -1.0, 2.0
"""Positions of reported items, before all that are drawn (0 to 1), and of imported ones, after them."""
_UNANSWERED = (ItemState.OPEN, ItemState.DISPUTED, ItemState.SKIPPED)
_NOTHING = ""
"""Outcome of an item that belongs to nothing learned."""
_ANSWER = ("prediction", "request", "place", "generation", "task", "label", "score", "confidence", "decision")
_HALF = 1 << 64


class NewItem(NamedTuple):
    """An input for review.

    Attributes:
        example: The input.
        kind: Why.
        position: Its place in the queue.
        answer: The recorded answer to it, or None.
        suggested: The right label, by whoever reports it.
        note: A note of the one who reports it.
    """

    example: Example
    kind: ItemKind
    position: float
    answer: LogEntry | None = None
    suggested: str | None = None
    note: str = ""


class NewDraw(NamedTuple):
    """A drawn entry: its kind and place in the random order, its stratum, and the entry."""

    kind: ItemKind
    position: int
    stratum: str
    entry: LogEntry
    example: Example


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A draw.

    Attributes:
        after: Number of the last entry that the draw before it had seen.
        last: Number of the last entry that it has seen.
        since: When its first entry was recorded, in seconds since 1970.
        until: When its last one was recorded.
        below: Confidence below which an answer is uncertain.
        sizes: Number of entries by stratum.
        draws: What was drawn.
    """

    after: int
    last: int
    since: float
    until: float
    below: float
    sizes: Mapping[str, int]
    draws: Sequence[NewDraw]


class GivenVerdict(NamedTuple):
    """A verdict as it is given; `task` is the task of the label, `seconds` None to measure since the item was taken."""

    verdict: VerdictKind
    label: str | None = None
    task: str | None = None
    note: str = ""
    seconds: float | None = None


class ToLearn(NamedTuple):
    """An item that is done and not learned: its input with the right label, and whether the label was new."""

    item: int
    example: Example
    label: str
    new: bool
    answered_by: str | None
    token: str | None
    into_task: str | None


class ReviewQueue:
    """Inputs in review; made on disk with the first one. Threads and processes may share it.

    Every call is a transaction: it is done completely or not at all, also if the process is killed.

    Args:
        log: The workspace's record of predictions, beside which the queue lies.
    """

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self.file = log.folder / FILE
        self._database = Database(self.file, TABLES, VERSION)
        self._checked = False
        self._pruned = 0.0

    @property
    def exists(self) -> bool:
        """Whether anything was ever in review."""
        return self.file.is_file()

    # Writing

    def add(self, items: Sequence[NewItem], double: float = 0.0) -> list[tuple[int, bool]]:
        """Put inputs into review; return the number of each, and whether it is new. Equal inputs are one item.

        Args:
            items: The inputs.
            double: Share of new items that two reviewers look at.
        """
        with self._writing() as connection:
            return [self._add(connection, one, double) for one in items]

    def add_batch(self, batch: NewBatch, double: float) -> tuple[int, int] | None:
        """Put a draw into review; return its number and that of new items, or None if another draw was faster."""
        counts = Counter(one.kind for one in batch.draws)
        with self._writing() as connection:
            if _last(connection) != batch.after:
                return None
            values = {"time": time.time(), "last": batch.last, "since": batch.since, "until": batch.until}
            query = insert(BATCH).values(**values, below=batch.below).returning(BATCH.c.id)
            number = int(connection.execute(query).scalar_one())
            sizes = [{"batch": number, "name": name, "size": size} for name, size in batch.sizes.items()]
            connection.execute(insert(STRATUM), sizes)
            added, items = 0, set()
            for one in batch.draws:
                new = NewItem(one.example, one.kind, one.position / counts[one.kind], one.entry)
                item, is_new = self._add(connection, new, double)
                added += is_new
                items.add(item)
                row = {"batch": number, "kind": str(one.kind), "position": one.position, "stratum": one.stratum}
                row |= {"item": item, "prediction": one.entry.id}
                row |= {"label": one.entry.label, "decision": one.entry.decision}
                connection.execute(insert(DRAW), row)
            for item in items:
                _settle(connection, item)
        return number, added

    def report(self, item: NewItem, reporter: str) -> tuple[ReviewItem, bool]:
        """Put an answer that is reported as wrong into review; return the item, and whether somebody has to look at it.

        An item that is done waits again if its right label is the one that was reported as wrong.
        """
        with self._writing() as connection:
            number, _ = self._add(connection, item, 0.0)
            row = _row(connection, number)
            wrong = _outcome_of_answer(row)
            waits = row.state != ItemState.DONE or (row.learned is None and row.outcome == wrong)
            values: dict[str, Any] = {"reports": row.reports + 1}
            if waits:
                values |= {"kind": str(ItemKind.REPORTED), "position": REPORTED}
                values |= {"contested": 1, "state": str(ItemState.OPEN)} if row.state == ItemState.DONE else {}
            values |= {"suggested": item.suggested} if item.suggested else {}
            values |= {"note": item.note, "reported_by": reporter} if item.note else {}
            _update(connection, number, values)
        return self.get(number), waits

    def claim(
        self, reviewer: str, kind: ItemKind | None = None, lease_seconds: float = LEASE_SECONDS
    ) -> ReviewItem | None:
        """Take the next item for a reviewer: the one that the reviewer has already, or the first that waits.

        It stays with the reviewer until it is answered or the time has passed; then others get it.

        Args:
            reviewer: Who.
            kind: Only items of this kind.
            lease_seconds: How long.
        """
        if not self.exists:
            return None
        now = time.time()
        with self._writing() as connection:
            wanted = [] if kind is None else [ITEM.c.kind == kind]
            waiting = ITEM.c.state.in_(_UNANSWERED)
            own = and_(ITEM.c.claimed_by == reviewer, ITEM.c.claimed_until > now)
            found = connection.execute(select(ITEM.c.id).where(waiting, own, *wanted).order_by(ITEM.c.id)).scalar()
            taken_now = found is None
            if found is None:
                seen = exists().where(VERDICT.c.item == ITEM.c.id, VERDICT.c.reviewer == reviewer)
                free = or_(ITEM.c.claimed_until.is_(None), ITEM.c.claimed_until <= now)
                query = select(ITEM.c.id).where(waiting, free, or_(ITEM.c.contested == 1, ~seen), *wanted)
                rank = case({str(ItemState.OPEN): 0, str(ItemState.DISPUTED): 1}, value=ITEM.c.state, else_=2)
                found = connection.execute(query.order_by(rank, ITEM.c.position, ITEM.c.id).limit(1)).scalar()
            if found is None:
                return None
            values: dict[str, Any] = {"claimed_by": reviewer, "claimed_until": now + lease_seconds}
            _update(connection, found, values | ({"claimed_at": now} if taken_now else {}))
            return _item(connection, found)

    def release(self, reviewer: str) -> int:
        """Give back what a reviewer has, and return how many items that were."""
        if not self.exists:
            return 0
        free = {"claimed_by": None, "claimed_at": None, "claimed_until": None}
        with self._writing() as connection:
            return connection.execute(update(ITEM).where(ITEM.c.claimed_by == reviewer).values(free)).rowcount

    def answer(
        self, number: int, reviewer: str, given: GivenVerdict, *, at: float | None = None, offline: bool = False
    ) -> ReviewItem:
        """Keep what a reviewer says of an item.

        Args:
            number: The item.
            reviewer: Who.
            given: What.
            at: When, in seconds since 1970; None for now.
            offline: Whether it was given elsewhere, so that it does not matter who has the item here.

        Raises:
            UnknownNameError: There is no such item.
            ReviewConflictError: Another reviewer has it or was faster, or it was learned.
        """
        now = time.time()
        with self._writing() as connection:
            row = _row(connection, number)
            _check_not_learned(row)
            if not offline:
                _check_not_claimed(row, reviewer, now)
            if not row.contested and _said_already(connection, number, reviewer, given):
                return _item(connection, number)  # the request was sent twice
            if not offline:
                _check_free(connection, row, reviewer)
            seconds = _seconds(row, reviewer, given, now)
            values = {"item": number, "reviewer": reviewer, "time": now if at is None else at, "seconds": seconds}
            values |= {"verdict": str(given.verdict), "label": given.label, "task": given.task, "note": given.note}
            connection.execute(insert(VERDICT), values)
            if seconds:
                connection.execute(insert(WORK), {"reviewer": reviewer, "task": given.task, "seconds": seconds})
            _update(connection, number, {"contested": 0, "claimed_by": None, "claimed_at": None, "claimed_until": None})
            _settle(connection, number)
            return _item(connection, number)

    def undo(self, reviewer: str, lease_seconds: float = LEASE_SECONDS) -> ReviewItem:
        """Take back the last verdict of a reviewer, who gets the item again.

        Raises:
            UnknownNameError: The reviewer has given none.
            ReviewConflictError: The item was learned, or another reviewer has it.
        """
        now = time.time()
        nothing = f"{reviewer} has given no verdict that could be taken back"
        if not self.exists:
            raise UnknownNameError(nothing)
        with self._writing() as connection:
            query = select(VERDICT).where(VERDICT.c.reviewer == reviewer).order_by(VERDICT.c.id.desc()).limit(1)
            last = connection.execute(query).first()
            if last is None:
                raise UnknownNameError(nothing)
            row = _row(connection, last.item)
            _check_not_learned(row)
            _check_not_claimed(row, reviewer, now)
            connection.execute(delete(VERDICT).where(VERDICT.c.id == last.id))
            claim = {"claimed_by": reviewer, "claimed_at": now, "claimed_until": now + lease_seconds}
            _update(connection, row.id, claim)
            _settle(connection, row.id)
            return _item(connection, row.id)

    def forget(
        self,
        hashes: Collection[bytes] = (),
        *,
        tasks: Collection[str] = (),
        labels: Collection[str] = (),
        texts: Collection[str] = (),
    ) -> int:
        """Delete items of inputs, of all answers of tasks, and of labels; return how many.

        What was drawn keeps whether the answer was right, for the accuracy, and nothing else.

        Args:
            hashes: Hashes of inputs, from `PredictionLog.hash_of`.
            tasks: Names of tasks.
            labels: Labels, also those that reviewers gave or suggested.
            texts: Texts that are taken out of notes.
        """
        if not self.exists:
            return 0
        with self._writing() as connection:
            removed = _remove(connection, _found(connection, hashes, tasks, labels))
            gone = update(DRAW).values(label=None, prediction=None, item=None)
            for part in _parts(labels):
                connection.execute(gone.where(DRAW.c.label.in_(part)))
            for part in _parts(tasks):
                connection.execute(update(WORK).where(WORK.c.task.in_(part)).values(task=None))
                connection.execute(update(VERDICT).where(VERDICT.c.task.in_(part)).values(task=None))
            for content in texts:
                for table in (ITEM, VERDICT):
                    connection.execute(update(table).where(func.instr(table.c.note, content) > 0).values(note=""))
        self._database.scrub()
        return removed

    def keep_for(self, days: int | None) -> None:
        """Delete items older than some days, at most once within `PRUNE_SECONDS`; None keeps all."""
        now = time.monotonic()
        if days is None or not self.exists or (self._pruned and now - self._pruned < PRUNE_SECONDS):
            return
        self._pruned = now
        self.prune(datetime.now(UTC) - timedelta(days=days))

    def prune(self, before: datetime) -> int:
        """Delete items whose answers were given (or that came into review) before a moment; return how many."""
        if not self.exists:
            return 0
        with self._writing() as connection:
            old = func.coalesce(ITEM.c.answered, ITEM.c.created) < before.timestamp()
            removed = _remove(connection, connection.execute(select(ITEM.c.id).where(old)).scalars().all())
        if removed:
            self._database.scrub()
        return removed

    # Learning

    def to_learn(self) -> list[ToLearn]:
        """Return the items that are done, have a right label and are not learned, oldest first."""
        if not self.exists:
            return []
        wanted = and_(ITEM.c.state == ItemState.DONE, ITEM.c.right.is_not(None), ITEM.c.learned.is_(None))
        with self._reading() as connection:
            rows = connection.execute(select(ITEM).where(wanted).order_by(ITEM.c.id)).all()
            news = _news(connection, [row.id for row in rows])
        return [
            ToLearn(
                row.id,
                example_of(row.form, row.content).labelled(row.right),
                row.right,
                row.id in news,
                row.task,
                row.token,
                row.into_task,
            )
            for row in rows
        ]

    def begin_learning(self, token: str, tasks: Mapping[int, str]) -> None:
        """Note, before they are learned, in which change items are learned, and by which task each.

        Args:
            token: Random name of the change, which its events carry.
            tasks: Name of the task of each item.
        """
        with self._writing() as connection:
            for item, task in tasks.items():
                _update(connection, item, {"token": token, "into_task": task})

    def learned(self, token: str, task: str, generation: int) -> int:
        """Mark the items of a change that a task has learned; return how many."""
        this = and_(ITEM.c.token == token, ITEM.c.into_task == task, ITEM.c.learned.is_(None))
        with self._writing() as connection:
            return connection.execute(update(ITEM).where(this).values(learned=generation)).rowcount

    def book(self, enter: Callable[[Mapping[str | None, tuple[float, int]]], bool], least_seconds: float = 0.0) -> None:
        """Enter the time that was taken into a ledger, once.

        Args:
            enter: Takes seconds and number of verdicts by task; returns whether they were entered.
            least_seconds: Less time waits until there is more.
        """
        if not self.exists or missing_right(self.file) or missing_right(self.file.parent):
            return
        with self._writing() as connection:
            query = select(WORK.c.task, func.sum(WORK.c.seconds), func.count()).where(WORK.c.booked == 0)
            rows = connection.execute(query.group_by(WORK.c.task)).all()
            taken = {task: (float(seconds), int(number)) for task, seconds, number in rows}
            if taken and sum(seconds for seconds, _ in taken.values()) >= least_seconds and enter(taken):
                connection.execute(update(WORK).where(WORK.c.booked == 0).values(booked=1))

    # Reading

    def get(self, number: int) -> ReviewItem:
        """Return an item.

        Raises:
            UnknownNameError: There is no such item.
        """
        if not self.exists:
            raise _no_item(number)
        with self._reading() as connection:
            return _item(connection, number)

    def find(self, example: Example) -> ReviewItem | None:
        """Return the item of an input, or None."""
        if not self.exists:
            return None
        with self._reading() as connection:
            number = connection.execute(select(ITEM.c.id).where(ITEM.c.hash == self._log.hash_of(example))).scalar()
            return None if number is None else _item(connection, number)

    def count(self, hashes: Collection[bytes]) -> int:
        """Return how many of some inputs are in review."""
        if not self.exists or not hashes:
            return 0
        with self._reading() as connection:
            return len(_found(connection, hashes, (), ()))

    def items(
        self,
        *,
        states: Collection[ItemState] = (),
        kind: ItemKind | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[ReviewItem]:
        """Return a page of items, oldest first.

        Args:
            states: Only items in one of these states; all without any.
            kind: Only items of this kind.
            after: Only items with higher numbers: the last number of the former page.
            limit: Most items.
        """
        if not self.exists:
            return []
        query = select(ITEM).where(ITEM.c.id > after).order_by(ITEM.c.id).limit(limit)
        query = query.where(ITEM.c.state.in_(states)) if states else query
        query = query.where(ITEM.c.kind == kind) if kind is not None else query
        with self._reading() as connection:
            rows = connection.execute(query).all()
            return _items(connection, rows)

    def search(
        self, words: str, *, states: Collection[ItemState] = (), kind: ItemKind | None = None, skip: int, limit: int
    ) -> tuple[list[ReviewItem], int]:
        """Return some of the items that have all words in their input or a label, newest first, and their number.

        Args:
            words: The words; all items without any.
            states: As in `items`.
            kind: As in `items`.
            skip: Number of newer items to leave out.
            limit: Most items.
        """
        if not self.exists:
            return [], 0
        texts = (ITEM.c.content, ITEM.c.label, ITEM.c.right)
        wanted = [or_(*(column.icontains(word, autoescape=True) for column in texts)) for word in words.split()]
        wanted += [ITEM.c.state.in_(states)] if states else []
        wanted += [ITEM.c.kind == kind] if kind is not None else []
        with self._reading() as connection:
            number = connection.execute(select(func.count()).select_from(ITEM).where(*wanted)).scalar_one()
            query = select(ITEM).where(*wanted).order_by(ITEM.c.id.desc()).offset(skip).limit(limit)
            return _items(connection, connection.execute(query).all()), int(number)

    def feedback_of(self, number: int) -> dict[int, str | None]:
        """Return the recorded predictions that were drawn at random of an item, each with its right label.

        The label is None as long as none is known, or if nothing learned fits.
        """
        with self._reading() as connection:
            row = _row(connection, number)
            drawn = and_(DRAW.c.item == number, DRAW.c.kind == ItemKind.RANDOM, DRAW.c.prediction.is_not(None))
            return dict.fromkeys(connection.execute(select(DRAW.c.prediction).where(drawn)).scalars(), row.right)

    def last_draw(self) -> tuple[int, datetime | None]:
        """Return the number of the last recorded prediction that was drawn from, and when."""
        if not self.exists:
            return 0, None
        with self._reading() as connection:
            when = connection.execute(select(func.max(BATCH.c.time))).scalar()
            return _last(connection), None if when is None else _moment(when)

    def accuracy(self, since: datetime | None = None) -> ReviewAccuracy:
        """Return the accuracy of recorded answers, estimated from what was drawn and reviewed.

        Args:
            since: Only draws whose first answer was given at this moment or later.
        """
        if not self.exists:
            return accuracy_of({}, {}, [])
        wanted = BATCH.c.since >= (0.0 if since is None else since.timestamp())
        with self._reading() as connection:
            batches = connection.execute(select(BATCH).where(wanted).order_by(BATCH.c.id)).all()
            numbers = {row.id for row in batches}
            strata = [row for row in connection.execute(select(STRATUM)) if row.batch in numbers]
            columns = (DRAW.c.batch, DRAW.c.kind, DRAW.c.position, DRAW.c.stratum, DRAW.c.right, ITEM.c.state)
            query = select(*columns).outerjoin_from(DRAW, ITEM, DRAW.c.item == ITEM.c.id)
            drawn = connection.execute(query.where(DRAW.c.batch >= min(numbers, default=0))).all()
        sizes: dict[int, dict[str, int]] = {row.id: {} for row in batches}
        for row in strata:
            sizes[row.batch][row.name] = row.size
        times = {row.id: (_moment(row.since), _moment(row.until)) for row in batches}
        gone = (None, ItemState.SKIPPED)
        answers = [
            DrawnAnswer(
                batch, kind, position, stratum, None if right is None else bool(right), right is None and state in gone
            )
            for batch, kind, position, stratum, right, state in drawn
            if batch in numbers
        ]
        return accuracy_of(sizes, times, answers)

    def status(self, keep_days: int | None = None, text_missing: str | None = None) -> ReviewStatus:
        """Return how far the review is.

        Args:
            keep_days: Days that items are kept.
            text_missing: Why nothing can be drawn at present.
        """
        states = dict.fromkeys(map(str, ItemState), 0)
        if not self.exists:
            return ReviewStatus(states, {}, 0, 0, {}, 0, (), 0.0, agreement_of([]), None, text_missing, None)
        now = time.time()
        waits, done = ITEM.c.state.in_(_UNANSWERED), ITEM.c.state == ItemState.DONE
        learnable = and_(done, ITEM.c.right.is_not(None), ITEM.c.learned.is_(None))
        with self._reading() as connection:

            def count(*conditions: ColumnElement[bool]) -> int:
                return int(connection.execute(select(func.count()).select_from(ITEM).where(*conditions)).scalar_one())

            def by(column: Any, *conditions: ColumnElement[bool]) -> dict[str, int]:
                query = select(column, func.count()).where(*conditions).group_by(column).order_by(column)
                return dict(connection.execute(query).tuples().all())

            states |= by(ITEM.c.state)
            oldest = connection.execute(
                select(func.min(func.coalesce(ITEM.c.answered, ITEM.c.created))).where(learnable)
            ).scalar()
            new = exists().where(VERDICT.c.item == ITEM.c.id, VERDICT.c.verdict == VerdictKind.NEW)
            first = _labels_by_item(connection)
            return ReviewStatus(
                states,
                by(ITEM.c.kind, waits),
                count(waits, ITEM.c.claimed_until > now),
                count(learnable),
                by(ITEM.c.right, learnable, new),
                count(ITEM.c.learned.is_not(None)),
                tuple(_reviewers(connection)),
                float(connection.execute(select(func.coalesce(func.sum(WORK.c.seconds), 0.0))).scalar_one()) / 60,
                agreement_of(first),
                self._last_time(connection),
                text_missing,
                None if oldest is None or keep_days is None else _moment(oldest) + timedelta(days=keep_days),
            )

    def _last_time(self, connection: Connection) -> datetime | None:
        when = connection.execute(select(func.max(BATCH.c.time))).scalar()
        return None if when is None else _moment(when)

    # Parts

    def _add(self, connection: Connection, new: NewItem, double: float) -> tuple[int, bool]:
        digest = self._log.hash_of(new.example)
        row = connection.execute(select(ITEM).where(ITEM.c.hash == digest)).first()
        answer = {} if new.answer is None else _answer_of(new.answer)
        if row is not None:
            if answer and (row.prediction or 0) < (answer["prediction"] or 0):
                _update(connection, row.id, answer)
            return int(row.id), False
        values = {
            "hash": digest,
            "form": str(new.example.kind),
            "content": content_of(new.example),
            "kind": str(new.kind),
            "state": str(ItemState.OPEN),
            "position": new.position,
            "created": time.time(),
            "needed": 2 if int.from_bytes(digest[:8]) < double * _HALF else 1,
            **answer,
        }
        return int(connection.execute(insert(ITEM).values(values).returning(ITEM.c.id)).scalar_one()), True

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._check()
        with self._database.read() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        for path in (self.file.parent, *([self.file] if self.exists else [])):
            if reason := missing_right(path):
                raise ReadOnlyError(f"nothing can be reviewed: {path} {reason}")
        if not self.exists:
            mark = self._log.mark
            self._database.make(
                lambda connection: connection.execute(insert(META).values(name="key", value=mark)), private=True
            )
        self._check()
        with self._database.write() as connection:
            yield connection

    def _check(self) -> None:
        """Check once that the file is of this version and workspace."""
        if self._checked:
            return
        with self._database.read() as connection:
            self._database.require_version(
                connection, "use the conpet that wrote it, or move the file away to start a new review"
            )
            mark = connection.execute(select(META.c.value).where(META.c.name == "key")).scalar_one()
        if mark != self._log.mark:
            raise ConfigError(f"{self.file} is the review of another workspace; name another folder")
        self._checked = True


def _no_item(number: int) -> UnknownNameError:
    return UnknownNameError(f"there is no item {number} in review; it may have been forgotten, or deleted by its age")


def _row(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(select(ITEM).where(ITEM.c.id == number)).first()
    if row is None:
        raise _no_item(number)
    return row


def _update(connection: Connection, number: int, values: Mapping[str, Any]) -> None:
    connection.execute(update(ITEM).where(ITEM.c.id == number).values(dict(values)))


def _last(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(BATCH.c.last), 0))).scalar_one())


def _answer_of(entry: LogEntry) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in _ANSWER if name != "prediction"}
    return values | {"prediction": entry.id, "answered": entry.time.timestamp()}


def _outcome_of_answer(row: Row[Any]) -> str | None:
    """Return the outcome that confirms the answer of an item; None if no answer is known."""
    return _NOTHING if row.decision == "decline" else row.label


def _check_not_learned(row: Row[Any]) -> None:
    if row.learned is not None:
        raise ReviewConflictError(
            f"item {row.id} was learned by generation {row.learned}, so its verdict stays; to take the example out "
            "again, forget it (`conpet forget`)"
        )


def _check_not_claimed(row: Row[Any], reviewer: str, now: float) -> None:
    if row.claimed_by not in (None, reviewer) and row.claimed_until > now:
        until = _moment(row.claimed_until).strftime("%H:%M:%S")
        raise ReviewConflictError(f"item {row.id} is with {row.claimed_by} until {until} UTC; take another one")


def _said_already(connection: Connection, number: int, reviewer: str, given: GivenVerdict) -> bool:
    """Return whether the last verdict of a reviewer on an item is the same."""
    own = and_(VERDICT.c.item == number, VERDICT.c.reviewer == reviewer)
    last = connection.execute(select(VERDICT).where(own).order_by(VERDICT.c.id.desc()).limit(1)).first()
    return last is not None and (last.verdict, last.label, last.note) == (given.verdict, given.label, given.note)


def _check_free(connection: Connection, row: Row[Any], reviewer: str) -> None:
    """Refuse a verdict on an item that does not need one of this reviewer."""
    said = connection.execute(select(VERDICT.c.reviewer).where(VERDICT.c.item == row.id)).scalars().all()
    if row.contested or row.state == ItemState.DISPUTED:
        return
    if row.state == ItemState.DONE and reviewer not in said:
        raise ReviewConflictError(f"item {row.id} was reviewed by {said[-1]} meanwhile; take another one")
    if row.state == ItemState.OPEN and reviewer in said:
        raise ReviewConflictError(
            f"{reviewer} has answered item {row.id} already; it waits for a second reviewer. To change the verdict, "
            "undo it"
        )


def _seconds(row: Row[Any], reviewer: str, given: GivenVerdict, now: float) -> float:
    """Return the time that a verdict took: as it is given, or since the item was taken, at most the lease."""
    if given.seconds is not None:
        return max(0.0, given.seconds)
    if row.claimed_by != reviewer or row.claimed_at is None:
        return 0.0
    return max(0.0, min(now, float(row.claimed_until)) - float(row.claimed_at))


def _settle(connection: Connection, number: int) -> None:
    """Work out from its verdicts where an item is, and whether answers of it that were drawn are right."""
    row = _row(connection, number)
    latest: dict[str, Row[Any]] = {}
    for said in connection.execute(select(VERDICT).where(VERDICT.c.item == number).order_by(VERDICT.c.id)):
        latest[said.reviewer] = said
    votes = [_outcome(said) for said in latest.values() if said.verdict != VerdictKind.SKIP]
    top, most = next(iter(Counter(votes).most_common(1)), (_NOTHING, 0))
    if len(votes) < row.needed or row.contested:
        state = ItemState.SKIPPED if latest and not votes else ItemState.OPEN
    elif 2 * most > len(votes):
        state = ItemState.DONE
    else:
        state = ItemState.DISPUTED
    outcome = top if state is ItemState.DONE else None
    _update(connection, number, {"state": str(state), "outcome": outcome, "right": outcome or None})
    # Until reviewers agree, the first verdict counts: the order of a draw must not wait for the second.
    held = outcome if outcome is not None else (votes[0] if votes else None)
    introduced = {said.label for said in latest.values() if said.verdict == VerdictKind.NEW}
    new = held in introduced and row.learned is None
    for drawn in connection.execute(select(DRAW).where(DRAW.c.item == number)).all():
        right = None if held is None else _right(drawn, held, new=new)
        key = (DRAW.c.batch == drawn.batch, DRAW.c.kind == drawn.kind, DRAW.c.position == drawn.position)
        connection.execute(update(DRAW).where(*key).values(right=right))


def _right(drawn: Row[Any], outcome: str, *, new: bool) -> bool:
    """Return whether an answer was right: its label; or its refusal, if nothing learned fits."""
    return outcome == _NOTHING or new if drawn.decision == "decline" else outcome == drawn.label


def _outcome(said: Row[Any]) -> str:
    return said.label or _NOTHING


def _found(
    connection: Connection, hashes: Collection[bytes], tasks: Collection[str], labels: Collection[str]
) -> list[int]:
    """Return the items of inputs, tasks and labels."""
    numbers: set[int] = set()
    wanted: list[ColumnElement[bool]] = [ITEM.c.hash.in_(part) for part in _parts(hashes)]
    wanted += [column.in_(part) for column in (ITEM.c.task, ITEM.c.into_task) for part in _parts(tasks)]
    named = (ITEM.c.label, ITEM.c.right, ITEM.c.suggested)
    wanted += [column.in_(part) for column in named for part in _parts(labels)]
    for condition in wanted:
        numbers |= set(connection.execute(select(ITEM.c.id).where(condition)).scalars())
    for part in _parts(labels):
        numbers |= set(connection.execute(select(VERDICT.c.item).where(VERDICT.c.label.in_(part))).scalars())
    return sorted(numbers)


def _remove(connection: Connection, numbers: Sequence[int]) -> int:
    gone = update(DRAW).values(item=None, prediction=None, label=None)
    for part in _parts(numbers):
        connection.execute(gone.where(DRAW.c.item.in_(part)))
        connection.execute(delete(VERDICT).where(VERDICT.c.item.in_(part)))
        connection.execute(delete(ITEM).where(ITEM.c.id.in_(part)))
    return len(numbers)


def _parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield values in parts that fit into a query."""
    rest = list(values)
    yield from (rest[start : start + 500] for start in range(0, len(rest), 500))


def _news(connection: Connection, numbers: Sequence[int]) -> set[int]:
    """Return those of some items whose right label was given as a new one."""
    found: set[int] = set()
    for part in _parts(numbers):
        this = and_(VERDICT.c.item == ITEM.c.id, VERDICT.c.label == ITEM.c.right, VERDICT.c.verdict == VerdictKind.NEW)
        found |= set(connection.execute(select(ITEM.c.id).where(ITEM.c.id.in_(part), exists().where(this))).scalars())
    return found


def _labels_by_item(connection: Connection) -> list[list[str | None]]:
    """Return the first labels that reviewers gave to items that several of them have answered."""
    several = select(VERDICT.c.item).group_by(VERDICT.c.item).having(func.count(VERDICT.c.reviewer.distinct()) > 1)
    query = select(VERDICT).where(VERDICT.c.item.in_(several), VERDICT.c.verdict != VerdictKind.SKIP)
    first: dict[int, dict[str, str | None]] = {}
    for said in connection.execute(query.order_by(VERDICT.c.id)):
        first.setdefault(said.item, {}).setdefault(said.reviewer, said.label)
    return [list(labels.values()) for labels in first.values()]


def _reviewers(connection: Connection) -> Iterator[ReviewerCount]:
    skipped = func.sum(case((VERDICT.c.verdict == VerdictKind.SKIP, 1), else_=0))
    query = select(VERDICT.c.reviewer, func.count(), skipped).group_by(VERDICT.c.reviewer)
    taken = dict(
        connection.execute(select(WORK.c.reviewer, func.sum(WORK.c.seconds)).group_by(WORK.c.reviewer)).tuples().all()
    )
    for reviewer, number, skips in connection.execute(query.order_by(VERDICT.c.reviewer)):
        yield ReviewerCount(reviewer, number, skips, taken.get(reviewer, 0.0) / 60)


def _item(connection: Connection, number: int) -> ReviewItem:
    return _items(connection, [_row(connection, number)])[0]


def _items(connection: Connection, rows: Sequence[Row[Any]]) -> list[ReviewItem]:
    said: dict[int, list[Row[Any]]] = {}
    for part in _parts(row.id for row in rows):
        for one in connection.execute(select(VERDICT).where(VERDICT.c.item.in_(part)).order_by(VERDICT.c.id)):
            said.setdefault(one.item, []).append(one)
    now = time.time()
    return [_made(row, said.get(row.id, []), now) for row in rows]


def _made(row: Row[Any], said: Sequence[Row[Any]], now: float) -> ReviewItem:
    claimed = row.claimed_until is not None and row.claimed_until > now
    return ReviewItem(
        row.id,
        ItemKind(row.kind),
        ItemState(row.state),
        example_of(row.form, row.content),
        _moment(row.created),
        **{name: getattr(row, name) for name in _ANSWER},
        reports=row.reports,
        suggested=row.suggested,
        note=row.note,
        reported_by=row.reported_by,
        double=row.needed > 1,
        right=row.right,
        new=any(one.verdict == VerdictKind.NEW and one.label == row.right for one in said),
        learned=row.learned,
        claimed_by=row.claimed_by if claimed else None,
        claimed_until=_moment(row.claimed_until) if claimed else None,
        verdicts=tuple(
            Verdict(one.reviewer, VerdictKind(one.verdict), one.label, one.note, _moment(one.time), one.seconds)
            for one in said
        ),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
