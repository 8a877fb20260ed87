"""Forget rows, labels or tasks: their data, and what was learned from them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from conpet.artifact import Artifact, InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.commands.base import Transaction
from conpet.commands.consolidate import side_objects
from conpet.commands.generations import holding
from conpet.commands.learn_again import Again, LearnedAgain, Scope, check_sources, learn_again, still_trained, what_saw
from conpet.commands.purge import replaced
from conpet.commands.receipt import FORGET, TOKEN
from conpet.commands.stored_rows import Finder, FoundRows, Wanted
from conpet.commands.traces import Traces, traces_of
from conpet.cost import StageCost
from conpet.data import Example, Kind
from conpet.errors import DataError, Problem, listed
from conpet.methods.base import Method
from conpet.replay.memory import MEMORY, StoredExamples, Subset, without_rows
from conpet.replay.memory_writer import MemoryWriter, stored_examples
from conpet.report.text import duration
from conpet.review.queue import ReviewQueue
from conpet.state.reading import ORIGINS, origins, task_state, task_states
from conpet.state.state import State, TaskState
from conpet.state.statistics import classes_of, learned_from_validation
from conpet.store import Change, NewVersion, SideObject, Snapshot, Store, VersionRecord
from conpet.store.prediction_log import PredictionLog
from conpet.types import Evaluation, ForgetReport, ForgottenTask

VERB = "forget"
_MOST_SHOWN = 100_000
"""Most recorded predictions of an input that a dry run counts."""


@dataclass(frozen=True, eq=False)
class Loss:
    """What the active version of a task loses.

    Attributes:
        found: The rows.
        labels: Labels of which no training example remains.
        whole: Whether the task goes as a whole.
    """

    found: FoundRows
    labels: tuple[str, ...]
    whole: bool

    @property
    def present(self) -> VersionRecord:
        """The active version."""
        return self.found.version

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.present.task

    @cached_property
    def rows(self) -> dict[Subset, frozenset[int]]:
        """The stored rows that go, with the held-out ones of labels that go."""
        if not self.labels:
            return dict(self.found.stored)
        memory = stored_examples(self.present)
        return {
            subset: self.found.stored[subset]
            | {row for row, label in enumerate(memory.labels(subset)) if label in self.labels}
            for subset in Subset
        }

    @cached_property
    def stay(self) -> list[int]:
        """Rows of the training set that remain, stored or not."""
        learned = len(classes_of(task_state(self.present)))
        return [row for row in range(learned) if row not in self.found.learned]

    @cached_property
    def memory(self) -> StoredExamples:
        """The stored examples that remain, with test labels."""
        memory = stored_examples(self.present)
        return replace(memory, reader=InMemoryObject(without_rows(memory, self.rows, self.stay)))

    @cached_property
    def digest(self) -> str:
        """Digest of the data that remains, derived from the former digest, as not all of the data may be stored."""
        rows = {str(subset): sorted(rows) for subset, rows in self.rows.items()}
        parts = [self.present.digest, rows, sorted(self.found.learned)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Return the number of rows that go, by subset."""
        rows = {str(subset): len(rows) for subset, rows in self.rows.items()}
        return {**rows, str(Subset.TRAIN): len(self.found.learned)}


@dataclass(frozen=True, slots=True, eq=False)
class ForgetPlan:
    """What forgetting would do.

    Attributes:
        wanted: What is to be forgotten.
        losses: What active versions lose.
        dropped: Inactive versions that are deleted, because they hold the rows or may hold them.
        older: The rows in them.
        generations: Kept generations that are dropped for the same reason.
        again: What has to be learned again.
        unmatched: The inputs, ids and hashes that match nothing, such as "id 2".
        snapshot: The workspace.
    """

    wanted: Wanted
    losses: tuple[Loss, ...]
    dropped: tuple[VersionRecord, ...]
    older: tuple[FoundRows, ...]
    generations: tuple[int, ...]
    again: Again
    unmatched: tuple[str, ...]
    snapshot: Snapshot

    @property
    def empty(self) -> bool:
        """Whether there is nothing to forget."""
        return not (self.losses or self.dropped or self.generations)

    @property
    def found(self) -> list[FoundRows]:
        """The rows in active versions and in older ones."""
        return [*(loss.found for loss in self.losses), *self.older]

    @property
    def removed(self) -> list[str]:
        """Names of the tasks that go as a whole."""
        return [loss.name for loss in self.losses if loss.whole]

    @property
    def learned_kinds(self) -> set[Kind]:
        """The kinds of the rows of tasks that stay from which classifiers learned, training and validation rows.

        The removal of a whole task fits again by itself.
        """
        stay = [rows for rows in self.found if rows.version.task not in self.removed]
        learned = [
            rows
            for rows in stay
            if rows.learned or (rows.stored[Subset.VALIDATION] and learned_from_validation(rows.version.objects))
        ]
        return {task_state(rows.version).kind for rows in learned}

    @property
    def fits_again(self) -> bool:
        """Whether classifiers learned from anything that goes."""
        return bool(self.learned_kinds or self.removed)

    @property
    def left(self) -> dict[str, tuple[str, ...]]:
        """The labels that remain, by task."""
        gone = {loss.name: loss.labels for loss in self.losses}
        return {
            task.name: tuple(label for label in task.active.labels if label not in gone.get(task.name, ()))
            for task in self.snapshot.tasks
            if task.name not in self.removed
        }

    @property
    def forgotten(self) -> tuple[ForgottenTask, ...]:
        """What each task loses, for reports."""
        dropped = Counter(version.task for version in self.dropped)
        lost = {loss.name: loss for loss in self.losses}
        return tuple(
            ForgottenTask(
                name,
                lost[name].counts() if name in lost else dict.fromkeys(map(str, Subset), 0),
                lost[name].labels if name in lost else (),
                name in self.removed,
                dropped[name],
            )
            for name in dict.fromkeys([*lost, *dropped])
        )

    def clear(self, log: PredictionLog) -> Cleared:
        """Delete what is recorded of predictions of these rows, labels and tasks, and what of them is in review."""
        stored = [example for rows in self.found for subset in Subset for example in rows.examples(subset)]
        labels = {*self.wanted.labels, *(label for loss in self.losses for label in loss.labels)}
        return clear(log, [*self.wanted.inputs, *stored], tasks=self.removed, labels=sorted(labels))

    def traces(self, backbone: Backbone) -> Traces:
        """Return what would show that a row is still there."""
        return traces_of(self.found, self.wanted.inputs, self.snapshot, backbone)

    def sources(self) -> dict[str, StoredExamples]:
        """Return the examples of the tasks that remain, with test labels, by name."""
        changed = {loss.name: loss.memory for loss in self.losses if not loss.whole}
        return {
            task.name: changed.get(task.name) or stored_examples(task.active)
            for task in self.snapshot.tasks
            if task.name not in self.removed
        }


def planned(
    store: Store,
    snapshot: Snapshot,
    method: Method,
    state: State,
    wanted: Wanted,
    *,
    drop_labels: bool,
    keep_modules: bool,
) -> ForgetPlan:
    """Find what is to be forgotten, and what follows from it; nothing is changed.

    Args:
        store: The workspace's store.
        snapshot: Its present state.
        method: Its method.
        state: The same state.
        wanted: What is to be forgotten.
        drop_labels: Whether labels may go with their last training example.
        keep_modules: Whether nothing is learned again.

    Raises:
        UnknownNameError: A label or task is unknown.
        DataError: Nothing matches, or a label would go without `drop_labels`.
    """
    finder = Finder(wanted, lambda: method.backbone, method.settings.backbone.dtype)
    finder.check_names(snapshot)
    losses, found, inactive, older = [], set(), [], []
    for task in snapshot.tasks:
        own = {version.number: finder.found_in(version, features=True) for version in task.versions}
        lost = own[task.active.number]
        if lost is not None:
            losses.append(_loss(lost, whole=task.name in wanted.tasks))
        if any(own.values()):
            found.add(task.name)
        others = [version for version in task.versions if not version.active]
        older += [rows for version in others if (rows := own[version.number]) is not None]
        inactive += [version for version in others if lost is not None or own[version.number] is not None]
    generations = {generation for name in found for generation in holding(store, name)}
    saw = [rows.version for rows in (*(loss.found for loss in losses), *older) if rows.learned]
    for kept in store.pinned():
        with kept:
            held = [rows for version in kept.versions if (rows := finder.found_in(version, features=False))]
            saw += [rows.version for rows in held if rows.learned]
            generations |= {kept.generation} if held else set()
    latent = method.settings.replay.latent_only
    unmatched = finder.check_found(latent=latent)
    if not drop_labels:
        _check_labels(losses, wanted)
    names = [loss.name for loss in losses if loss.found.learned]
    removed = {loss.name for loss in losses if loss.whole}
    left = [task.name for task in snapshot.tasks if task.name not in removed]
    again = what_saw(method, state, snapshot, saw, names, left)
    plan = ForgetPlan(
        wanted, tuple(losses), tuple(inactive), tuple(older), tuple(sorted(generations)), again, unmatched, snapshot
    )
    if not keep_modules:
        check_sources(snapshot, again, list(plan.sources().values()), plan.left)
    return plan


def forget(
    tx: Transaction,
    plan_of: Callable[[Snapshot, Method, State], ForgetPlan],
    token: str,
    reason: str,
    start: Callable[[], None],
    begin: Callable[[ForgetPlan, Method], None],
    *,
    keep_modules: bool,
) -> ForgetReport:
    """Forget what a plan names, and commit; see `ConPET.forget`.

    Args:
        tx: The transaction.
        plan_of: Returns the plan for the present state.
        token: A random number for the history.
        reason: Why, for the history.
        start: Called before anything is computed.
        begin: Called before the commit with the plan and the method.
        keep_modules: Whether nothing is learned again.
    """
    start()
    plan = plan_of(tx.snapshot, tx.method, tx.state)
    if plan.empty:
        return report_of(plan, keep_modules=keep_modules)
    parts = [loss.digest for loss in plan.losses]
    sources = plan.sources()
    state, shared = _reduced(tx, plan, _hidden(sources))
    again = replace(plan.again, scope=Scope.NOTHING) if keep_modules else plan.again
    learned = learn_again(tx, state, again, _hidden(sources), "|".join(parts))
    shared |= learned.shared
    method, state = learned.method, learned.state
    if not learned.train and state.tasks:
        update = method.fit_again(state, plan.learned_kinds, replace(tx.context(), memory=_hidden(sources)))
        state = state.with_shared(update.shared) if update.shared else state
        shared |= update.shared
    begin(plan, tx.method)
    tx.method = method
    changed = {loss.name: sources[loss.name] for loss in plan.losses if not loss.whole}
    evaluation = tx.evaluate(state, changed)
    tx.count_attempts()
    changes = _changes(tx, plan, state, learned, sources, shared)
    kept = still_trained(plan.again, plan.snapshot) if keep_modules else ()
    touched = dict.fromkeys([*(each.task for each in plan.forgotten), *again.tasks])
    detail = {"tasks": list(touched), FORGET: _detail(plan, again, kept, token, reason)}
    changes = [replace(change, detail={**change.detail, **detail}) for change in changes]
    costs: list[Sequence[StageCost]] = [*([()] * (len(changes) - 1)), tx.costs.stages]
    tx.commit_all(state, evaluation, changes, costs)
    return report_of(plan, keep_modules=keep_modules, evaluation=tx.measured(evaluation), cost=tuple(tx.costs.stages))


class Cleared(NamedTuple):
    """What was deleted beside the stored rows: recorded predictions, and items in review."""

    recorded: int = 0
    reviewed: int = 0


def clear(
    log: PredictionLog, inputs: Sequence[Example], *, tasks: Sequence[str] = (), labels: Sequence[str] = ()
) -> Cleared:
    """Delete what is recorded of predictions, and what is in review; return how many entries and items."""
    queue = ReviewQueue(log)
    hashes = {log.hash_of(example) for example in inputs} if log.exists or queue.exists else set()
    texts = {example.content for example in inputs}
    return Cleared(
        log.forget(hashes, tasks=tasks, labels=labels),
        queue.forget(hashes, tasks=tasks, labels=labels, texts=texts),
    )


def recorded(log: PredictionLog, inputs: Sequence[Example]) -> Cleared:
    """Return how many recorded predictions, and items in review, there are of some inputs."""
    queue = ReviewQueue(log)
    hashes = {log.hash_of(example) for example in inputs} if log.exists or queue.exists else set()
    entries = sum(len(log.entries(input_hash=value, limit=_MOST_SHOWN)) for value in hashes)
    return Cleared(entries, queue.count(hashes))


def report_of(
    plan: ForgetPlan,
    *,
    keep_modules: bool,
    dry_run: bool = False,
    notes: Sequence[str] = (),
    evaluation: Evaluation | None = None,
    cost: tuple[StageCost, ...] = (),
) -> ForgetReport:
    """Return what a plan forgets, without anything that keeps its files on the disk."""
    again = plan.again
    nothing = keep_modules or again.scope is Scope.NOTHING
    return ForgetReport(
        dry_run,
        plan.forgotten,
        plan.generations,
        () if nothing else again.tasks,
        None if nothing or again.scope is Scope.MODULES else str(again.scope),
        still_trained(again, plan.snapshot) if keep_modules else (),
        plan.unmatched,
        notes=tuple(notes),
        cost=cost,
        evaluation=evaluation,
        fitted_again=plan.fits_again,
    )


def _loss(found: FoundRows, *, whole: bool) -> Loss:
    task = task_state(found.version)
    classes = classes_of(task)
    remaining = {name for row, name in enumerate(classes) if row not in found.learned}
    labels = tuple(label for label in task.labels if label not in remaining)
    return Loss(found, labels, whole or not remaining)


def _check_labels(losses: Sequence[Loss], wanted: Wanted) -> None:
    """Refuse to let a label go that was not named."""
    problems = [
        Problem(f"label {label!r}", None, f"task {loss.name!r} has no other training example of it")
        for loss in losses
        if loss.name not in wanted.tasks
        for label in (loss.labels or (["the task"] if loss.whole else []))
        if label not in wanted.labels
    ]
    if problems:
        raise DataError(
            "labels would go with their last training example. To let them go, use --drop-labels "
            "(`drop_labels=True`); or first add examples of them (`conpet learn WORKSPACE FILE --extend`). Nothing was "
            "changed",
            problems,
        )


def _hidden(sources: Mapping[str, StoredExamples]) -> list[StoredExamples]:
    return [source.without_test_labels() for source in sources.values()]


def _reduced(
    tx: Transaction, plan: ForgetPlan, memory: Sequence[StoredExamples]
) -> tuple[State, dict[str, Artifact | None]]:
    """Return the state without the rows, in which nothing was trained, and its new shared objects."""
    method, state = tx.method, tx.state
    shared: dict[str, Artifact | None] = {}
    for loss in plan.losses:
        context, task = replace(tx.context(loss.name), memory=memory), task_state(loss.present)
        if loss.whole:
            others = [source for source in memory if source.task != loss.name]
            removal = method.update_shared(state, task, None, replace(context, memory=others))
            state, shared = state.without(loss.name, removal), {**shared, **removal.shared}
        else:
            update = method.reduce(state, task, dict.fromkeys(loss.labels), loss.stay, context)
            state, shared = state.apply(update), {**shared, **update.shared}
    gone, losing = {(version.task, version.number) for version in plan.dropped}, {loss.name for loss in plan.losses}
    left = [one for one in plan.snapshot.versions if (one.task, one.number) not in gone and one.task not in losing]
    changed = {task.name: task for task in state.tasks}
    after = [*task_states(left), *(changed[loss.name] for loss in plan.losses if not loss.whole)]
    pruned = method.prune_labels(state, task_states(plan.snapshot.versions), after)
    return (state.with_shared(pruned) if pruned else state), {**shared, **pruned}


def _changes(
    tx: Transaction,
    plan: ForgetPlan,
    state: State,
    learned: LearnedAgain,
    sources: Mapping[str, StoredExamples],
    shared: Mapping[str, Artifact | None],
) -> list[Change]:
    """Return the changes to commit together: one for each task that loses rows; the last has everything else."""
    tasks = {task.name: task for task in state.tasks}
    changes = []
    for loss in plan.losses:
        if loss.whole:
            changes.append(Change(VERB, loss.name, remove=True))
            continue
        others = [version for version in plan.snapshot.task(loss.name).versions if version is not loss.present]
        dropped = tuple((version.task, version.number) for version in (*others, loss.present))
        new = _new_version(tx, loss, tasks[loss.name], learned, sources[loss.name])
        changes.append(Change(VERB, loss.name, new_version=new, dropped=dropped))
    changes = changes or [Change(VERB)]
    losing = {loss.name for loss in plan.losses}
    last = replace(
        changes[-1],
        side_objects=tuple(_side_objects(tx, plan, learned, losing)),
        shared=shared,
        unpinned=plan.generations,
        forgets=True,
    )
    gone = tuple((version.task, version.number) for version in plan.dropped if version.task not in losing)
    return [*changes[:-1], replace(last, dropped=(*last.dropped, *gone))]


def _side_objects(tx: Transaction, plan: ForgetPlan, learned: LearnedAgain, losing: set[str]) -> Sequence[SideObject]:
    """Return the new objects of versions of other tasks."""
    gone = {(version.task, version.number) for version in plan.dropped}
    if learned.train:
        renewed = side_objects(tx, learned.objects, learned.train, losing)
        return [side for side in renewed if (side.task, side.version) not in gone]
    return [
        SideObject(name, tx.snapshot.task(name).active.number, slot, artifact)
        for name, objects in learned.objects.items()
        if name not in losing
        for slot, artifact in objects.items()
    ]


def _new_version(
    tx: Transaction, loss: Loss, task: TaskState, learned: LearnedAgain, memory: StoredExamples
) -> NewVersion:
    """Return the new version of a task that loses rows."""
    objects = {slot: reader.artifact for slot, reader in task.objects.items() if isinstance(reader, InMemoryObject)}
    stored, train = _artifact(memory), len(loss.stay)
    if loss.name in learned.train:
        renewed = MemoryWriter(tx.method.backbone, tx.settings).learned_again(memory, learned.train[loss.name])
        stored, train = renewed or stored, memory.count(Subset.TRAIN)
    held_out = {str(subset): memory.count(subset) for subset in (Subset.VALIDATION, Subset.TEST)}
    present = loss.present
    texts = [example.content for subset in Subset for example in loss.found.examples(subset)]
    row = tx.method.backbone.representation_size + 1
    return NewVersion(
        loss.digest,
        task.labels,
        {**objects, MEMORY: stored},
        {
            **replaced(present.description, texts),
            "counts": {str(Subset.TRAIN): train, **held_out},
            ORIGINS: origins(present),
        },
        present.parameters,
        max(0, present.head_parameters - row * len(loss.labels)),
    )


def _artifact(memory: StoredExamples) -> Artifact:
    assert isinstance(memory.reader, InMemoryObject)  # noqa: S101 - a memory without some rows is new
    return memory.reader.artifact


def _detail(plan: ForgetPlan, again: Again, kept: Sequence[str], token: str, reason: str) -> dict[str, Any]:
    """Return what the history keeps: nothing from which a forgotten row could be guessed."""
    rows: Counter[str] = Counter()
    for loss in plan.losses:
        rows.update(loss.counts())
    return {
        TOKEN: token,
        "reason": reason,
        "named_by": plan.wanted.kinds,
        "rows": dict(rows),
        "tasks": [loss.name for loss in plan.losses],
        "labels": sum(len(loss.labels) for loss in plan.losses),
        "versions": len(plan.dropped),
        "generations": list(plan.generations),
        "learned_again": {"scope": str(again.scope), "tasks": list(again.tasks)},
        "fitted_again": plan.fits_again,
        "still_trained": list(kept),
    }


def expected(plan: ForgetPlan, store: Store, *, keep_modules: bool) -> tuple[str, ...]:
    """Return what forgetting would take, in words, from what the same work took when it was last done."""
    again = plan.again
    if keep_modules or again.scope is Scope.NOTHING:
        return ()
    seconds = 0.0
    for event in store.events():
        if event.task in again.tasks and event.verb in ("learn", "split", VERB):
            seconds += sum(cost.seconds for cost in event.costs)
        elif again.scope is Scope.CONSOLIDATION and event.verb == "consolidate":
            seconds = sum(cost.seconds for cost in event.costs)
    return (f"learning {listed(again.tasks)} took {duration(seconds)} in the past",)
