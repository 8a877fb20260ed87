"""Replay memory: the examples kept of a task, and the one way to read them back, be they texts or prefix states."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject, ObjectReader, Row, row_json
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.data import Example, Kind, Task
from conpet.errors import ConfigError, HiddenLabelsError
from conpet.replay.latent import latent_rows, pack, selected, unpack

MEMORY = "memory"
"""Slot of a task version that holds its examples."""

_ABOUT = "about"
_LABELS = "labels"
_INDICES = "indices"
_REPRESENTATIONS = "representations"


class Subset(StrEnum):
    """Which examples of a task."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Own(Enum):
    """Stands for the template a task is read with: None already stands for the default one of its kind."""

    TEMPLATE = 0


OWN: Final = Own.TEMPLATE


class StoredRow(NamedTuple):
    """What retention knows of a stored training example: bytes of its input, and how many the whole row takes."""

    content: bytes
    size: int


@dataclass(frozen=True, slots=True)
class StoredExamples:
    """The stored examples of one task; they are read when asked for.

    A memory object holds texts, or with the setting `latent_only` prefix states alone. Labels, counts, states and
    indices are read alike from both; what only a text can give raises `ConfigError` where there is none. Whatever
    learns or chooses is given it `without_test_labels`.

    Attributes:
        task: The task's name.
        template: The template its examples are read with, or None.
        kind: What its examples ask.
        reader: The memory object of one of its versions.
    """

    task: str
    template: str | None
    kind: Kind
    reader: ObjectReader

    def without_test_labels(self) -> StoredExamples:
        """The same examples without the labels of the test ones, and with no way back to them.

        It cannot keep them from a learner that opens the workspace's files by itself.
        """
        return StoredExamples(self.task, self.template, self.kind, _WithoutTestLabels(self.reader))

    @property
    def latent(self) -> bool:
        """Whether prefix states are stored and no text."""
        return bool(self.reader.document(_ABOUT)["latent"])

    def count(self, subset: Subset) -> int:
        """Return how many examples of a split are kept."""
        return int(self.reader.document(_ABOUT)["counts"][subset])

    def labels(self, subset: Subset) -> list[str]:
        """Return the label of each example of a split; `HiddenLabelsError` for test ones where it is blind to them."""
        labels = self.reader.document(_LABELS)
        if subset not in labels:
            raise HiddenLabelsError(
                f"task {self.task!r}: the labels of its test examples are read by the metrics alone; learn and choose "
                "by those of the training and validation examples"
            )
        return list(labels[subset])

    @property
    def indices(self) -> list[int]:
        """Index of each stored training example in the training set its version was learned from."""
        return list(self.reader.document(_INDICES))

    @property
    def representations(self) -> Tensor:
        """What the k-means retention clusters `[n, R]`: a row for each stored training example."""
        return self.reader.tensors(_REPRESENTATIONS)[_REPRESENTATIONS]

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
            backbone: The frozen model; stored states are not computed again.
            split: Which examples.
            positions: Their rows in the split, in any order; None: all.
            template: A template in place of the task's own.
            keep: Whether states that are computed go into the state cache.
            progress: Called with the number of examples done since the last call, where they are computed.

        Raises:
            ConfigError: States are stored, and another template is asked for than they were computed with.
        """
        template = self.template if template is OWN else template
        if not self.latent:
            examples = self.examples(subset) if positions is None else self.chosen(subset, positions)
            return backbone.states(examples, template, keep=keep, progress=progress)
        if template != self.template:
            raise self._no_text(f"they cannot be read through another template ({template!r}) than their own")
        rows = range(self.count(subset)) if positions is None else positions
        return unpack(self.reader.tensors(subset), rows)

    def examples(self, subset: Subset) -> list[Example]:
        """Read all examples of a split; `ConfigError` where no text is stored. Test ones have no label if blind."""
        return self.chosen(subset, range(self.count(subset)))

    def chosen(self, subset: Subset, positions: Sequence[int]) -> list[Example]:
        """Read some examples of a split, in the order given; only they are held in memory.

        Raises:
            ConfigError: No text is stored.
        """
        if self.latent:
            raise self._no_text("their texts cannot be read")
        wanted = set(positions)
        rows = zip(sorted(wanted), self.reader.rows(subset, wanted), strict=True)
        found = {position: _example(row) for position, row in rows}
        return [found[position] for position in positions]

    def stored_rows(self) -> Iterator[StoredRow]:
        """Iterate over the stored training examples as retention sees them."""
        if self.latent:
            yield from (StoredRow(*row) for row in latent_rows(self.reader.tensors(Subset.TRAIN)))
            return
        for row in map(row_json, self.reader.rows(Subset.TRAIN)):
            # Without label and id: an example that is relabelled keeps its rank.
            yield StoredRow(_line(_without_label(row)), len(_line(row)) + 1)  # a line of the table, with its end

    def _no_text(self, therefore: str) -> ConfigError:
        return ConfigError(
            f"task {self.task!r}: this workspace has latent_only=true, so of past examples only prefix states are "
            f"kept: {therefore}. Make a workspace without latent_only, if texts may be stored"
        )


def states_of(
    drawn: Sequence[tuple[StoredExamples, Sequence[int]]],
    backbone: Backbone,
    subset: Subset,
    template: str | Literal[Own.TEMPLATE] | None = OWN,
) -> States:
    """Return prefix states of some examples of some tasks, in the order given.

    Those of one template are read together: to ask task by task would cost more the more tasks there are.

    Args:
        drawn: Tasks, each with rows of the split; at least one.
        backbone: The frozen model.
        split: Which examples.
        template: A template in place of each task's own.

    Raises:
        ConfigError: States are stored, and another template is asked for than they were computed with.
    """
    parts = []
    for used, group in groupby(drawn, key=lambda one: one[0].template if template is OWN else template):
        some = list(group)
        if any(source.latent for source, _ in some):
            parts += [source.states(backbone, subset, rows, used) for source, rows in some]
        else:
            parts.append(backbone.states([one for source, rows in some for one in source.chosen(subset, rows)], used))
    return States.concatenated(parts)


class _WithoutTestLabels:
    """Reads a memory object, but for labels and ids (which may tell the label) of test examples.

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
    """Return all examples of a task that is not stored yet, blind to its test labels."""
    examples = {Subset.TRAIN: task.train, Subset.VALIDATION: task.validation, Subset.TEST: task.test}
    return StoredExamples(
        task.name, task.template, task.kind, InMemoryObject(text_memory(examples))
    ).without_test_labels()


def text_memory(examples: Mapping[Subset, Sequence[Example]], representations: Tensor | None = None) -> Artifact:
    """Return a memory object that holds all of a task's examples as texts.

    Args:
        examples: Its examples by split.
        representations: What the k-means retention is to cluster `[n, R]`, a row for each training example, or None.
    """
    tables: dict[str, Iterable[Row]] = {str(subset): tuple(some) for subset, some in examples.items()}
    labels = {subset: [str(example.label) for example in some] for subset, some in examples.items()}
    return Artifact(
        tables=tables,
        documents=_documents(labels, range(len(examples[Subset.TRAIN])), latent=False),
        tensors=_represented(representations),
    )


def latent_memory(
    states: Mapping[Subset, States], labels: Mapping[Subset, Sequence[str]], representations: Tensor | None = None
) -> Artifact:
    """Return a memory object that holds all of a task's examples as prefix states: no text, no token ids, no ids.

    Args:
        states: Their states by split, computed with `subset` > 0.
        labels: Their labels by split.
        representations: As in `text_memory`.
    """
    return Artifact(
        tensors={str(subset): pack(some) for subset, some in states.items()} | _represented(representations),
        documents=_documents(labels, range(len(states[Subset.TRAIN])), latent=True),
    )


def cut_to(memory: StoredExamples, positions: Sequence[int], *, represented: bool) -> Artifact:
    """Return a memory object with some training examples of another, and all its held-out ones.

    Args:
        memory: The other, not blind.
        positions: Rows of the training examples that stay, ascending.
        represented: Whether it has representations.
    """
    labels = {subset: memory.labels(subset) for subset in Subset}
    labels[Subset.TRAIN] = [labels[Subset.TRAIN][position] for position in positions]
    indices = memory.indices
    documents = _documents(labels, [indices[position] for position in positions], latent=memory.latent)
    tensors = _represented(memory.representations[list(positions)] if represented else None)
    reader, held_out = memory.reader, (Subset.VALIDATION, Subset.TEST)
    if memory.latent:
        tensors |= {str(subset): dict(reader.tensors(subset)) for subset in held_out}
        tensors[Subset.TRAIN] = selected(reader.tensors(Subset.TRAIN), positions)
        return Artifact(tensors=tensors, documents=documents)
    tables = {str(subset): list(reader.rows(subset)) for subset in held_out}
    tables[Subset.TRAIN] = list(reader.rows(Subset.TRAIN, set(positions)))
    return Artifact(tables=tables, documents=documents, tensors=tensors)


def relabel(memory: StoredExamples, names: Mapping[str, str | None], stay: Sequence[int]) -> Artifact:
    """Return a memory object with the examples of another under other labels.

    Args:
        memory: The other, not blind.
        names: Label to its new name, or to None where its examples are left out.
        stay: Indices of all examples in the training set the other's version was learned from that are not left out.
    """
    chosen: dict[Subset, list[int]] = {}
    labels: dict[Subset, list[str]] = {}
    for subset in Subset:
        found = [(row, names.get(label, label)) for row, label in enumerate(memory.labels(subset))]
        chosen[subset] = [row for row, label in found if label is not None]
        labels[subset] = [label for _, label in found if label is not None]
    place = {index: at for at, index in enumerate(stay)}
    train, former = chosen[Subset.TRAIN], memory.indices
    documents = _documents(labels, [place[former[row]] for row in train], latent=memory.latent)
    reader = memory.reader
    tensors = _represented(memory.representations[train] if reader.has(_REPRESENTATIONS) else None)
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
    """Return a stored row as an example; rows still in memory are examples already."""
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


def _documents(labels: Mapping[Subset, Sequence[str]], indices: Sequence[int], *, latent: bool) -> dict[str, object]:
    counts = {str(subset): len(some) for subset, some in labels.items()}
    return {
        _ABOUT: {"latent": latent, "counts": counts},
        _LABELS: {str(subset): list(some) for subset, some in labels.items()},
        _INDICES: list(indices),
    }


def _represented(representations: Tensor | None) -> dict[str, dict[str, Tensor]]:
    return {} if representations is None else {_REPRESENTATIONS: {_REPRESENTATIONS: representations}}
