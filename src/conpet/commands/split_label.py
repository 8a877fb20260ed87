"""Replace a label by finer ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conpet.commands.base import Transaction
from conpet.commands.checks import check_new_label, owner_of
from conpet.commands.extend import all_stored, by_subset, distinct, task_again
from conpet.commands.learn import learn_sound
from conpet.data import Example, Examples, Task
from conpet.errors import DataError, Problem
from conpet.replay.memory import Subset
from conpet.state.reading import origins
from conpet.types import LearnReport


def split_label(tx: Transaction, label: str, examples: Examples | Task, *, replace: bool) -> LearnReport:
    """Replace a label by finer ones; see `ConPET.split_label`."""
    record = owner_of(tx.snapshot, label)
    given = by_subset(examples)
    finer = {str(example.label) for some in given.values() for example in some}
    for one in sorted(finer - {label}):
        check_new_label(tx.snapshot, one)
    if len(finer) < 2:
        raise DataError(
            f"{label!r} is to be split into {', '.join(map(repr, sorted(finer)))} alone; give examples of two "
            "labels or more, or rename it. Nothing was changed"
        )
    stored = all_stored(record.active)
    answers = {example.input_key: example.label for some in given.values() for example in some}
    coarse = {example.input_key for some in stored.values() for example in some if example.label == label}
    if coarse and not replace and coarse.isdisjoint(answers):
        raise DataError(
            f"none of the {len(coarse):,} stored examples of label {label!r} is among those given, so all would be "
            "dropped; is it the right label? If so, ask for it (`--replace`). Nothing was changed"
        )
    _check_not_elsewhere(tx, label, given)
    joined, dropped = {}, 0
    for subset in Subset:
        kept = [one for one in stored[subset] if one.label != label]
        old = [one for one in stored[subset] if one.label == label]
        moved = [one.labelled(answers[one.input_key]) for one in old if one.input_key in answers]
        dropped += len(old) - len(moved)
        joined[subset] = [*kept, *moved, *distinct(one for one in given[subset] if one.input_key not in coarse)]
    note = (f"{dropped:,} stored examples of the label that was split have no finer label and were dropped",)
    others = [one for one in record.active.labels if one != label]
    task = task_again(record.active, joined, others, note if dropped else ())
    return learn_sound(tx, [task], "split", derived_from=origins(record.active))[0]


def _check_not_elsewhere(tx: Transaction, label: str, given: Mapping[Subset, Sequence[Example]]) -> None:
    """Refuse inputs that are stored under another label than the one that is split, in any task."""
    elsewhere = {
        example.input_key: f"{example.label!r} of task {task.name!r}"
        for task in tx.snapshot.tasks
        for some in all_stored(task.active).values()
        for example in some
        if example.label != label
    }
    problems = [
        Problem(f"examples ({subset})", None, f"an input of {one.label!r} is stored as {elsewhere[one.input_key]}")
        for subset, some in given.items()
        for one in some
        if one.input_key in elsewhere
    ]
    if problems:
        raise DataError(f"label {label!r} cannot be split so; nothing was changed", problems)
