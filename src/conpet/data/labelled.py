"""Labelled examples not yet divided into tasks, and how to make a task stream from them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from conpet.data.example import Example
from conpet.data.task import Task, TaskStream
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError, did_you_mean

Grouping = Mapping[str, tuple[str, ...]]
"""Maps task names to labels, in the order in which the tasks are learned."""
SUBSETS = ("train", "validation", "test")

_Row = TypeVar("_Row")


def by_named_subset(rows: Sequence[_Row], names: Sequence[str | None]) -> tuple[dict[str, list[_Row]], str]:
    """Return the rows of a file by the subset that each names, and a note; nothing unless all do and some train.

    Args:
        rows: The rows.
        names: The subset that each names (`conpet.data.raw.named_subset`).
    """
    if None in names or "train" not in names:
        return {}, ""
    pairs = list(zip(rows, names, strict=True))
    divided = {subset: [row for row, name in pairs if name == subset] for subset in SUBSETS if subset in names}
    sizes = ", ".join(f"{len(of_subset):,} {subset}" for subset, of_subset in divided.items())
    return divided, f"the rows name their subsets (split or training): {sizes}"


@dataclass(frozen=True, slots=True)
class LabelledData:
    """A labelled data set, not yet divided into tasks.

    Attributes:
        name: Its name.
        train: Examples to learn from.
        validation: Held-out examples for choices; may be empty.
        test: Held-out examples for the metrics; may be empty.
        groupings: The divisions into tasks that come with the data, by name; the first is the default.
        out_of_scope: Test inputs that no label fits.
        notes: What the reader left out or changed.
    """

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    groupings: Mapping[str, Grouping] = field(default_factory=dict)
    out_of_scope: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels with a training example, sorted."""
        return tuple(sorted(self.counts))

    @property
    def counts(self) -> Counter[str]:
        """Number of training examples by label."""
        return Counter(example.label for example in self.train if example.label is not None)

    def grouping(self, name: str | None = None) -> Grouping:
        """Return one of the groupings that come with the data, by default the first.

        Raises:
            UnknownNameError: There is no grouping of this name, or no grouping at all.
        """
        if not self.groupings:
            prefix = "" if name is None else f"there is no grouping {name!r}: "
            raise UnknownNameError(
                f"{prefix}{self.name} has no groups of labels; define groups, or give a number of tasks made by "
                "'random', 'frequency', 'similar-together' or 'similar-apart'"
            )
        chosen = next(iter(self.groupings)) if name is None else name
        if chosen not in self.groupings:
            meant = did_you_mean(chosen, self.groupings)
            raise UnknownNameError(
                f"{self.name} has no grouping {chosen!r}{meant}; available: {', '.join(self.groupings)}"
            )
        return self.groupings[chosen]


@dataclass(frozen=True, slots=True)
class PerLabel:
    """Most examples per label; None for all.

    Attributes:
        train: Training examples.
        validation: Validation examples.
        test: Test examples.
    """

    train: int | None = None
    validation: int | None = None
    test: int | None = None


def stream_of(
    data: LabelledData, grouping: Grouping, per_label: PerLabel | None = None, *, seed: int = 0
) -> TaskStream:
    """Make one task from each group.

    Held-out inputs that are also training examples are left out, because they would measure memorisation. The choice of
    examples of a label depends only on the seed and on that label's examples; a larger choice contains a smaller one.

    Args:
        data: The data.
        grouping: Its labels by task.
        per_label: Most examples per label; None for all.
        seed: Seed for the choice of examples.

    Raises:
        UnknownNameError: A group names a label that has no training example.
        DataError: A task would have fewer than two labels, or a label is in two tasks.
    """
    _check(data, grouping)
    counts = per_label or PerLabel()
    rows = {subset: by_label(getattr(data, subset), getattr(counts, subset), seed) for subset in SUBSETS}
    seen = {example.input_key for examples in rows["train"].values() for example in examples}
    for subset in ("validation", "test"):
        rows[subset] = {
            label: [example for example in examples if example.input_key not in seen]
            for label, examples in rows[subset].items()
        }
    tasks = []
    for name, labels in grouping.items():
        train, validation, test = (tuple(_of(labels, rows[subset])) for subset in SUBSETS)
        tasks.append(Task(name, train, validation, test))
    return TaskStream(tuple(tasks))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Number of examples of a subset that `stream_of` left out, apart from those beyond `per_label`.

    Attributes:
        repeated: Inputs that occur earlier in the subset with the same label.
        trained_on: Held-out inputs that are also training examples of the stream.
    """

    repeated: int
    trained_on: int


def left_out(
    data: LabelledData, stream: TaskStream, per_label: PerLabel | None = None, *, seed: int = 0
) -> dict[str, LeftOut]:
    """Count, for each subset, what `stream_of` left out when it made the stream with the same arguments."""
    counts, labels = per_label or PerLabel(), {label for task in stream for label in task.labels}
    counted = {}
    for subset in SUBSETS:
        examples = [example for example in getattr(data, subset) if example.label in labels]
        distinct, drawn = (
            sum(map(len, by_label(examples, count, seed).values())) for count in (None, getattr(counts, subset))
        )
        taken = sum(len(getattr(task, subset)) for task in stream)
        counted[subset] = LeftOut(len(examples) - distinct, drawn - taken)
    return counted


def _check(data: LabelledData, grouping: Grouping) -> None:
    known = data.counts
    missing = sorted({label for labels in grouping.values() for label in labels} - set(known))
    if missing:
        raise UnknownNameError(f"{data.name} has no training example for {_meant(missing, sorted(known))}")
    if not grouping:
        raise ConfigError(f"{data.name}: no group of labels is left to make a task from; leave fewer labels out")
    small = [name for name, labels in grouping.items() if len(labels) < 2]
    if small:
        raise DataError(f"{data.name}: a task needs two or more labels; these have one: {', '.join(small)}")
    owners: dict[str, list[str]] = defaultdict(list)
    for name, labels in grouping.items():
        for label in labels:
            owners[label].append(name)
    twice = [
        Problem(f"label {label!r}", None, f"is in {' and in '.join(map(repr, names))}")
        for label, names in owners.items()
        if len(names) > 1
    ]
    if twice:
        raise DataError(
            f"{data.name}: every label must belong to one task, and be listed once; remove it elsewhere", twice
        )


def _meant(missing: Sequence[str], known: Sequence[str]) -> str:
    """Name missing labels with suggestions; without any suggestion, list all labels."""
    meant = {label: did_you_mean(label, known) for label in missing}
    named = ", ".join(f"{label!r}{suggestion}" for label, suggestion in meant.items())
    return named if any(meant.values()) else f"{named}; labels: {', '.join(known)}"


def by_label(examples: Iterable[Example], count: int | None = None, seed: int = 0) -> dict[str, list[Example]]:
    """Return at most `count` distinct inputs of each label (None for all), drawn by the seed, in their original order.

    The choice depends only on the seed and on the label's examples; a larger choice contains a smaller one.
    """
    distinct_inputs: dict[str, dict[tuple[object, ...], Example]] = {}
    for example in examples:
        if example.label is not None:
            distinct_inputs.setdefault(example.label, {}).setdefault(example.input_key, example)
    return {
        label: list(_drawn(list(distinct.values()), count, f"{seed}:{label}"))
        for label, distinct in distinct_inputs.items()
    }


def _drawn(examples: Sequence[Example], count: int | None, seed: str) -> Iterator[Example]:
    if count is None or count >= len(examples):
        yield from examples
        return
    shuffled = random.Random(seed).sample(range(len(examples)), len(examples))  # noqa: S311 - not for secrets
    yield from (examples[row] for row in sorted(shuffled[:count]))


def _of(labels: Iterable[str], rows: Mapping[str, Sequence[Example]]) -> Iterator[Example]:
    for label in labels:
        yield from rows.get(label, ())
