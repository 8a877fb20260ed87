"""The logistic regression of a state: one for each kind of input, stored with its labels, trained task by task."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from conpet.artifact import Artifact
from conpet.data import Kind
from conpet.features.feature_map import View
from conpet.features.logistic import LogisticRegression, LogisticWeights
from conpet.features.statistics import ClassSums
from conpet.heads.labels import indices_of
from conpet.state.slots import LOGISTIC
from conpet.state.state import State, TaskState
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
        features: Features of the examples `[n, F]`, or None to read those stored with `task`.
        classes: The class of each example, or None to read them.
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

    def read(self) -> tuple[Tensor, Sequence[str]]:
        """Return features and classes."""
        if self.features is not None and self.classes is not None:
            return self.features, self.classes
        assert self.task is not None, "rows are given or stored"  # noqa: S101
        return features_of(self.task), classes_of(self.task)


def weights_of(state: State) -> dict[Kind, LogisticWeights]:
    """Read the weights of a state, by kind of input; empty if its method trains none or there is no task."""
    stored = state.shared.get(LOGISTIC)
    if stored is None:
        return {}
    labels: Mapping[str, Sequence[str]] = stored.document(LOGISTIC)
    return {Kind(kind): LogisticWeights.from_tensors(stored.tensors(kind), names) for kind, names in labels.items()}


def weights_artifact(weights: Mapping[Kind, LogisticWeights]) -> Artifact | None:
    """Return the shared object of the weights; None if there are none."""
    if not weights:
        return None
    return Artifact(
        tensors={str(kind): of_kind.to_tensors() for kind, of_kind in weights.items()},
        documents={LOGISTIC: {str(kind): list(of_kind.labels) for kind, of_kind in weights.items()}},
    )


def trained(
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
            weights[kind] = _trained(before.get(kind), of_kind, changed, block, seed)
    return weights


def _trained(
    before: LogisticWeights | None, tasks: Sequence[Rows], changed: Collection[str], block: int, seed: int
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
    read = [(*rows.read(), share) for rows, share in drawn]
    return LogisticRegression().fit(
        torch.cat([features.to("cpu", torch.float32) for features, _, _ in read]),
        indices_of([name for _, classes, _ in read for name in classes], labels),
        start,
        block=block,
        weight=torch.cat([torch.full((len(features),), share, dtype=torch.float32) for features, _, share in read]),
        free=free,
    )


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
