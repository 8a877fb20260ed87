"""Learn more examples of labels that are learned already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from conpet.commands.base import Transaction
from conpet.commands.learn import learn_sound
from conpet.data import Example, Examples, Task
from conpet.errors import DataError, Problem
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.reading import origins
from conpet.store import VersionRecord
from conpet.types import LearnReport


def owners_of(tx: Transaction, examples: Examples | Task) -> list[str]:
    """Return the tasks whose labels examples have, in order, once it is clear that all of them can be extended.

    Raises:
        DataError: A label is not known, or an input is stored with another label.
        ConfigError: A task's texts are not stored.
    """
    owners = {label: task.name for task in tx.snapshot.tasks for label in task.active.labels}
    given = {str(example.label) for some in by_subset(examples).values() for example in some}
    if unknown := sorted(given - owners.keys()):
        problems = [Problem("examples", None, f"no task has a label {label!r}") for label in unknown]
        raise DataError(
            "these labels are new; learn them as a task of their own (without --extend), or correct them. "
            "Nothing was changed",
            problems,
        )
    wanted = {owners[label] for label in given}
    names = [task.name for task in tx.snapshot.tasks if task.name in wanted]
    for name in names:
        _extended(tx, name, examples)
    return names


def extend(tx: Transaction, name: str, examples: Examples | Task) -> LearnReport:
    """Learn one task from its stored examples and new ones; see `ConPET.extend`."""
    task = _extended(tx, name, examples)
    present = tx.snapshot.task(name).active
    if task is None:
        return tx.report(present, skipped=True)
    return learn_sound(tx, [task], "learn", derived_from=origins(present))[0]


def _extended(tx: Transaction, name: str, examples: Examples | Task) -> Task | None:
    """Return a task with new examples beside its stored ones, or None where there are no new ones."""
    present = tx.snapshot.task(name).active
    stored = all_stored(present)
    labels = {example.input_key: example.label for some in stored.values() for example in some}
    own = {
        subset: [example for example in some if example.label in present.labels]
        for subset, some in by_subset(examples).items()
    }
    problems = [
        Problem(
            f"examples ({subset})",
            None,
            f"label {one.label!r} contradicts what is stored: {labels[one.input_key]!r}",
        )
        for subset, some in own.items()
        for one in some
        if labels.get(one.input_key, one.label) != one.label
    ]
    if problems:
        raise DataError(f"task {name!r} cannot be extended; nothing was changed", problems)
    new = {subset: distinct(one for one in some if one.input_key not in labels) for subset, some in own.items()}
    if not any(new.values()):
        return None
    joined = {subset: [*stored[subset], *new[subset]] for subset in Subset}
    return task_again(present, joined, present.labels, ())


def all_stored(version: VersionRecord) -> dict[Subset, list[Example]]:
    """Return the stored examples of a version; `ConfigError` where their texts are not kept."""
    memory = stored_examples(version)  # the task is made anew from them, test examples too
    return {subset: memory.examples(subset) for subset in Subset}


def task_again(
    present: VersionRecord,
    examples: Mapping[Subset, Sequence[Example]],
    remaining: Iterable[str],
    notes: Sequence[str],
) -> Task:
    """Return a task as it was learned, with other examples.

    Args:
        present: Its version in use.
        examples: All its examples from now on.
        remaining: Labels that must all have some to train on.
        notes: What the user should know.

    Raises:
        DataError: The replay memory let all training examples of a label go.
    """
    gone = sorted(set(remaining) - {str(example.label) for example in examples[Subset.TRAIN]})
    if gone:
        problems = [Problem(f"label {label!r}", None, "has no training example left") for label in gone]
        raise DataError(
            f"task {present.task!r} cannot be learned again: the limit of the replay memory let all training "
            "examples of some labels go; add new ones of them first, or together with yours (`conpet learn "
            "WORKSPACE FILE --extend`), or retire these labels. Nothing was changed",
            problems,
        )
    description, stored = present.description, examples_without_test_labels(present).count(Subset.TRAIN)
    learned = description["counts"][Subset.TRAIN]
    lost = (
        f"of the {learned:,} training examples of version {present.number}, {stored:,} were still stored: "
        "the replay memory has no room for more"
    )
    return Task(
        present.task,
        tuple(examples[Subset.TRAIN]),
        tuple(examples[Subset.VALIDATION]),
        tuple(examples[Subset.TEST]),
        template=description["template"],
        settings=description["settings"],
        notes=(*notes, lost) if stored < learned else tuple(notes),
    )


def by_subset(examples: Examples | Task) -> dict[Subset, tuple[Example, ...]]:
    """Return examples by subset."""
    return {Subset.TRAIN: examples.train, Subset.VALIDATION: examples.validation, Subset.TEST: examples.test}


def distinct(examples: Iterable[Example]) -> list[Example]:
    """Return examples without the second of any two with the same input."""
    return list({example.input_key: example for example in reversed(list(examples))}.values())[::-1]
