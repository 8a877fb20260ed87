"""Learn what was reviewed: it becomes examples of the next versions of its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conpet.commands.base import Transaction
from conpet.commands.extend import all_stored
from conpet.commands.mixed import MixedOptions, learn_mixed, planned
from conpet.config import Settings
from conpet.data import Examples, MixedExamples
from conpet.review.queue import ReviewQueue, ToLearn
from conpet.review.records import Held, HeldBecause, ReviewPlan
from conpet.store import Snapshot, Store
from conpet.types import LearnReport

REVIEW = "review"
"""Key of an event's detail: the random name of the change that learned reviewed items."""
NAME = "review"
"""Name of the examples, where no new task is made of them."""


@dataclass(frozen=True, slots=True)
class ReviewedExamples:
    """The reviewed items that can be learned together.

    Attributes:
        examples: Their examples; None without any.
        tasks: Name of the task of each item, by its number.
        plan: What learning them would do.
    """

    examples: MixedExamples | None
    tasks: Mapping[int, str]
    plan: ReviewPlan


def reviewed_examples(
    store: Store, settings: Settings, queue: ReviewQueue, options: MixedOptions, name: str | None
) -> ReviewedExamples:
    """Return what can be learned of the reviewed items, and what cannot, and why.

    Args:
        store: The workspace's store.
        settings: Its settings.
        queue: The review queue.
        options: How new labels are learned.
        name: Name of a new task for new labels; None for none.

    Raises:
        DataError: The new labels cannot be learned in this way.
        UnknownNameError: There is no task that new labels are to be added to.
    """
    mark_learned(store, queue)
    with store.snapshot() as snapshot:
        tasks, held = _divided(snapshot, queue.to_learn(), options.into, name)
        if not tasks:
            return ReviewedExamples(None, {}, ReviewPlan(held=tuple(held)))
        mixed = MixedExamples(name or NAME, Examples(tuple(one.example for one, _ in tasks)))
        additions, _ = planned(snapshot, settings, [mixed], options)
    plan = ReviewPlan(tuple(additions), len(tasks), tuple(held))
    return ReviewedExamples(mixed, {one.item: task for one, task in tasks}, plan)


def mark_learned(store: Store, queue: ReviewQueue) -> None:
    """Mark items as learned whose change was made after the process that asked for it had ended, or by promotion."""
    tokens = {one.token for one in queue.to_learn() if one.token is not None}
    for event in store.events() if tokens else ():
        token = event.detail.get(REVIEW)
        if token in tokens and event.task is not None:
            queue.learned(token, event.task, event.id)


def learn_reviewed(
    tx: Transaction, token: str, mixed: MixedExamples, options: MixedOptions, names: Sequence[str]
) -> list[LearnReport]:
    """Learn the examples of some tasks as `learn_mixed` does; the events carry the name of the change."""
    tx.about[REVIEW] = token
    return learn_mixed(tx, mixed, options, names)


def _divided(
    snapshot: Snapshot, items: Iterable[ToLearn], into: str | None, name: str | None
) -> tuple[list[tuple[ToLearn, str]], list[Held]]:
    """Divide items into those that can be learned, each with its task, and those that cannot, each with the reason."""
    owners, stored = snapshot.owners, _Stored(snapshot)
    ready, held = [], []
    for one in items:
        task = owners.get(one.label) or into or name
        if one.label not in owners and not one.new:
            because = HeldBecause.NOT_LEARNED
            reason = "the label is not learned any more (renamed, split or retired); answer the item again"
        elif task is None:
            because = HeldBecause.NO_TASK
            reason = "the label is new: say which task learns it, a known one (into) or a new one (name)"
        elif other := stored.contradiction(one, task):
            because, reason = HeldBecause.CONTRADICTS, other
        else:
            ready.append((one, task))
            continue
        held.append(Held(one.item, one.label, because, reason))
    return ready, held


class _Stored:
    """The labels under which inputs are stored, by task; read once for each task.

    Args:
        snapshot: The workspace.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._tasks = {task.name: task.active for task in snapshot.tasks}
        self._labels: dict[str, dict[tuple[Any, ...], str | None]] = {}

    def contradiction(self, one: ToLearn, task: str) -> str | None:
        """Return why an item contradicts an example that its task, or the one that answered, has stored; else None."""
        for name in dict.fromkeys((task, one.answered_by)):
            if name in self._tasks:
                label = self._of(name).get(one.example.input_key, one.label)
                if label != one.label:
                    return (
                        f"the same input is stored with the label {label!r} in task {name!r}; if that is wrong, forget "
                        "the stored example first (`conpet forget`)"
                    )
        return None

    def _of(self, name: str) -> Mapping[tuple[Any, ...], str | None]:
        if name not in self._labels:
            stored = all_stored(self._tasks[name])
            self._labels[name] = {one.input_key: one.label for examples in stored.values() for one in examples}
        return self._labels[name]
