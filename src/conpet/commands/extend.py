"""Learn more examples of known labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conpet.commands.base import Transaction
from conpet.commands.checks import check_type
from conpet.commands.learn import learn_checked
from conpet.data import Example, Examples, Task
from conpet.data.checks import NEW_LABELS, unknown_label
from conpet.errors import DataError, Problem, plural
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.reading import origins
from conpet.store import VersionRecord
from conpet.types import LearnReport

MOST_IGNORED = 1000
"""Most ignored examples that are listed with a new version."""
_STORED, _REPEATED = "the same input is stored already", "the same input is given twice"


def owners_of(tx: Transaction, examples: Examples | Task) -> list[str]:
    """Return the names of the tasks that own the labels of examples, after checking that all can be extended.

    Raises:
        DataError: A label is unknown, or an input is stored with another label.
        ConfigError: A task's texts are not stored.
    """
    owners = tx.snapshot.owners
    labels = {str(example.label) for subset_examples in by_subset(examples).values() for example in subset_examples}
    if unknown := sorted(labels - owners.keys()):
        problems = [Problem("examples", None, unknown_label(label)) for label in unknown]
        raise DataError(
            f"these labels are new{NEW_LABELS}. Or correct them. Nothing was changed",
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
    extension = extended(present, examples)
    if extension.task is None:
        return tx.report(present, skipped=True, notes=extension.notes)
    return learn_checked(tx, [extension.task], "learn", derived_from={name: origins(present)})[0]


@dataclass(frozen=True, slots=True)
class Extension:
    """What more examples make of a task.

    Attributes:
        task: The task with its stored and new examples; None if nothing is new.
        labels: The labels of the examples that are given.
        added: Number of new examples by subset.
        stored: Number of examples that are ignored because their inputs are stored already.
        repeated: Number of examples that are ignored because their inputs are given twice.
    """

    task: Task | None
    labels: tuple[str, ...]
    added: Mapping[Subset, int]
    stored: int
    repeated: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What is ignored, for the user."""
        ignored = self.stored + self.repeated
        if not ignored:
            return ()
        why = {"stored already": self.stored, "given twice": self.repeated}
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in why.items() if count)
        given = plural(sum(self.added.values()) + ignored, "example")
        if self.task is None:
            lists = "`conpet data check FILE --against WORKSPACE --verbose` lists them"
        else:
            first = f" (the first {MOST_IGNORED:,})" if ignored > MOST_IGNORED else ""
            lists = f"`conpet modules show` lists them{first}"
        return (f"ignored {ignored:,} of {given}: {reasons}; {lists}",)

    def with_left_out(self, rows: Iterable[Mapping[str, Any]]) -> Extension:
        """Return it with the rows that the new version does not learn, and the notes, as part of the task."""
        if self.task is None:
            return self
        return replace(self, task=replace(self.task, notes=(*self.task.notes, *self.notes), left_out=tuple(rows)))


def extended(present: VersionRecord, examples: Examples | Task, new_labels: Iterable[str] = ()) -> Extension:
    """Return a task with its stored examples and those of its labels that are new.

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
    given = {
        subset: [(at, example) for at, example in enumerate(subset_examples) if example.label in accepted]
        for subset, subset_examples in by_subset(examples).items()
    }
    problems = [
        Problem(
            *_place(examples, subset, at),
            f"label {example.label!r} contradicts the stored label {labels[example.input_key]!r} of the same input",
        )
        for subset, numbered in given.items()
        for at, example in numbered
        if labels.get(example.input_key, example.label) != example.label
    ]
    if problems:
        raise DataError(f"task {present.task!r} cannot be extended; nothing was changed", problems)
    new: dict[Subset, list[Example]] = {}
    ignored: list[tuple[Subset, int, str]] = []
    for subset, numbered in given.items():
        first: dict[tuple[Any, ...], Example] = {}
        for at, example in numbered:
            if example.input_key in labels:
                ignored.append((subset, at, _STORED))
            elif example.input_key in first:
                ignored.append((subset, at, _REPEATED))
            else:
                first[example.input_key] = example
        new[subset] = list(first.values())
    reasons = Counter(reason for _, _, reason in ignored)
    extension = Extension(
        task_again(present, {subset: [*stored[subset], *new[subset]] for subset in Subset}, present.labels, ())
        if any(new.values())
        else None,
        tuple(sorted({str(example.label) for numbered in given.values() for _, example in numbered})),
        {subset: len(subset_examples) for subset, subset_examples in new.items()},
        reasons[_STORED],
        reasons[_REPEATED],
    )
    left_out = [row for row in examples.left_out if row.get("label") in (None, *accepted)]
    left_out += [_left_out(examples, *row) for row in ignored[:MOST_IGNORED]]
    return extension.with_left_out(left_out)


def _left_out(examples: Examples | Task, subset: Subset, position: int, reason: str) -> dict[str, Any]:
    """Return an ignored example as `Task.left_out` lists it."""
    file, row = _place(examples, subset, position)
    return {"file": file, "row": row, "action": "left out", "code": "duplicate", "reason": reason}


def _place(examples: Examples | Task, subset: Subset, position: int) -> tuple[str, int]:
    if isinstance(examples, Examples):
        return examples.place(subset, position)
    return f"task {examples.name!r} ({subset})", position + 1


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
