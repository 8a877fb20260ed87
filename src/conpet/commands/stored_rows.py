"""Find the stored rows that are to be forgotten: by input, id, hash, label, task or age."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import torch
from torch import Tensor

from conpet.artifact import row_json
from conpet.backbone.backbone import Backbone
from conpet.data import Example, Input, Kind
from conpet.data.rows import RowError, to_example
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError, did_you_mean
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import stored_examples
from conpet.state.reading import task_state
from conpet.state.slots import MODULE
from conpet.state.statistics import classes_of, features_of
from conpet.store import Snapshot, VersionRecord

_DIFFERENCE, _DIFFERENCE_16_BITS = 1e-3, 0.02
"""Largest relative distance of the features of the same input, which were rounded in another batch."""
_CHUNK = 256
_SINGULAR = {"inputs": "input", "ids": "id", "hashes": "hash"}


class NoMatchError(DataError):
    """Nothing that is stored matches what is to be forgotten."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be forgotten.

    Attributes:
        inputs: Inputs; labels and ids in them are ignored.
        ids: Ids of rows, as text or any other JSON value.
        hashes: SHA-256 hashes of texts in UTF-8, hexadecimal.
        labels: Names of labels.
        tasks: Names of tasks.
        before: Rows learned before this day (UTC).
    """

    inputs: tuple[Example, ...] = ()
    ids: tuple[Any, ...] = ()
    hashes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    before: date | None = None

    def __post_init__(self) -> None:
        if not any((self.inputs, self.ids, self.hashes, self.labels, self.tasks, self.before)):
            raise ConfigError("nothing to forget: name rows (texts, ids, hashes or a file), labels, tasks or an age")
        for number, value in enumerate(self.hashes, start=1):
            if len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
                raise ConfigError(f"hash {number} is not a SHA-256 hash: give 64 hexadecimal digits")

    @property
    def kinds(self) -> list[str]:
        """How rows are named, for the history; nothing of the rows themselves."""
        named = {
            "inputs": self.inputs,
            "ids": self.ids,
            "hashes": self.hashes,
            "labels": self.labels,
            "tasks": self.tasks,
            "age": self.before,
        }
        return [name for name, given in named.items() if given]


def examples_to_show(version: VersionRecord) -> StoredExamples:
    """Return the stored examples of a version with all their labels, to show them to people who may see them."""
    return stored_examples(version)


def inputs_of(rows: Iterable[Input]) -> tuple[Example, ...]:
    """Return rows as inputs, without labels and ids.

    Raises:
        DataError: Some are no inputs; the message does not quote them.
    """
    examples, problems = [], []
    for number, row in enumerate(rows, start=1):
        try:
            examples.append(replace(to_example(row, labelled=False), label=None, id=None))
        except RowError:
            problems.append(Problem("rows", number, "is no input: give a text, an example, or a mapping with `text`"))
    if problems:
        raise DataError("these rows cannot be looked for; nothing was changed", problems)
    return tuple(examples)


@dataclass(frozen=True, slots=True, eq=False)
class FoundRows:
    """Rows of one version that are to be forgotten.

    Attributes:
        version: The version.
        stored: Positions of the rows in its stored examples, by subset.
        learned: Rows of the training set that it was learned from, stored or not.
    """

    version: VersionRecord
    stored: Mapping[Subset, frozenset[int]]
    learned: frozenset[int]

    def examples(self, subset: Subset) -> list[Example]:
        """Return the stored rows of a subset with their texts; nothing if no texts are stored."""
        memory = stored_examples(self.version)
        return [] if memory.latent else memory.chosen(subset, sorted(self.stored[subset]))

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.learned) + len(self.stored[Subset.VALIDATION]) + len(self.stored[Subset.TEST])


class Finder:
    """Finds rows in versions, and remembers which of the wanted ones were found.

    Args:
        wanted: What is to be forgotten.
        backbone: Returns the present backbone; it is loaded only where features have to be compared.
        dtype: Its number format, as in the settings.
    """

    def __init__(self, wanted: Wanted, backbone: Callable[[], Backbone], dtype: str) -> None:
        self._wanted = wanted
        self._backbone = backbone
        self._limit = _DIFFERENCE if dtype == "float32" else _DIFFERENCE_16_BITS
        self._contents: dict[Any, int] = {}
        for number, example in enumerate(wanted.inputs):
            self._contents[_content_key(example)] = number
        self._ids = {_id_key(value): number for number, value in enumerate(wanted.ids)}
        self._hashes = {value.lower(): number for number, value in enumerate(wanted.hashes)}
        self._found: set[tuple[str, int]] = set()

    def check_names(self, snapshot: Snapshot) -> None:
        """Raise `UnknownNameError` if a label or a task is unknown."""
        labels = {label for version in snapshot.versions for label in version.labels}
        for label in self._wanted.labels:
            if label not in labels:
                raise UnknownNameError(f"no label {label!r} in this workspace{did_you_mean(label, labels)}")
        for name in self._wanted.tasks:
            snapshot.task(name)

    def found_in(self, version: VersionRecord, *, features: bool) -> FoundRows | None:
        """Return the rows of a version that are wanted; None if there are none.

        Args:
            version: The version.
            features: Whether its features belong to the present backbone, so that inputs can be found by them.
        """
        memory = stored_examples(version)
        stored = {subset: self._named_rows(version, memory, subset) for subset in Subset}
        if not memory.latent:
            for subset in Subset:
                stored[subset] |= self._rows_with_text(memory, subset)
        indices = memory.indices
        learned = {indices[row] for row in stored[Subset.TRAIN]}
        if features and MODULE in version.objects:
            learned |= self._named_classes(version)
            learned |= self._learned_alike(version, memory, learned)
            position = {index: row for row, index in enumerate(indices)}
            stored[Subset.TRAIN] |= {position[index] for index in learned if index in position}
            if memory.latent:
                for subset in (Subset.VALIDATION, Subset.TEST):
                    stored[subset] |= set(self._alike(memory, memory.latent_features(subset), version))
        if not learned and not any(stored.values()):
            return None
        return FoundRows(version, {subset: frozenset(rows) for subset, rows in stored.items()}, frozenset(learned))

    def check_found(self, *, latent: bool) -> tuple[str, ...]:
        """Return which of the wanted inputs, ids and hashes match nothing; `NoMatchError` if none of all matches.

        They are named by their numbers, such as "id 2": what is to be forgotten must not get into a log.

        Args:
            latent: Whether the workspace stores no text.
        """
        named = {"inputs": self._wanted.inputs, "ids": self._wanted.ids, "hashes": self._wanted.hashes}
        missing = [(kind, at) for kind, given in named.items() for at in range(len(given))]
        missing = [each for each in missing if each not in self._found]
        names = tuple(f"{_SINGULAR[kind]} {at + 1}" for kind, at in missing)
        if not missing or len(missing) < sum(map(len, named.values())):
            return names
        if self._wanted.labels or self._wanted.tasks or self._wanted.before:
            return names
        why = (
            "this workspace stores no texts and no ids, so only inputs (texts or a file of rows) can be found"
            if latent
            else "ids are stored only if the files had a column or field `id`, and texts as they were learned, to the "
            "last character. A row that a limited replay memory has dropped is found only by its text"
        )
        raise NoMatchError(
            f"no stored row matches {'what is given' if len(missing) == 1 else f'any of the {len(missing):,} given'}. "
            "Nothing was changed. If it was forgotten before, nothing is left to do. Otherwise check how it is given: "
            f"{why}",
            [Problem(name, None, "matches no stored row") for name in names],
        )

    def _named_rows(self, version: VersionRecord, memory: StoredExamples, subset: Subset) -> set[int]:
        """Return the stored rows of a wanted task or label, or from before a day."""
        rows = set(range(memory.count(subset)))
        if version.task in self._wanted.tasks:
            return rows
        labels = memory.labels(subset) if self._wanted.labels else []
        found = {row for row, label in enumerate(labels) if label in self._wanted.labels}
        if self._wanted.before is not None:
            days = memory.days(subset) or [version.created.date().isoformat()] * len(rows)
            found |= {row for row, day in enumerate(days) if day < self._wanted.before.isoformat()}
        return found

    def _named_classes(self, version: VersionRecord) -> set[int]:
        """Return the rows of the training set of a wanted task or label, stored or not."""
        task, wanted = task_state(version), self._wanted
        if version.task in wanted.tasks:
            return set(range(len(features_of(task))))
        if not set(wanted.labels) & set(task.labels):
            return set()
        return {row for row, name in enumerate(classes_of(task)) if name in wanted.labels}

    def _rows_with_text(self, memory: StoredExamples, subset: Subset) -> set[int]:
        """Return the stored rows with a wanted input, id or hash."""
        if not (self._contents or self._ids or self._hashes):
            return set()
        rows = set()
        for row, stored in enumerate(memory.reader.rows(subset)):
            example = stored if isinstance(stored, Example) else Example.from_json(row_json(stored))
            hits = [("inputs", self._contents.get(_content_key(example)))]
            if self._ids and example.id is not None:
                hits.append(("ids", self._ids.get(_id_key(example.id))))
            if self._hashes:
                digest = hashlib.sha256(example.content.encode("utf-8", "surrogatepass")).hexdigest()
                hits.append(("hashes", self._hashes.get(digest)))
            found = [(kind, at) for kind, at in hits if at is not None]
            self._found.update(found)
            if found:
                rows.add(row)
        return rows

    def _learned_alike(self, version: VersionRecord, memory: StoredExamples, learned: set[int]) -> set[int]:
        """Return the rows of the training set with the features of a wanted input, if texts do not tell them all."""
        task = task_state(version)
        features = features_of(task)
        if not memory.latent and memory.count(Subset.TRAIN) == len(features):
            return set()
        known = _alike(features[sorted(learned)], features, self._limit) if learned and self._by_row else {}
        return {*known, *self._alike(memory, features, version)}

    @property
    def _by_row(self) -> bool:
        """Whether single rows are named, whose copies are meant, too."""
        return bool(self._wanted.inputs or self._wanted.ids or self._wanted.hashes)

    def _alike(self, memory: StoredExamples, features: Tensor, version: VersionRecord) -> Iterable[int]:
        """Return the rows of some features `[n, F]` that are those of a wanted input."""
        kind = Kind(version.description["kind"])
        inputs = [(at, example) for at, example in enumerate(self._wanted.inputs) if example.kind is kind]
        if not inputs or not len(features):
            return ()
        backbone = self._backbone()
        given = backbone.states([example for _, example in inputs], memory.template, keep=False).features
        found = _alike(given, features, self._limit)
        self._found.update(("inputs", inputs[at][0]) for hits in found.values() for at in hits)
        return found


def _alike(given: Tensor, features: Tensor, limit: float) -> dict[int, list[int]]:
    """Return the rows of `features` `[n, F]` that equal, but for rounding, some of `given` `[m, F]`, with those."""
    wanted, found = given.float(), {}
    for start in range(0, len(features), _CHUNK):
        part = features[start : start + _CHUNK].float()
        distances = torch.cdist(part, wanted, compute_mode="donot_use_mm_for_euclid_dist")
        near = distances <= limit * part.norm(dim=1, keepdim=True)
        for row in near.any(dim=1).nonzero().squeeze(1).tolist():
            found[start + row] = near[row].nonzero().squeeze(1).tolist()
    return found


def _content_key(example: Example) -> Any:
    return example.text.strip() if example.kind is Kind.TEXT else example.input_key


def _id_key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
