"""Learn more examples of known labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from conpet.commands.base import Transaction
from conpet.commands.checks import check_type
from conpet.commands.learn import learn_checked
from conpet.data import Example, Examples, Task
from conpet.errors import DataError, Problem
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.reading import origins
from conpet.store import VersionRecord
from conpet.types import LearnReport


def owners_of(tx: Transaction, examples: Examples | Task) -> list[str]:
    """Return the names of the tasks that own the labels of examples, after checking that all can be extended.

    Raises:
        DataError: A label is unknown, or an input is stored with another label.
        ConfigError: A task's texts are not stored.
    """
    owners = tx.snapshot.owners
    labels = {str(example.label) for subset_examples in by_subset(examples).values() for example in subset_examples}
    if unknown := sorted(labels - owners.keys()):
        problems = [Problem("examples", None, f"no task has a label {label!r}") for label in unknown]
        raise DataError(
            "these labels are new: `--mixed` instead of `--extend` learns them as a new task and adds the other "
            "examples to their tasks (in Python, `learn_mixed`). Or correct them. Nothing was changed",
            problems,
        )
    wanted = {owners[label] for label in labels}
    names = [task.name for task in tx.snapshot.tasks if task.name in wanted]
    for name in names:
        extended(tx.snapshot.task(name).active, examples)
    return names


def extend(tx: Transaction, name: str, examples: Examples | Task) -> LearnReport:
    """Learn one task from its stored examples and new ones; see `ConPET.extend`."""
    present = tx.snapshot.task(name).active
    task = extended(present, examples)
    if task is None:
        return tx.report(present, skipped=True)
    return learn_checked(tx, [task], "learn", derived_from={name: origins(present)})[0]


def extended(present: VersionRecord, examples: Examples | Task, new_labels: Iterable[str] = ()) -> Task | None:
    """Return a task with its stored examples and those of its labels that are new, or None if there are none.

    Args:
        present: Its active version.
        examples: Examples, also of other labels.
        new_labels: Labels that are added to the task.

    Raises:
        DataError: An input is stored with another label, or the replay memory holds no training example of a label.
        ConfigError: The texts are not stored.
    """
    stored = all_stored(present)
    labels = {example.input_key: example.label for subset_examples in stored.values() for example in subset_examples}
    accepted = {*present.labels, *new_labels}
    new_examples = {
        subset: [example for example in subset_examples if example.label in accepted]
        for subset, subset_examples in by_subset(examples).items()
    }
    problems = [
        Problem(
            f"examples ({subset})",
            None,
            f"label {example.label!r} contradicts the stored label {labels[example.input_key]!r} of the same input",
        )
        for subset, subset_examples in new_examples.items()
        for example in subset_examples
        if labels.get(example.input_key, example.label) != example.label
    ]
    if problems:
        raise DataError(f"task {present.task!r} cannot be extended; nothing was changed", problems)
    new = {
        subset: distinct(example for example in subset_examples if example.input_key not in labels)
        for subset, subset_examples in new_examples.items()
    }
    if not any(new.values()):
        return None
    joined = {subset: [*stored[subset], *new[subset]] for subset in Subset}
    return task_again(present, joined, present.labels, ())


def all_stored(version: VersionRecord) -> dict[Subset, list[Example]]:
    """Return the stored examples of a version; `ConfigError` if their texts are not stored."""
    memory = stored_examples(version)  # with test labels: the new version stores them again
    return {subset: memory.examples(subset) for subset in Subset}


def task_again(
    present: VersionRecord,
    examples: Mapping[Subset, Sequence[Example]],
    remaining: Iterable[str],
    notes: Sequence[str],
) -> Task:
    """Return a task for a new version, with other examples.

    Args:
        present: Its active version.
        examples: All examples of the new version.
        remaining: Labels of which each must have a training example.
        notes: Notes for the user.

    Raises:
        DataError: The replay memory holds no training example of a label.
    """
    check_every_label(present, [str(example.label) for example in examples[Subset.TRAIN]], remaining)
    description, stored = present.description, examples_without_test_labels(present).count(Subset.TRAIN)
    learned = description["counts"][Subset.TRAIN]
    loss = (
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
        notes=(*notes, loss) if stored < learned else tuple(notes),
    )


def check_every_label(present: VersionRecord, answers: Iterable[str], labels: Iterable[str]) -> None:
    """Refuse to learn a version again if a label has none of these training answers.

    Raises:
        DataError: The replay memory holds no training example of a label.
    """
    if missing := sorted(set(labels) - set(answers)):
        problems = [Problem(f"label {label!r}", None, "has no training example left") for label in missing]
        raise DataError(
            f"task {present.task!r} cannot be learned again: its limited replay memory holds no training examples of "
            "some labels. Add examples of these labels (`conpet learn WORKSPACE FILE --extend`), or retire the labels. "
            "Nothing was changed",
            problems,
        )


def by_subset(examples: Examples | Task) -> dict[Subset, tuple[Example, ...]]:
    """Return examples by subset."""
    check_type(examples, (Examples, Task), "examples or a task", "read_examples")
    return {Subset.TRAIN: examples.train, Subset.VALIDATION: examples.validation, Subset.TEST: examples.test}


def distinct(examples: Iterable[Example]) -> list[Example]:
    """Return the first example of each input."""
    return list({example.input_key: example for example in reversed(list(examples))}.values())[::-1]
