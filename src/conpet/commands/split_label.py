"""Split a label into finer ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conpet.commands.base import Transaction
from conpet.commands.checks import check_new_label, owner_of
from conpet.commands.extend import all_stored, by_subset, distinct, task_again
from conpet.commands.learn import learn_checked
from conpet.data import Example, Examples, Task
from conpet.errors import DataError, Problem
from conpet.replay.memory import Subset
from conpet.state.reading import origins
from conpet.types import LearnReport


def split_label(tx: Transaction, label: str, examples: Examples | Task, *, replace: bool) -> LearnReport:
    """Split a label into finer ones; see `ConPET.split_label`."""
    record = owner_of(tx.snapshot, label)
    new_examples = by_subset(examples)
    finer = {str(example.label) for subset_examples in new_examples.values() for example in subset_examples}
    for new_label in sorted(finer - {label}):
        check_new_label(tx.snapshot, new_label)
    if len(finer) < 2:
        raise DataError(
            f"the examples split {label!r} into {', '.join(map(repr, sorted(finer)))} only; give examples of two or "
            "more labels, or rename the label. Nothing was changed"
        )
    stored = all_stored(record.active)
    answers = {
        example.input_key: example.label for subset_examples in new_examples.values() for example in subset_examples
    }
    coarse = {
        example.input_key
        for subset_examples in stored.values()
        for example in subset_examples
        if example.label == label
    }
    if coarse and not replace and coarse.isdisjoint(answers):
        raise DataError(
            f"the new examples contain none of the {len(coarse):,} stored examples of label {label!r}, so all of these "
            "would be dropped. Check the label; to drop them, use `--replace`. Nothing was changed"
        )
    _check_not_elsewhere(tx, label, new_examples)
    joined, dropped = {}, 0
    for subset in Subset:
        unchanged = [example for example in stored[subset] if example.label != label]
        old = [example for example in stored[subset] if example.label == label]
        moved = [example.labelled(answers[example.input_key]) for example in old if example.input_key in answers]
        dropped += len(old) - len(moved)
        joined[subset] = [
            *unchanged,
            *moved,
            *distinct(example for example in new_examples[subset] if example.input_key not in coarse),
        ]
    note = (f"{dropped:,} stored examples of the split label have no finer label and were dropped",)
    remaining = [name for name in record.active.labels if name != label]
    task = task_again(record.active, joined, remaining, note if dropped else ())
    return learn_checked(tx, [task], "split", derived_from={task.name: origins(record.active)})[0]


def _check_not_elsewhere(tx: Transaction, label: str, new_examples: Mapping[Subset, Sequence[Example]]) -> None:
    """Refuse inputs that any task stores under a label other than the one to split."""
    elsewhere = {
        example.input_key: f"{example.label!r} of task {task.name!r}"
        for task in tx.snapshot.tasks
        for subset_examples in all_stored(task.active).values()
        for example in subset_examples
        if example.label != label
    }
    problems = [
        Problem(
            f"examples ({subset})", None, f"an input of {example.label!r} is stored as {elsewhere[example.input_key]}"
        )
        for subset, subset_examples in new_examples.items()
        for example in subset_examples
        if example.input_key in elsewhere
    ]
    if problems:
        raise DataError(
            f"label {label!r} cannot be split with these examples; correct or remove them. Nothing was changed",
            problems,
        )
