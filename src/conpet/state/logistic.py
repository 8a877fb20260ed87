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
from conpet.features.logistic import LogisticRegression, LogisticWeights
from conpet.features.statistics import ClassSums
from conpet.heads.labels import indices_of
from conpet.state.slots import MODULE
from conpet.state.state import TaskState
from conpet.state.statistics import class_sums_of, classes_of, features_of

MAX_EXAMPLES = 4096
"""Most old examples that take part in a training.

Up to this number all do, and all weights are trained. Beyond it, the weights of the changed tasks and of those nearest
to them are trained on their examples and on examples of other tasks, drawn at random: half of the number each.
"""


class Rows(NamedTuple):
    """The training examples of a task as the classifiers see them.

    Attributes:
        name: Name of the task.
        kind: Kind of its examples.
        sums: Its class sums.
        features: Features of the examples `[n, F]`; None: those stored with `task`.
        classes: The class of each example; None: those stored with `task`.
        task: The task in the state, or None for a task that is not learned yet.
    """

    name: str
    kind: Kind
    sums: ClassSums
    features: Tensor | None = None
    classes: Sequence[str] | None = None
    task: TaskState | None = None

    @classmethod
    def stored(cls, task: TaskState, sums: ClassSums | None = None) -> Rows:
        """Return the rows stored with a task; they are read when needed."""
        return cls(task.name, task.kind, sums or class_sums_of(task), task=task)

    @property
    def given(self) -> tuple[Tensor, Sequence[str]]:
        """Features and classes of a task that is not learned yet."""
        assert self.features is not None  # noqa: S101
        assert self.classes is not None  # noqa: S101
        return self.features, self.classes


class LogisticTrainer:
    """Trains logistic regressions; keeps the features it read last, so that the next task need not read them again."""

    def __init__(self) -> None:
        self._read: Mapping[Hashable, tuple[Tensor, Sequence[str]]] = {}

    def train(
        self,
        before: Mapping[Kind, LogisticWeights],
        tasks: Sequence[Rows],
        changed: Collection[str],
        kinds: Collection[Kind],
        *,
        block: int,
        seed: int,
    ) -> dict[Kind, LogisticWeights]:
        """Return the weights after a change of tasks.

        Args:
            before: The weights before it, by kind.
            tasks: All tasks after it.
            changed: Names of the tasks that are new or have other examples.
            kinds: The kinds of input whose tasks changed or were removed; the weights of others stay.
            block: Width of a block of the features.
            seed: Seed of the draw of old examples.
        """
        weights = dict(before)
        for kind in kinds:
            weights.pop(kind, None)
            of_kind = [rows for rows in tasks if rows.kind is kind]
            if of_kind:
                weights[kind] = self._train(before.get(kind), of_kind, changed, block, seed)
        return weights

    def _train(
        self, before: LogisticWeights | None, tasks: Sequence[Rows], changed: Collection[str], block: int, seed: int
    ) -> LogisticWeights:
        labels = [label for rows in tasks for label in rows.sums.labels]
        width = tasks[0].sums.sums[View.RAW].shape[1]
        start = (before or LogisticWeights.zero(width)).for_labels(labels)
        old = [rows for rows in tasks if rows.name not in changed]
        new = [rows for rows in tasks if rows.name in changed]
        if sum(map(_count, old)) <= MAX_EXAMPLES:
            drawn, free = [(rows, 1.0) for rows in tasks], None
        else:
            nearest, others = _drawn(old, new, seed)
            drawn = [(rows, 1.0) for rows in (*new, *nearest)] + others
            trainable = {label for rows in (*new, *nearest) for label in rows.sums.labels}
            free = [column for column, label in enumerate(labels) if label in trainable]
        read = self._rows([rows for rows, _ in drawn])
        shares = zip(read, (share for _, share in drawn), strict=True)
        return LogisticRegression().fit(
            torch.cat([features.to("cpu", torch.float32) for features, _ in read]),
            indices_of([name for _, classes in read for name in classes], labels),
            start,
            block=block,
            weight=torch.cat([torch.full((len(rows[0]),), share, dtype=torch.float32) for rows, share in shares]),
            free=free,
        )

    def _rows(self, tasks: Sequence[Rows]) -> list[tuple[Tensor, Sequence[str]]]:
        """Return features and classes of tasks."""
        last, read = self._read, []
        kept: dict[Hashable, tuple[Tensor, Sequence[str]]] = {}
        for rows in tasks:
            if rows.task is None:
                read.append(rows.given)
                continue
            key = rows.task.objects[MODULE].key
            kept[key] = last.get(key) or (features_of(rows.task), classes_of(rows.task))
            read.append(kept[key])
        self._read = kept
        return read


def _drawn(old: Sequence[Rows], new: Sequence[Rows], seed: int) -> tuple[list[Rows], list[tuple[Rows, float]]]:
    """Return the tasks nearest to the new ones, and others at random with the weight of each of their examples."""
    near = _means([rows.sums for rows in new] or [old[0].sums])
    closeness = {rows.name: float((_means([rows.sums]) @ near.T).max()) for rows in old}
    nearest = _within_half(sorted(old, key=lambda rows: -closeness[rows.name]))
    chosen = {rows.name for rows in nearest}
    others = [rows for rows in old if rows.name not in chosen]
    random.Random(seed).shuffle(others)  # noqa: S311 - not for secrets
    drawn = _within_half(others)
    share = sum(map(_count, others)) / max(1, sum(map(_count, drawn)))
    return nearest, [(rows, share) for rows in drawn]


def _within_half(order: Sequence[Rows]) -> list[Rows]:
    """Return the first tasks in an order, at least one, with at most half of `MAX_EXAMPLES` examples."""
    chosen: list[Rows] = []
    total = 0
    for rows in order:
        total += _count(rows)
        if chosen and total > MAX_EXAMPLES // 2:
            break
        chosen.append(rows)
    return chosen


def _count(rows: Rows) -> int:
    return int(rows.sums.counts.sum())


def _means(classes: Sequence[ClassSums]) -> Tensor:
    """Return the normalised class means of some tasks `[c, F]`, float64."""
    return normalize(torch.cat([sums.sums[View.RAW] for sums in classes]))
