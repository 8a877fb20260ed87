"""The logistic regression of a state: one for each kind of input, stored with its labels, trained task by task."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from conpet.data import Kind
from conpet.features.feature_map import View
from conpet.features.logistic import LAST_LAYER_WEIGHT, LogisticRegression, LogisticWeights
from conpet.features.statistics import ClassSums
from conpet.heads.labels import indices_of
from conpet.state.slots import MODULE
from conpet.state.state import TaskState
from conpet.state.statistics import Examples, class_sums_of, examples_of

MAX_EXAMPLES = 4096
"""Most old examples that take part in a training.

Up to this number all do, and all weights may be trained. Beyond it, the weights of the changed tasks and of those
nearest to them may be: on all of their examples, and on some of every other task, so that no label is left out. The
nearest tasks and the others get half of the number each. Of the labels learned before, few are trained (see
`LogisticRegression.fit`), unless examples were removed (see `MAX_ANEW`).
"""
MAX_ANEW = 4 * MAX_EXAMPLES
"""Most examples from which all weights are trained from zero after a removal, so that it leaves no trace in them.

Beyond it, weights are trained further as ever, and those of other tasks keep a trace of the removed examples.
"""
MAX_OTHERS = 128
"""Most other tasks whose examples are read for a training; with more, they are drawn at random."""


class Rows(NamedTuple):
    """The examples of a task that the classifiers learn from.

    Attributes:
        task: The task that they are stored with; they are read when needed.
        sums: Its class sums.
        refit: Whether they are the training and the validation examples.
    """

    task: TaskState
    sums: ClassSums
    refit: bool = False

    @classmethod
    def stored(cls, task: TaskState, *, refit: bool = False) -> Rows:
        """Return the rows stored with a task, with its class sums."""
        return cls(task, class_sums_of(task, refit=refit), refit)

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def kind(self) -> Kind:
        """Kind of its examples."""
        return self.task.kind

    def read(self) -> Examples:
        """Return features and classes."""
        return examples_of(self.task, refit=self.refit)


class LogisticTrainer:
    """Trains logistic regressions; keeps the features it read last, so that the next task need not read them again."""

    def __init__(self) -> None:
        self._read: Mapping[Hashable, Examples] = {}

    def train(
        self,
        before: Mapping[Kind, LogisticWeights],
        tasks: Sequence[Rows],
        changed: Collection[str],
        kinds: Collection[Kind],
        *,
        block: int,
        last_layer: bool = False,
        seed: int,
        removed: bool = False,
    ) -> dict[Kind, LogisticWeights]:
        """Return the weights after a change of tasks.

        Args:
            before: The weights before it, by kind.
            tasks: All tasks after it.
            changed: Names of the tasks that are new or have other examples.
            kinds: The kinds of input whose tasks changed or were removed; the weights of others stay.
            block: Width of a block of the features.
            last_layer: Whether the last block of plain text is the last layer of an encoder, which then weighs more.
            seed: Seed of the draw of old examples.
            removed: Whether examples were removed, which must leave no trace: then all weights are trained from zero.
        """
        weights = dict(before)
        for kind in kinds:
            weights.pop(kind, None)
            of_kind = [rows for rows in tasks if rows.kind is kind]
            if of_kind:
                weights[kind] = self._train(
                    before.get(kind),
                    of_kind,
                    changed,
                    block,
                    LAST_LAYER_WEIGHT if last_layer and kind is Kind.TEXT else 1.0,
                    seed,
                    removed,
                )
        return weights

    def _train(
        self,
        before: LogisticWeights | None,
        tasks: Sequence[Rows],
        changed: Collection[str],
        block: int,
        last_weight: float,
        seed: int,
        removed: bool,
    ) -> LogisticWeights:
        labels = [label for rows in tasks for label in rows.sums.labels]
        width = tasks[0].sums.sums[View.RAW].shape[1]
        anew = removed and sum(map(_count, tasks)) <= MAX_ANEW
        start = LogisticWeights.zero(width, labels) if anew or not before else before.for_labels(labels)
        old = [rows for rows in tasks if rows.name not in changed]
        new = [rows for rows in tasks if rows.name in changed]
        if anew or sum(map(_count, old)) <= MAX_EXAMPLES:
            draws, free = [Draw(rows) for rows in tasks], None
        else:
            nearest = _nearest(old, new)
            draws = [Draw(rows) for rows in (*new, *nearest)] + _others(old, nearest, seed)
            trainable = {label for rows in (*new, *nearest) for label in rows.sums.labels}
            free = [column for column, label in enumerate(labels) if label in trainable]
        added = {label for rows in new for label in rows.sums.labels}
        read = self._read_rows(draws, seed)
        return LogisticRegression().fit(
            torch.cat([features.to("cpu", torch.float32) for features, _ in read]),
            indices_of([name for _, classes in read for name in classes], labels),
            start,
            block=block,
            last_weight=last_weight,
            weight=torch.cat([draw.weights for draw in draws]),
            free=free,
            new=() if removed else [column for column, label in enumerate(labels) if label in added],
        )

    def _read_rows(self, draws: Sequence[Draw], seed: int) -> list[Examples]:
        """Return features and classes of examples of tasks."""
        last, read = self._read, []
        kept: dict[Hashable, Examples] = {}
        for draw in draws:
            key = (draw.rows.task.objects[MODULE].key, draw.drawn)
            kept[key] = last.get(key) or draw.of(*draw.rows.read(), seed)
            read.append(kept[key])
        self._read = kept
        return read


class Draw(NamedTuple):
    """Examples of a task that take part in a training.

    Attributes:
        rows: The task.
        most: Most examples, drawn at random; None for all.
        factor: Number of tasks that this one stands for.
    """

    rows: Rows
    most: int | None = None
    factor: float = 1.0

    @property
    def drawn(self) -> int:
        """Number of examples drawn."""
        return _count(self.rows) if self.most is None else min(self.most, _count(self.rows))

    @property
    def weights(self) -> Tensor:
        """The weight of each example in the loss."""
        return torch.full((self.drawn,), self.factor * _count(self.rows) / self.drawn, dtype=torch.float32)

    def of(self, features: Tensor, classes: Sequence[str], seed: int) -> Examples:
        """Return features and classes of the examples drawn."""
        if self.drawn == len(classes):
            return features, classes
        numbers = _random(seed, self.rows).sample(range(len(classes)), self.drawn)
        return features[numbers], [classes[number] for number in numbers]


def _nearest(old: Sequence[Rows], new: Sequence[Rows]) -> list[Rows]:
    """Return the old tasks nearest to the new ones, at least one, with at most half of `MAX_EXAMPLES` examples."""
    near = _means([rows.sums for rows in new] or [old[0].sums])
    closeness = {rows.name: float((_means([rows.sums]) @ near.T).max()) for rows in old}
    chosen: list[Rows] = []
    total = 0
    for rows in sorted(old, key=lambda rows: -closeness[rows.name]):
        total += _count(rows)
        if chosen and total > MAX_EXAMPLES // 2:
            break
        chosen.append(rows)
    return chosen


def _others(old: Sequence[Rows], nearest: Sequence[Rows], seed: int) -> list[Draw]:
    """Return draws of the same number of examples from each other task, half of `MAX_EXAMPLES` in all."""
    chosen = {rows.name for rows in nearest}
    others = [rows for rows in old if rows.name not in chosen]
    # Drawn by name, so that the next training draws nearly the same tasks, which are in memory.
    drawn = sorted(others, key=lambda rows: _random(seed, rows).random())[:MAX_OTHERS]
    most = max(1, MAX_EXAMPLES // 2 // max(1, len(drawn)))
    return [Draw(rows, most, len(others) / len(drawn)) for rows in drawn]


def _random(seed: int, rows: Rows) -> random.Random:
    """Return the generator of the draws of a task."""
    return random.Random(f"{seed}:{rows.name}")  # noqa: S311 - not for secrets


def _count(rows: Rows) -> int:
    return int(rows.sums.counts.sum())


def _means(classes: Sequence[ClassSums]) -> Tensor:
    """Return the normalised class means of some tasks `[c, F]`, float64."""
    return normalize(torch.cat([sums.sums[View.RAW] for sums in classes]))
