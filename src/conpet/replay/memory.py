"""Replay memory: the stored examples of a task, as texts or prefix states, and how to read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, StrEnum
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject, ObjectReader, Row, row_json
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.data import Example, Kind, Task
from conpet.data.templates import default_template
from conpet.errors import ConfigError, HiddenLabelsError
from conpet.replay.latent import latent_rows, pack, selected, unpack
from conpet.state.slots import MEMORY as MEMORY

_ABOUT = "about"
_LABELS = "labels"
_INDICES = "indices"
_REPRESENTATIONS = "representations"
_LEARNED = "learned"

Days = Mapping["Subset", Sequence[str]]
"""The day, in UTC, on which each example was learned first, by subset: `2026-11-29`."""


class Subset(StrEnum):
    """A subset of a task's examples."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Own(Enum):
    """Marks the task's own template as an argument's default, because None means the default template of a kind."""

    TEMPLATE = 0


OWN: Final = Own.TEMPLATE


class StoredRow(NamedTuple):
    """A stored training example as retention sees it: the bytes of its input, and the size of the row in bytes."""

    content: bytes
    size: int


@dataclass(frozen=True, slots=True)
class StoredExamples:
    """The stored examples of one task, read on demand.

    A memory object holds texts, or with `latent_only=true` only prefix states. Labels, counts, states and indices can
    be read from both; methods that need texts raise `ConfigError` if there are none. Code that learns or chooses gets
    the object `without_test_labels`.

    Attributes:
        task: The task's name.
        template: The template its examples are read with, or None.
        kind: Kind of its examples.
        reader: Reads the memory object of one of its versions.
    """

    task: str
    template: str | None
    kind: Kind
    reader: ObjectReader

    def without_test_labels(self) -> StoredExamples:
        """Return the same examples with the labels of the test examples hidden.

        This does not stop a method that reads the workspace's files directly.
        """
        return StoredExamples(self.task, self.template, self.kind, _WithoutTestLabels(self.reader))

    @property
    def latent(self) -> bool:
        """Whether only prefix states are stored, no texts."""
        return bool(self.reader.document(_ABOUT)["latent"])

    def count(self, subset: Subset) -> int:
        """Return the number of stored examples of a subset."""
        return int(self.reader.document(_ABOUT)["counts"][subset])

    def labels(self, subset: Subset) -> list[str]:
        """Return the label of each example of a subset; `HiddenLabelsError` for hidden test labels."""
        labels = self.reader.document(_LABELS)
        if subset not in labels:
            raise HiddenLabelsError(
                f"task {self.task!r}: the labels of its test examples are hidden from everything except the metrics; "
                "use the labels of the training or validation examples"
            )
        return list(labels[subset])

    def days(self, subset: Subset) -> list[str]:
        """Return the day on which each example of a subset was learned first; empty if that was not recorded."""
        runs = self.reader.document(_ABOUT).get(_LEARNED, {}).get(subset, ())
        return [day for day, count in runs for _ in range(count)]

    @property
    def indices(self) -> list[int]:
        """Index of each stored training example in the training set its version was learned from."""
        return list(self.reader.document(_INDICES))

    @property
    def representations(self) -> Tensor:
        """Representations of the stored training examples for k-means retention `[n, R]`."""
        return self.reader.tensors(_REPRESENTATIONS)[_REPRESENTATIONS]

    def latent_features(self, subset: Subset) -> Tensor:
        """Return the frozen features stored with a subset `[n, F]`; only where no texts are stored."""
        return self.reader.tensors(subset)["features"]

    def states(
        self,
        backbone: Backbone,
        subset: Subset,
        positions: Sequence[int] | None = None,
        template: str | Literal[Own.TEMPLATE] | None = OWN,
        *,
        keep: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> States:
        """Return prefix states of stored examples.

        Args:
            backbone: The frozen model; stored states are not recomputed.
            subset: The subset to read.
            positions: Rows in the subset, in any order; None for all.
            template: The template to use; by default the task's own.
            keep: Whether computed states go into the state cache.
            progress: Called with the number of examples done since the last call, if states are computed.

        Raises:
            ConfigError: Only states are stored, and they were computed with another template.
        """
        template = self.template if template is OWN else template
        if not self.latent:
            examples = self.examples(subset) if positions is None else self.chosen(subset, positions)
            return backbone.states(examples, template, keep=keep, progress=progress)
        if template != self.template:
            raise self._no_text(f"they cannot be read with another template ({template!r})")
        rows = range(self.count(subset)) if positions is None else positions
        return unpack(self.reader.tensors(subset), rows)

    def examples(self, subset: Subset) -> list[Example]:
        """Return all examples of a subset, without hidden labels; `ConfigError` if no texts are stored."""
        return self.chosen(subset, range(self.count(subset)))

    def chosen(self, subset: Subset, positions: Sequence[int]) -> list[Example]:
        """Return the examples at these rows of a subset, in this order; no others are held in memory.

        Raises:
            ConfigError: No texts are stored.
        """
        if self.latent:
            raise self._no_text("their texts cannot be read")
        wanted = set(positions)
        rows = zip(sorted(wanted), self.reader.rows(subset, wanted), strict=True)
        examples = {position: _example(row) for position, row in rows}
        return [examples[position] for position in positions]

    def stored_rows(self) -> Iterator[StoredRow]:
        """Iterate over the stored training examples as retention sees them."""
        if self.latent:
            yield from (StoredRow(*row) for row in latent_rows(self.reader.tensors(Subset.TRAIN)))
            return
        for row in map(row_json, self.reader.rows(Subset.TRAIN)):
            # Without label and id, so that a relabelled example keeps its rank.
            yield StoredRow(_line(_without_label(row)), len(_line(row)) + 1)  # 1 for the line feed

    def _no_text(self, therefore: str) -> ConfigError:
        return ConfigError(
            f"task {self.task!r}: this workspace has latent_only=true, so only prefix states of past examples are "
            f"stored: {therefore}. If texts may be stored, make a workspace without latent_only"
        )


def states_of(
    drawn: Sequence[tuple[StoredExamples, Sequence[int]]],
    backbone: Backbone,
    subset: Subset,
    template: str | Literal[Own.TEMPLATE] | None = OWN,
    *,
    features_first: bool = False,
) -> States:
    """Return prefix states of drawn examples of several tasks, in this order.

    Adjacent tasks with the same template share one pass, so that the cost does not grow with the number of tasks.

    Args:
        drawn: At least one task, each with rows of the subset.
        backbone: The frozen model.
        subset: The subset to read.
        template: The template to use; by default each task's own.
        features_first: Whether to read texts and hidden states only when something asks for more than the features.

    Raises:
        ConfigError: Only states are stored, and they were computed with another template.
    """
    parts = []
    for used_template, group in groupby(drawn, key=lambda item: item[0].template if template is OWN else template):
        group_drawn = list(group)
        if any(source.latent for source, _ in group_drawn):
            parts += [source.states(backbone, subset, rows, used_template) for source, rows in group_drawn]
        elif features_first:
            parts.append(_features_first(group_drawn, backbone, subset, used_template))
        else:
            examples = [example for source, rows in group_drawn for example in source.chosen(subset, rows)]
            parts.append(backbone.states(examples, used_template))
    return parts[0] if len(parts) == 1 else States.concatenated(parts)


def _features_first(
    drawn: Sequence[tuple[StoredExamples, Sequence[int]]], backbone: Backbone, subset: Subset, template: str | None
) -> States:
    """Return prefix states of drawn texts, read with one template, as far as something asks for them."""
    digests = [source.reader.table_digest(subset) for source, _ in drawn]
    places = [(number, row) for number, (_, rows) in enumerate(drawn) for row in rows]

    def read(indices: Sequence[int]) -> list[Example]:
        by_task = groupby((places[index] for index in indices), key=lambda place: place[0])
        chosen = [(drawn[number][0], [row for _, row in own]) for number, own in by_task]
        return [example for source, rows in chosen for example in source.chosen(subset, rows)]

    return backbone.stored_states(
        [(digest, row) if (digest := digests[number]) else None for number, row in places],
        read,
        default_template(drawn[0][0].kind, backbone.encoder.style) if template is None else template,
    )


class _WithoutTestLabels:
    """Reads a memory object without the labels of test examples and their ids, which may contain the label.

    Args:
        reader: The memory object.
    """

    __slots__ = ("_reader",)

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader

    @property
    def key(self) -> Hashable:
        return self._reader.key

    def has(self, stem: str) -> bool:
        return self._reader.has(stem)

    def table_digest(self, stem: str) -> str | None:
        return self._reader.table_digest(stem)

    def tensors(self, stem: str) -> Mapping[str, Tensor]:
        return self._reader.tensors(stem)

    def document(self, stem: str) -> Any:
        document = self._reader.document(stem)
        if stem == _LABELS:
            return {subset: labels for subset, labels in document.items() if subset != Subset.TEST}
        return document

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[Row]:
        rows = self._reader.rows(stem, wanted)
        return map(_unlabelled, rows) if stem == Subset.TEST else rows


def new_examples(task: Task) -> StoredExamples:
    """Return all examples of a task that is not stored yet, without its test labels."""
    examples = {Subset.TRAIN: task.train, Subset.VALIDATION: task.validation, Subset.TEST: task.test}
    return StoredExamples(
        task.name, task.template, task.kind, InMemoryObject(text_memory(examples))
    ).without_test_labels()


def text_memory(
    examples: Mapping[Subset, Sequence[Example]], representations: Tensor | None = None, days: Days | None = None
) -> Artifact:
    """Return a memory object that holds all of a task's examples as texts.

    Args:
        examples: Its examples by subset.
        representations: Representations of the training examples for k-means retention `[n, R]`, or None.
        days: The day on which each example was learned first; None for today.
    """
    tables: dict[str, Iterable[Row]] = {
        str(subset): tuple(subset_examples) for subset, subset_examples in examples.items()
    }
    labels = {
        subset: [str(example.label) for example in subset_examples] for subset, subset_examples in examples.items()
    }
    return Artifact(
        tables=tables,
        documents=_documents(labels, range(len(examples[Subset.TRAIN])), days or _all_today(labels), latent=False),
        tensors=_represented(representations),
    )


def latent_memory(
    states: Mapping[Subset, States], labels: Mapping[Subset, Sequence[str]], representations: Tensor | None = None
) -> Artifact:
    """Return a memory object that holds all of a task's examples as prefix states, without texts, token ids and ids.

    Args:
        states: Their states by subset, computed with at least one frozen layer.
        labels: Their labels by subset.
        representations: As in `text_memory`.
    """
    return Artifact(
        tensors={str(subset): pack(subset_states) for subset, subset_states in states.items()}
        | _represented(representations),
        documents=_documents(labels, range(len(states[Subset.TRAIN])), _all_today(labels), latent=True),
    )


def cut_to(memory: StoredExamples, positions: Sequence[int], *, represented: bool) -> Artifact:
    """Return a copy of a memory object with these training examples only, and all validation and test examples.

    Args:
        memory: The memory object, with test labels.
        positions: Rows of the training examples to keep, ascending.
        represented: Whether to keep representations.
    """
    labels = {subset: memory.labels(subset) for subset in Subset}
    labels[Subset.TRAIN] = [labels[Subset.TRAIN][position] for position in positions]
    indices = memory.indices
    days = {subset: memory.days(subset) for subset in Subset}
    if days[Subset.TRAIN]:
        days[Subset.TRAIN] = [days[Subset.TRAIN][position] for position in positions]
    documents = _documents(labels, [indices[position] for position in positions], days, latent=memory.latent)
    tensors = _represented(memory.representations[list(positions)] if represented else None)
    reader, held_out = memory.reader, (Subset.VALIDATION, Subset.TEST)
    if memory.latent:
        tensors |= {str(subset): dict(reader.tensors(subset)) for subset in held_out}
        tensors[Subset.TRAIN] = selected(reader.tensors(Subset.TRAIN), positions)
        return Artifact(tensors=tensors, documents=documents)
    tables = {str(subset): list(reader.rows(subset)) for subset in held_out}
    tables[Subset.TRAIN] = list(reader.rows(Subset.TRAIN, set(positions)))
    return Artifact(tables=tables, documents=documents, tensors=tensors)


def renumbered(memory: StoredExamples, representations: Tensor | None) -> Artifact:
    """Return a copy of a memory object whose stored training examples are the whole training set of its version.

    Args:
        memory: The memory object, with test labels.
        representations: New representations of the training examples for k-means retention `[n, R]`, or None.
    """
    positions = range(memory.count(Subset.TRAIN))
    artifact = cut_to(memory, positions, represented=False)
    documents = {**artifact.documents, _INDICES: list(positions)}
    return replace(artifact, documents=documents, tensors={**artifact.tensors, **_represented(representations)})


def relabel(memory: StoredExamples, names: Mapping[str, str | None], remaining: Sequence[int]) -> Artifact:
    """Return a copy of a memory object with labels renamed or removed.

    Args:
        memory: The memory object, with test labels.
        names: Label to its new name, or to None to remove its examples.
        remaining: Indices, in the training set of the version, of the examples that are not removed, stored or not.
    """
    chosen: dict[Subset, list[int]] = {}
    labels: dict[Subset, list[str]] = {}
    for subset in Subset:
        renamed = [(row, names.get(label, label)) for row, label in enumerate(memory.labels(subset))]
        chosen[subset] = [row for row, label in renamed if label is not None]
        labels[subset] = [label for _, label in renamed if label is not None]
    return _reduced(memory, chosen, labels, remaining)


def without_rows(memory: StoredExamples, gone: Mapping[Subset, Container[int]], remaining: Sequence[int]) -> Artifact:
    """Return a copy of a memory object without some rows.

    Args:
        memory: The memory object, with test labels.
        gone: The rows that are left out, by subset.
        remaining: As in `relabel`.
    """
    chosen = {
        subset: [row for row in range(memory.count(subset)) if row not in gone.get(subset, ())] for subset in Subset
    }
    every = {subset: memory.labels(subset) for subset in Subset}
    labels = {subset: [every[subset][row] for row in rows] for subset, rows in chosen.items()}
    return _reduced(memory, chosen, labels, remaining)


def _reduced(
    memory: StoredExamples,
    chosen: Mapping[Subset, Sequence[int]],
    labels: Mapping[Subset, Sequence[str]],
    remaining: Sequence[int],
) -> Artifact:
    """Return a copy of a memory object with the chosen rows, which have these labels; `remaining` as in `relabel`."""
    new_index = {index: position for position, index in enumerate(remaining)}
    train, former = chosen[Subset.TRAIN], memory.indices
    days = {subset: memory.days(subset) for subset in Subset}
    days = {subset: [own[row] for row in chosen[subset]] if own else own for subset, own in days.items()}
    documents = _documents(labels, [new_index[former[row]] for row in train], days, latent=memory.latent)
    reader = memory.reader
    tensors = _represented(memory.representations[list(train)] if reader.has(_REPRESENTATIONS) else None)
    if memory.latent:
        tensors |= {str(subset): selected(reader.tensors(subset), rows) for subset, rows in chosen.items()}
        return Artifact(tensors=tensors, documents=documents)
    tables = {
        str(subset): [
            _relabelled(row, label) for row, label in zip(reader.rows(subset, set(rows)), labels[subset], strict=True)
        ]
        for subset, rows in chosen.items()
    }
    return Artifact(tables=tables, documents=documents, tensors=tensors)


def _example(row: Row) -> Example:
    """Return a stored row as an example; rows that are still in memory already are examples."""
    return row if isinstance(row, Example) else Example.from_json(row_json(row))


def _relabelled(row: Row, label: str) -> Row:
    return row.labelled(label) if isinstance(row, Example) else {**row_json(row), "label": label}


def _unlabelled(row: Row) -> Row:
    """Return a stored row without label and id."""
    return replace(row, label=None, id=None) if isinstance(row, Example) else _without_label(row_json(row))


def _without_label(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("label", "id")}


def _line(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, sort_keys=True, ensure_ascii=False).encode()


def today() -> str:
    """Return the present day in UTC, as it is stored with examples."""
    return datetime.now(UTC).date().isoformat()


def _all_today(labels: Mapping[Subset, Sequence[str]]) -> dict[Subset, list[str]]:
    day = today()
    return {subset: [day] * len(subset_labels) for subset, subset_labels in labels.items()}


def _documents(
    labels: Mapping[Subset, Sequence[str]], indices: Sequence[int], days: Days, *, latent: bool
) -> dict[str, object]:
    counts = {str(subset): len(subset_labels) for subset, subset_labels in labels.items()}
    runs = {str(subset): [[day, len(list(run))] for day, run in groupby(own)] for subset, own in days.items() if own}
    learned = {_LEARNED: runs} if runs else {}  # workspaces made before have no days
    return {
        _ABOUT: {"latent": latent, "counts": counts, **learned},
        _LABELS: {str(subset): list(subset_labels) for subset, subset_labels in labels.items()},
        _INDICES: list(indices),
    }


def _represented(representations: Tensor | None) -> dict[str, dict[str, Tensor]]:
    return {} if representations is None else {_REPRESENTATIONS: {_REPRESENTATIONS: representations}}
