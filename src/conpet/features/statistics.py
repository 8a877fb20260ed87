"""Exact additive statistics: the result is the same, to the bit, for any order of learning and after removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, chain, compress, groupby
from typing import Any, Self

import torch
from torch import Tensor

from conpet.errors import ConfigError, CorruptionError, DataError
from conpet.features.cholesky import Factor
from conpet.features.feature_map import MAX_EXAMPLES, STEPS, FeatureMap, View
from conpet.features.logistic import LogisticWeights
from conpet.features.triangle import packed, unpacked

_ROUNDING_VARIANCE = 1 / 12
_STEPS_PER_GRID_UNIT = 256
"""Each label's row is rounded to this fraction of a grid unit, so that sums of products do not depend on order."""
_LABELS_PER_CHUNK = 512
"""Approximate number of labels whose sums are copied at a time."""
_ROWS_PER_BLOCK = 128
"""Rows of a scatter that are summed at a time, only up to the diagonal of the last: about half the work."""
_MAP_SHAPES: Mapping[str, tuple[int, ...]] = {"map": (3,), "map.bandwidth": (), "map.views": (len(View),)}
_DTYPES = {"map": torch.int64, "map.views": torch.bool, "count": torch.int64, "counts": torch.int64}
"""Dtypes; all other tensors are float64."""


@dataclass(frozen=True, eq=False)
class Gram:
    """Sums over all examples of a workspace: of each view, and of its products with itself.

    A workspace has one, whatever the number of tasks: adding or removing a task needs only the features of that task.
    Never changed in place, so cached factors remain valid.

    Attributes:
        feature_map: The map that computed the views; sums include its `views`.
        count: Number of examples.
        sums: Per view, float64 `[D]` of whole numbers.
        products: Per view, float64 `[D, D]` of whole numbers. Stored ones are read each time (see `stored`).
    """

    feature_map: FeatureMap
    count: int
    sums: Mapping[View, Tensor]
    products: Mapping[View, Tensor]
    _factors: dict[tuple[View, float], Factor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def zero(cls, feature_map: FeatureMap) -> Gram:
        """Return the sums over no examples."""
        widths = {view: feature_map.width(view) for view in feature_map.views}
        return cls(
            feature_map,
            0,
            {view: torch.zeros(width, dtype=torch.float64) for view, width in widths.items()},
            {view: torch.zeros(width, width, dtype=torch.float64) for view, width in widths.items()},
        )

    def plus(self, features: Tensor) -> Gram:
        """Return the sums after adding examples with features `[n, dim]`.

        Raises:
            DataError: The features do not fit the map, or there are too many examples for exact sums.
        """
        if self.count + len(features) > MAX_EXAMPLES:
            raise DataError(
                f"closed-form statistics are exact for up to {MAX_EXAMPLES:,} examples; there are {self.count:,}, and "
                f"{len(features):,} more do not fit: create another workspace for them"
            )
        return self._added(features, 1)

    def minus(self, features: Tensor) -> Gram:
        """Return the sums after removing, exactly, examples with features `[n, dim]`.

        Raises:
            DataError: The features do not fit the map, or were never added.
        """
        reduced = self._added(features, -1)
        if reduced.count < 0 or any(bool((reduced.products[view].diagonal() < 0).any()) for view in reduced.products):
            raise DataError(
                f"cannot remove {len(features):,} examples from statistics over {self.count:,}: they were never added; "
                "pass the same features that were learned"
            )
        return reduced

    def _added(self, features: Tensor, sign: int) -> Gram:
        sums = {view: total.clone() for view, total in self.sums.items()}
        products = {view: total.clone() for view, total in self.products.items()}
        for chunk in self.feature_map.chunks(features):
            for view in sums:
                rows = self.feature_map.view(view, chunk)
                sums[view].add_(rows.sum(dim=0), alpha=sign)
                products[view].addmm_(rows.T, rows, alpha=sign)
        return Gram(self.feature_map, self.count + sign * len(features), sums, products)

    def factor(self, view: View, strength: float) -> Factor:
        """Return the factor of the centred products plus a ridge of `strength` times the mean of their diagonal.

        Computed once and kept with these statistics, unless they read storage. Requires at least one example and a view
        in the map's `views`.
        """
        key = (view, strength)
        factor = self._factors.get(key)
        if factor is None:
            centred = self.products[view].addr(self.sums[view], self.sums[view], alpha=-1 / self.count)
            factor = Factor.of(centred, strength * self.count * mean_variance(centred, self.count))
            if not self.reads_storage:
                self._factors[key] = factor
        return factor

    @property
    def reads_storage(self) -> bool:
        """Whether the products are read from storage when they are used."""
        return isinstance(self.products, _StoredProducts)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors for storage; symmetric matrices as upper triangles."""
        tensors = {**_pack_map(self.feature_map), "count": torch.tensor(self.count)}
        for view in self.feature_map.views:
            tensors[f"{view}.sum"] = self.sums[view]
            tensors[f"{view}.products"] = packed(self.products[view])
        return tensors

    @classmethod
    def stored(cls, read: Callable[[], Mapping[str, Tensor]]) -> Gram:
        """Return the sums whose `to_tensors` are stored.

        The products are read and unpacked each time they are used, and not kept: predictions need them once, to fit
        classifiers, and they are most of what statistics take.

        Args:
            read: Reads the tensors.

        Raises:
            CorruptionError: A tensor is missing or unexpected, or has the wrong shape or dtype.
        """
        tensors = read()
        feature_map = _unpack_map(tensors, "closed-form statistics")
        shapes: dict[str, tuple[int, ...]] = {"count": ()}
        for view in feature_map.views:
            width = feature_map.width(view)
            shapes |= {f"{view}.sum": (width,), f"{view}.products": (width * (width + 1) // 2,)}
        _check_shapes(tensors, shapes, "closed-form statistics")
        sums = {view: tensors[f"{view}.sum"].clone() for view in feature_map.views}
        return cls(feature_map, int(tensors["count"]), sums, _StoredProducts(feature_map, read))


class _StoredProducts(Mapping[View, Tensor]):
    """Products that are read from storage each time they are used."""

    def __init__(self, feature_map: FeatureMap, read: Callable[[], Mapping[str, Tensor]]) -> None:
        self._feature_map = feature_map
        self._read = read

    def __getitem__(self, view: View) -> Tensor:
        return unpacked(self._read()[f"{view}.products"], self._feature_map.width(view))

    def __iter__(self) -> Iterator[View]:
        return iter(self._feature_map.views)

    def __len__(self) -> int:
        return len(self._feature_map.views)


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums over the examples of each label of a task; stored with the task.

    Attributes:
        feature_map: The map that computed the views.
        labels: The task's labels, sorted.
        counts: Examples per label, int64 `[C]`.
        sums: Per view, float64 `[C, D]` of whole numbers.
    """

    feature_map: FeatureMap
    labels: tuple[str, ...]
    counts: Tensor
    sums: Mapping[View, Tensor]

    @classmethod
    def of(cls, feature_map: FeatureMap, features: Tensor, labels: Sequence[str]) -> Self:
        """Sum features, `[n, dim]`, by the label of each row.

        Raises:
            DataError: The features do not fit the map, or the numbers of rows and labels differ.
        """
        if len(features) != len(labels):
            raise DataError(f"{len(features)} rows of features for {len(labels)} labels; pass one label per row")
        names = tuple(sorted(set(labels)))
        position = {name: index for index, name in enumerate(names)}
        owners = torch.tensor([position[label] for label in labels], dtype=torch.int64)
        sums = {
            view: torch.zeros(len(names), feature_map.width(view), dtype=torch.float64) for view in feature_map.views
        }
        first = 0
        for chunk in feature_map.chunks(features):
            rows = owners[first : first + len(chunk)]
            for view, total in sums.items():
                total.index_add_(0, rows, feature_map.view(view, chunk))
            first += len(chunk)
        return cls(feature_map, names, torch.bincount(owners, minlength=len(names)), sums)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors for storage; the caller stores the labels."""
        views = {f"{view}.sums": self.sums[view] for view in self.feature_map.views}
        return {**_pack_map(self.feature_map), "counts": self.counts, **views}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], labels: Sequence[str]) -> Self:
        """Invert `to_tensors`, given the labels in the same order.

        Raises:
            CorruptionError: A tensor is missing or unexpected, or has the wrong shape or dtype.
        """
        what = f"class sums of {len(labels)} labels"
        feature_map = _unpack_map(tensors, what)
        shapes = {f"{view}.sums": (len(labels), feature_map.width(view)) for view in feature_map.views}
        _check_shapes(tensors, {"counts": (len(labels),), **shapes}, what)
        sums = {view: tensors[f"{view}.sums"] for view in feature_map.views}
        return cls(feature_map, tuple(labels), tensors["counts"], sums)


class Scatter:
    """The between-class scatter `[D, D]`: the sum over labels of `s s^T / n`, for the sum s of a label's n rows.

    Consecutive states differ by few tasks, so only the labels of those are added or removed: the cost does not grow
    with the number of tasks. The scatter is kept from the second state on, because most processes see only one, and it
    is as large as the features squared. Safe for threads.
    """

    def __init__(self) -> None:
        self._last: Mapping[View, tuple[Mapping[int, ClassSums], Tensor | None]] = {}

    def of(self, view: View, classes: Sequence[ClassSums]) -> Tensor:
        """Return the scatter of a view over all labels of some tasks, float64 in grid units.

        Only the lower triangle is valid. Do not change it in place.

        Args:
            view: One of the feature map's `views`.
            classes: The class sums of each task; at least one task.
        """
        current = {id(sums): sums for sums in classes}
        previous, total = self._last.get(view, ({}, None))
        keeps = total is not None or (bool(previous) and previous.keys() != current.keys())
        added = [sums for key, sums in current.items() if key not in previous]
        removed = [sums for key, sums in previous.items() if key not in current]
        if total is None or len(added) + len(removed) >= len(current):
            width = classes[0].feature_map.width(view)
            added, removed, total = list(current.values()), [], torch.zeros(width, width, dtype=torch.float64)
        total = _add_scatter(_add_scatter(total, view, added, 1), view, removed, -1)
        self._last = {**self._last, view: (current, total if keeps else None)}
        return total / _STEPS_PER_GRID_UNIT**2


@dataclass(frozen=True, eq=False)
class ClosedFormState:
    """The statistics that closed-form classifiers are computed from, and the weights of the logistic regression.

    Sums are exact, so the class sums must add up to those of the Gram, to the bit. The constructor checks this, so that
    statistics that do not match their tasks are detected before they classify anything.

    Attributes:
        gram: Sums over the examples of all tasks.
        classes: Class sums of each task, in the order of the tasks.
        scatter: Between-class scatter, updated from state to state.
        logistic: Weights of the logistic regressions; each scores the labels of one kind of input. Empty if the method
            trains none.
        refit: Class sums of each task over training and validation examples, for the class means; empty for those of
            training examples. Covariances are those of training examples in any case. Statistics with it are made from
            the same without it, and not checked again.
        factors: Keeps factors of covariances from the first fit until the same statistics with `refit` are fitted, too;
            None keeps none.
        solve_at_once: Whether classifiers solve for their weights at the first use, so that a score does not depend on
            how many inputs were scored before.
        fitted: Classifiers fitted so far, by name; see `conpet.features.fitted.fitted_classifier`.

    Raises:
        DataError: Two tasks share a label.
        CorruptionError: The Gram does not match the class sums.
    """

    gram: Gram
    classes: tuple[ClassSums, ...]
    scatter: Scatter = field(default_factory=Scatter, repr=False)
    logistic: tuple[LogisticWeights, ...] = field(default=(), repr=False)
    refit: tuple[ClassSums, ...] = field(default=(), repr=False)
    factors: dict[Any, Any] | None = field(default=None, repr=False)
    solve_at_once: bool = field(default=False, kw_only=True)
    fitted: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.refit:
            return
        labels = self.labels
        if len(set(labels)) < len(labels):
            shared = sorted({label for label in labels if labels.count(label) > 1})
            raise DataError(
                f"closed-form statistics: two tasks share labels: {', '.join(shared)}; each label belongs to one task"
            )
        if any(classes.feature_map != self.feature_map for classes in self.classes):
            raise CorruptionError(
                f"class sums have another feature map than the statistics, {self.feature_map}: compute them again"
            )
        consistent = int(self.counts.sum()) == self.gram.count and all(
            torch.equal(self._total(view), total) for view, total in self.gram.sums.items()
        )
        if not consistent:
            raise CorruptionError(
                f"closed-form statistics over {self.gram.count} examples do not match the tasks "
                f"({len(self.classes)} tasks, {int(self.counts.sum())} examples): compute them again"
            )

    def _total(self, view: View) -> Tensor:
        """Return the sum over all examples `[D]`, computed from the class sums."""
        zero = torch.zeros(self.feature_map.width(view), dtype=torch.float64)
        return sum((sums.sum(dim=0) for sums, _ in _copies(view, self.classes)), zero)

    @property
    def feature_map(self) -> FeatureMap:
        """The map that computed the views."""
        return self.gram.feature_map

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of all tasks, in the order of the tasks."""
        return tuple(chain.from_iterable(classes.labels for classes in self.classes))

    @cached_property
    def counts(self) -> Tensor:
        """Examples per label, int64 `[C]`."""
        return torch.cat([torch.zeros(0, dtype=torch.int64), *(classes.counts for classes in self.classes)])

    def sums(self, view: View) -> Tensor:
        """Return the sums of a view over the training examples of each label, float64 `[C, D]`, as a copy."""
        return self._sums(view, self.classes)

    def _sums(self, view: View, classes: Sequence[ClassSums]) -> Tensor:
        empty = torch.zeros(0, self.feature_map.width(view), dtype=torch.float64)
        return torch.cat([empty, *(of_task.sums[view] for of_task in classes)])

    def between(self, view: View) -> Tensor:
        """Return the scatter of the label means about 0, weighted by number of examples; see `Scatter.of`."""
        return self.scatter.of(view, self.classes)

    def means(self, view: View) -> Tensor:
        """Return the mean of a view over the examples of each label, float64 `[C, D]` in grid units (see `refit`)."""
        classes = self.refit or self.classes
        counts = torch.cat([torch.zeros(0, dtype=torch.int64), *(of_task.counts for of_task in classes)])
        return self._sums(view, classes).div_(counts.unsqueeze(1))


def _add_scatter(total: Tensor, view: View, classes: Sequence[ClassSums], sign: int) -> Tensor:
    if not classes:
        return total
    result = total.clone()
    for sums, counts in _copies(view, classes):
        rows = sums.div_(counts.float().sqrt().unsqueeze(1)).mul_(_STEPS_PER_GRID_UNIT).round_()
        for first in range(0, len(result), _ROWS_PER_BLOCK):
            end = first + _ROWS_PER_BLOCK
            result[first:end, :end].addmm_(rows[:, first:end].T, rows[:, :end], alpha=sign)
    return result


def _copies(view: View, classes: Sequence[ClassSums]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield copies of the sums `[c, D]` and counts `[c]` of the labels of a few tasks at a time, in order."""
    ends = accumulate(len(sums.labels) for sums in classes)
    for _, group in groupby(zip(ends, classes, strict=True), lambda pair: pair[0] // _LABELS_PER_CHUNK):
        chunk = [sums for _, sums in group]
        yield torch.cat([sums.sums[view] for sums in chunk]), torch.cat([sums.counts for sums in chunk])


def mean_variance(scatter: Tensor, count: int) -> float:
    """Return the mean variance per dimension, in grid units, from a scatter matrix over `count` examples.

    If it is 0 up to rounding (for a single example, say), return the variance of standardised features instead.
    """
    variance = float(scatter.diagonal().mean()) / count
    return variance if variance > _ROUNDING_VARIANCE else float(STEPS**2)


def shrunk_covariance(scatter: Tensor, freedom: int, shrinkage: float) -> tuple[Tensor, float]:
    """Return a covariance shrunk to a multiple of the identity: the matrix, and what is added to its diagonal.

    Args:
        scatter: Scatter matrix, of which only the lower triangle need be valid.
        freedom: Its degrees of freedom; fewer than 1 count as 1.
        shrinkage: Weight of the identity.
    """
    freedom = max(freedom, 1)
    return (1 - shrinkage) / freedom * scatter, shrinkage * mean_variance(scatter, freedom)


def _pack_map(feature_map: FeatureMap) -> dict[str, Tensor]:
    return {
        "map": torch.tensor([feature_map.dim, feature_map.projection, feature_map.seed]),
        "map.bandwidth": torch.tensor(feature_map.bandwidth, dtype=torch.float64),
        "map.views": torch.tensor([view in feature_map.views for view in View]),
    }


def _unpack_map(tensors: Mapping[str, Tensor], what: str) -> FeatureMap:
    entries = {name: tensor for name, tensor in tensors.items() if name in _MAP_SHAPES}
    _check_shapes(entries, {}, what)
    dim, projection, seed = entries["map"].tolist()
    views = tuple(compress(View, entries["map.views"].tolist()))
    try:
        return _feature_map(dim, projection, seed, entries["map.bandwidth"].item(), views)
    except ConfigError as error:
        raise CorruptionError(f"{what}: {error}; restore a backup or compute them again") from error


_feature_map = lru_cache(maxsize=4)(FeatureMap)
"""All tasks of a workspace share one map, which is checked and kept once."""


def _check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise `CorruptionError` unless the tensors have exactly these shapes, besides those of the feature map."""
    expected = {name: (shape, _DTYPES.get(name, torch.float64)) for name, shape in {**_MAP_SHAPES, **shapes}.items()}
    actual = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if actual != expected:
        wrong = sorted(name for name in expected | actual if expected.get(name) != actual.get(name))
        raise CorruptionError(
            f"{what}: tensors are missing, unexpected or of the wrong shape: {', '.join(wrong)}; restore a backup or "
            "compute them again"
        )
