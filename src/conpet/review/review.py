"""`Review`: what callers do with the review queue of a workspace; imports no torch."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

from conpet.config import Settings
from conpet.cost import Resources
from conpet.data import Example, Input
from conpet.data.rows import RowError, parse_label, to_example
from conpet.errors import ConfigError, DataError, ReadOnlyError, ReviewConflictError, UnknownNameError, did_you_mean
from conpet.review.draw import pick
from conpet.review.estimate import ReviewAccuracy
from conpet.review.label_studio import AnnotatedInput, Annotation, config_of, task_of
from conpet.review.queue import (
    IMPORTED,
    LEASE_SECONDS,
    REPORTED,
    GivenVerdict,
    NewBatch,
    NewDraw,
    NewItem,
    ReviewQueue,
)
from conpet.review.records import DRAWN, Drawn, Imported, ItemKind, ItemState, ReviewItem, ReviewStatus, VerdictKind
from conpet.store import ActionLog, CostKind, CostSource, LedgerEntry, Store
from conpet.store.prediction_log import PredictionLog
from conpet.types import LogEntry

BELOW = 0.5
"""Default confidence below which an answer is uncertain."""
_BOOK_SECONDS = 300.0
"""Least time that is entered into the ledger at once, so that it does not grow with every verdict."""
_PLACES = 1_000_000
NOT_RECORDED = (
    "nothing can be drawn: no predictions are recorded with their inputs. Record them from now on with `conpet audit "
    "log WORKSPACE --predictions text`, or put inputs into review from a file (`conpet review import WORKSPACE FILE`)"
)
NO_TEXTS = (
    "this workspace stores no texts (replay.latent_only=true), and people cannot review what is not stored; review the "
    "answers in your own application, and send right labels as feedback (`conpet watch WORKSPACE --feedback FILE`)"
)


class KnownLabel(NamedTuple):
    """The task of a learned label, and the kind of its inputs."""

    task: str
    kind: str


class Review:
    """The review of a workspace's answers. Threads and processes may share it.

    Args:
        store: The workspace's store.
        log: Its record of predictions.
        recorded: What is recorded of predictions, if it is not what the settings say: "off", "hash" or "text".
    """

    def __init__(self, store: Store, log: PredictionLog, recorded: str | None = None) -> None:
        self._store = store
        self._log = log
        self._recorded = recorded
        self.queue = ReviewQueue(log)
        self._actions = ActionLog(store.path, log.folder)

    # What is reviewed

    def draw(
        self,
        *,
        random: int = 50,
        uncertain: int = 25,
        declined: int = 25,
        below: float = BELOW,
        double: float = 0.0,
        since: datetime | None = None,
        seed: int | None = None,
        by: str | None = None,
    ) -> Drawn:
        """Draw from the predictions that were recorded since the last draw.

        The random ones are drawn from all of them with equal probability, the others from the rest of their kind. So
        `accuracy` can be estimated without bias, although answers in doubt are reviewed more.

        Args:
            random: How many of all.
            uncertain: How many more of those that were answered by a question, or with little confidence.
            declined: How many more of those that were declined.
            below: Confidence below which an answer is uncertain, 0 to 1.
            double: Share of the new items that two reviewers look at, for their agreement, 0 to 1.
            since: Only from predictions of this moment or later; earlier ones are not drawn by later draws either.
            seed: Seed of the draw; None for a draw that nobody can foresee.
            by: Who draws; by default the actor of the workspace's history.

        Raises:
            ConfigError: A value is out of range, or the workspace stores no texts.
            DataError: Predictions are not recorded, or not with their inputs.
        """
        wanted = dict(zip(DRAWN, (random, uncertain, declined), strict=True))
        _check_draw(wanted, below=below, double=double)
        self._check_texts()
        if not self._log.exists:
            raise DataError(NOT_RECORDED)
        generator = Random(secrets.randbits(64) if seed is None else seed)  # noqa: S311 - nobody gains by guessing it
        while True:
            after, _ = self.queue.last_draw()
            start = 0.0 if since is None else since.timestamp()
            entries = (one for one in self._log.drawable(after) if one.time >= start)
            picked = pick(entries, wanted, below, generator)
            population = sum(picked.sizes.values())
            if not population:
                if picked.unreadable:
                    raise DataError(NOT_RECORDED)
                return Drawn(None, 0, {}, dict.fromkeys(map(str, wanted), 0), 0, 0, picked.unlabelled)
            found = {entry.id: entry for entry in self._log.entries_of([one.entry for one in picked.picked])}
            draws = [
                NewDraw(one.kind, one.position, one.stratum, entry, example)
                for one in picked.picked
                if (entry := found.get(one.entry)) is not None and (example := entry.example) is not None
            ]
            batch = NewBatch(after, picked.last, picked.since, picked.until, below, picked.sizes, draws)
            if (made := self.queue.add_batch(batch, double)) is not None:
                break
        drawn = {str(kind): sum(one.kind is kind for one in draws) for kind in wanted}
        self._record("review-drawn", by, draw=made[0], answers=population, items=made[1])
        return Drawn(made[0], population, picked.sizes, drawn, made[1], picked.unreadable, picked.unlabelled)

    def report(
        self,
        item: Input | None = None,
        *,
        request_id: str | None = None,
        place: int = 1,
        label: str | None = None,
        note: str = "",
        reporter: str = "",
    ) -> tuple[ReviewItem, bool]:
        """Put an answer that is wrong into review, before all others.

        Args:
            item: The input; the newest recorded answer to it is meant, if there is one.
            request_id: Id of the request (`Prediction.request_id`); the input is needed, too, if the record has it not.
            place: Number of the input in the request, from 1.
            label: The right label, if it is known.
            note: What is wrong.
            reporter: Who says so.

        Returns:
            The item, and whether somebody has to look at it: not if it was reviewed already, with another label.

        Raises:
            ConfigError: Neither an input nor a request is named, or the workspace stores no texts.
            UnknownNameError: Nothing is recorded of the request.
            DataError: The input is malformed, or not recorded.
        """
        self._check_texts()
        example = None if item is None else _example(item)
        entry = self._entry(example, request_id, place)
        if example is None:
            example = entry.example if entry is not None else None
        if example is None:
            raise DataError("the answer is recorded without its input; give the input as well")
        suggested = None if label is None else _label(label)
        new = NewItem(example, ItemKind.REPORTED, REPORTED, entry, suggested, note.strip())
        found, waits = self.queue.report(new, reporter)
        self._record("answer-reported", reporter or None, item=found.id)
        return found, waits

    def add(self, inputs: Iterable[Input], *, reviewer: str | None = None, double: float = 0.0) -> Imported:
        """Put inputs into review, for example the rows of a file. A label is taken as the verdict of the reviewer.

        Args:
            inputs: Texts, examples, or mappings with the fields of a row.
            reviewer: Who gave the labels; by default the actor of the workspace's history.
            double: As in `draw`.

        Raises:
            DataError: An input or a label is malformed.
            ConfigError: The workspace stores no texts.
        """
        by = self.reviewer(reviewer)
        rows = []
        for one in inputs:
            example = _example(one, labelled=True)
            said = () if example.label is None else (Annotation(by, example.label, False, None, None),)
            rows.append(AnnotatedInput(example, said))
        return self.add_annotated(rows, double=double, by=by)

    def add_annotated(self, rows: Sequence[AnnotatedInput], *, double: float = 0.0, by: str | None = None) -> Imported:
        """Put inputs into review, with verdicts that were given elsewhere, such as in Label Studio.

        Verdicts that are there already, and those of learned items, change nothing.

        Args:
            rows: The inputs.
            double: As in `draw`.
            by: Who does it; by default the actor of the workspace's history.
        """
        self._check_texts()
        _check_share("double", double)
        new = [
            NewItem(
                row.example,
                ItemKind.IMPORTED,
                IMPORTED,
                self._entry(row.example, None, 1) if self._log.exists else None,
            )
            for row in rows
        ]
        placed = self.queue.add(new, double) if new else []
        known, taken, unchanged = self.known_labels(), 0, 0
        for (number, _), row in zip(placed, rows, strict=True):
            for said in row.annotations:
                taken_over = self._take_over(number, said, known)
                taken, unchanged = taken + taken_over, unchanged + (not taken_over)
        self._book()
        added = sum(is_new for _, is_new in placed)
        self._record("review-imported", by, inputs=len(placed), items=added, verdicts=taken)
        return Imported(added, len(placed) - added, taken, unchanged)

    # Reviewing

    def next(
        self, reviewer: str | None = None, *, kind: str | None = None, lease_seconds: float = LEASE_SECONDS
    ) -> ReviewItem | None:
        """Take the next item, or the one that the reviewer has already; None if none waits.

        Nobody else gets it until it is answered, or the time has passed.

        Args:
            reviewer: Who; by default the actor of the workspace's history.
            kind: Only items of this kind: "reported", "random", "uncertain", "declined" or "imported".
            lease_seconds: How long the reviewer has it.
        """
        if not 0 < lease_seconds <= 86_400:
            raise ConfigError(f"lease_seconds={lease_seconds:g}: give more than 0, and at most a day")
        self.queue.keep_for(self._settings().log.keep_days)
        return self.queue.claim(self.reviewer(reviewer), None if kind is None else kind_of(kind), lease_seconds)

    def answer(
        self,
        item: int,
        verdict: str,
        label: str | None = None,
        *,
        reviewer: str | None = None,
        note: str = "",
        seconds: float | None = None,
    ) -> ReviewItem:
        """Say what is right for an item.

        Args:
            item: Its number.
            verdict: "confirm", "correct" (to another learned label), "new" (a label that is not learned yet), "none"
                (it belongs to nothing learned) or "skip".
            label: The label, for "correct" and "new".
            reviewer: Who; by default the actor of the workspace's history.
            note: A note for others.
            seconds: Time that it took; None to measure since the reviewer took the item.

        Returns:
            The item, as it is now.

        Raises:
            ConfigError: The verdict is unknown or does not fit, or the label belongs to inputs of another kind.
            UnknownNameError: There is no such item or label.
            ReviewConflictError: Another reviewer has it or was faster, or it was learned.
        """
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ConfigError(f"seconds={seconds}: give 0 or more")
        given = verdict_for(self.queue.get(item), _verdict_kind(verdict), label, self.known_labels())
        given = given._replace(note=note.strip(), seconds=seconds)
        done = self.queue.answer(item, self.reviewer(reviewer), given)
        self._record("review-answered", self.reviewer(reviewer), item=item, verdict=str(given.verdict))
        self._give_feedback(item)
        self._book(_BOOK_SECONDS)
        return done

    def undo(self, reviewer: str | None = None) -> ReviewItem:
        """Take back the last verdict of a reviewer, who has the item again; errors as in `answer`."""
        item = self.queue.undo(self.reviewer(reviewer))
        self._record("review-undone", self.reviewer(reviewer), item=item.id)
        self._give_feedback(item.id)
        return item

    def reviewer(self, given: str | None) -> str:
        """Return the name of a reviewer: as it is given, or the actor of the workspace's history."""
        name = self._store.actor if given is None else given.strip()
        if not name or len(name) > 200 or not name.isprintable():
            raise ConfigError("a reviewer has a name of 1 to 200 printable characters")
        return name

    # Results

    def status(self) -> ReviewStatus:
        """Return how far the review is."""
        settings = self._settings()
        missing = None
        if settings.replay.latent_only:
            missing = NO_TEXTS
        elif (self._recorded or settings.log.predictions) != "text":
            missing = NOT_RECORDED
        return self.queue.status(settings.log.keep_days, missing)

    def accuracy(self, since: datetime | None = None) -> ReviewAccuracy:
        """Return the accuracy of recorded answers, estimated from the draws that were reviewed.

        Args:
            since: Only draws from this moment on.
        """
        return self.queue.accuracy(since)

    def export(self, states: Collection[str] = (), *, by: str | None = None) -> list[dict[str, Any]]:
        """Return items as tasks for Label Studio: answers are predictions, and verdicts are annotations.

        Args:
            states: Only items in one of these states ("open", "disputed", "skipped", "done"); all without any.
            by: Who gets them; by default the actor of the workspace's history.
        """
        tasks = [task_of(item) for item in self.all_items(states)]
        self._record("review-exported", by, items=len(tasks))
        return tasks

    def label_studio_config(self) -> str:
        """Return Label Studio's labelling configuration, with the learned labels as choices."""
        return config_of(sorted(self.known_labels()))

    def all_items(self, states: Collection[str] = ()) -> Iterable[ReviewItem]:
        """Yield all items in some states, oldest first."""
        chosen, after = [state_of(state) for state in states], 0
        while page := self.queue.items(states=chosen, after=after, limit=500):
            yield from page
            after = page[-1].id

    def known_labels(self) -> dict[str, KnownLabel]:
        """Return the learned labels."""
        with self._store.snapshot() as snapshot:
            return {
                label: KnownLabel(task.name, str(task.active.description["kind"]))
                for task in snapshot.tasks
                for label in task.active.labels
            }

    def book(self) -> None:
        """Enter the time of reviewers into the ledger, unless it is there already."""
        self._book()

    # Parts

    def _record(self, verb: str, by: str | None, **detail: Any) -> None:
        self._actions.append(by or self._store.actor, verb, **detail)

    def _settings(self) -> Settings:
        return Settings.parse(self._store.header().settings)

    def _check_texts(self) -> None:
        if self._settings().replay.latent_only:
            raise ConfigError(NO_TEXTS)

    def _entry(self, example: Example | None, request_id: str | None, place: int) -> LogEntry | None:
        """Return the recorded answer that is meant, if there is one."""
        if request_id is None:
            if example is None:
                raise ConfigError("name the answer: give the input, or the id of the request")
            found = self._log.entries(input_hash=self._log.hash_of(example), limit=1) if self._log.exists else []
            return found[0] if found else None
        entries = self._log.entries(request=request_id, limit=_PLACES) if self._log.exists else []
        entry = next((one for one in entries if one.place == place), None)
        if entry is None and example is not None:  # it is not recorded yet, or not any more
            return self._entry(example, None, place)
        if entry is None:
            raise UnknownNameError(f"nothing is recorded of input {place} of this request")
        if example is not None and self._log.hash_of(example).hex() != entry.hash:
            raise ConfigError("the input is not the one of this request; leave out one of the two")
        return entry

    def _take_over(self, number: int, said: Annotation, known: Mapping[str, KnownLabel]) -> bool:
        """Take over a verdict that was given elsewhere; return whether it changed anything."""
        item = self.queue.get(number)
        kind = VerdictKind.SKIP if said.skipped else VerdictKind.NONE if said.label is None else VerdictKind.NEW
        given = verdict_for(item, kind, said.label, known)
        mine = [one for one in item.verdicts if one.reviewer == said.reviewer]
        if mine and (mine[-1].verdict, mine[-1].label) == (given.verdict, given.label):
            return False
        try:
            self.queue.answer(
                number, said.reviewer, given._replace(seconds=said.seconds or 0.0), at=said.time, offline=True
            )
        except ReviewConflictError:  # it was learned
            return False
        self._give_feedback(number)
        return True

    def _give_feedback(self, number: int) -> None:
        """Let watching know the right labels of answers that were drawn at random; others would mislead its alarm."""
        right = self.queue.feedback_of(number)
        if not right or not self._log.exists:
            return
        with suppress(ReadOnlyError):
            if labels := {entry: label for entry, label in right.items() if label is not None}:
                self._log.add_feedback(labels)
            if unknown := right.keys() - labels.keys():
                self._log.retract_feedback(unknown)

    def _book(self, least_seconds: float = 0.0) -> None:
        def enter(taken: Mapping[str | None, tuple[float, int]]) -> bool:
            now = datetime.now(UTC)
            generation = self._store.generation()
            entries = [
                LedgerEntry(
                    now,
                    CostKind.REVIEW,
                    "review",
                    CostSource.LOCAL,
                    task=task,
                    generation=generation,
                    examples=number,
                    resources=Resources(minutes=seconds / 60),
                )
                for task, (seconds, number) in taken.items()
            ]
            return self._store.ledger.add(entries)

        self.queue.book(enter, least_seconds)


def verdict_for(
    item: ReviewItem, verdict: VerdictKind, label: str | None, known: Mapping[str, KnownLabel]
) -> GivenVerdict:
    """Return a verdict in its plain form: a label that is the answer confirms it, and a learned one is not new.

    Raises:
        ConfigError: It does not fit the item, or the label belongs to inputs of another kind.
        UnknownNameError: The label is not learned, and not given as a new one.
    """
    if verdict in (VerdictKind.SKIP, VerdictKind.NONE, VerdictKind.CONFIRM) and label is not None:
        raise ConfigError(f'the verdict "{verdict}" takes no label; use "correct" or "new"')
    match verdict:
        case VerdictKind.SKIP:
            return GivenVerdict(verdict, task=item.task)
        case VerdictKind.NONE:
            confirmed = item.decision == "decline"
            return GivenVerdict(VerdictKind.CONFIRM if confirmed else verdict, task=item.task)
        case VerdictKind.CONFIRM:
            _check_confirmed(item, known)
            answer = item.answer
            return GivenVerdict(verdict, answer, item.task if answer is None else known[answer].task)
        case _:
            return _labelled(item, verdict, label, known)


def _labelled(
    item: ReviewItem, verdict: VerdictKind, label: str | None, known: Mapping[str, KnownLabel]
) -> GivenVerdict:
    if label is None:
        raise ConfigError(f'the verdict "{verdict}" needs a label')
    name = _label(label)
    if name not in known:
        if verdict is VerdictKind.CORRECT:
            meant = did_you_mean(name, known)
            raise UnknownNameError(f'label {name!r} is not learned{meant}; to introduce it, use the verdict "new"')
        return GivenVerdict(VerdictKind.NEW, name, item.task)
    if known[name].kind != str(item.example.kind):
        raise ConfigError(
            f"label {name!r} belongs to inputs of the kind {known[name].kind}, and this one is of the kind "
            f"{item.example.kind}"
        )
    right = VerdictKind.CONFIRM if name == item.answer else VerdictKind.CORRECT
    return GivenVerdict(right, name, known[name].task)


def _check_confirmed(item: ReviewItem, known: Mapping[str, KnownLabel]) -> None:
    if not item.answered:
        raise ConfigError(f"no answer is known for item {item.id} that could be confirmed; give its right label")
    if item.answer is not None and item.answer not in known:
        raise ConfigError(f"the answer to item {item.id}, {item.answer!r}, is no label any more; give its right label")


def kind_of(name: str) -> ItemKind:
    """Return a kind of items by its name."""
    if name not in list(ItemKind):
        raise ConfigError(f"unknown kind {name!r}; use one of {', '.join(ItemKind)}")
    return ItemKind(name)


def state_of(name: str) -> ItemState:
    """Return a state of items by its name."""
    if name not in list(ItemState):
        raise ConfigError(f"unknown state {name!r}; use one of {', '.join(ItemState)}")
    return ItemState(name)


def _verdict_kind(name: str) -> VerdictKind:
    if name not in list(VerdictKind):
        raise ConfigError(f"unknown verdict {name!r}; use one of {', '.join(VerdictKind)}")
    return VerdictKind(name)


def _check_draw(wanted: Mapping[ItemKind, int], **shares: float) -> None:
    for kind, number in wanted.items():
        if not isinstance(number, int) or not 0 <= number <= 100_000:
            raise ConfigError(f"{kind}={number!r}: give a whole number from 0 to 100,000")
    if not any(wanted.values()):
        raise ConfigError("nothing to draw: give a number of random, uncertain or declined answers")
    for name, share in shares.items():
        _check_share(name, share)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{name}={share:g}: give a number from 0 to 1")


def _example(item: Input, *, labelled: bool = False) -> Example:
    from conpet.data import check_example

    try:
        example = to_example(item, labelled=labelled)
    except RowError as error:
        raise DataError(f"the input cannot be reviewed: {error}") from error
    if reasons := check_example(example):
        raise DataError(f"the input cannot be reviewed: {'; '.join(reasons)}")
    return example


def _label(given: str) -> str:
    try:
        label = parse_label(given)
    except RowError as error:
        raise ConfigError(str(error)) from error
    if not label:
        raise ConfigError("a label has at least one character that is not blank")
    return label
