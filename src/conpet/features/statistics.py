"""Exact additive statistics: any order of learning, and learning then removing, ends in the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, chain, compress, groupby
from typing import Any, Self

import torch
from torch import Tensor

from conpet.errors import ConfigError, CorruptionError, DataError
from conpet.features.cholesky import Factor
from conpet.features.feature_map import MAX_EXAMPLES, STEPS, FeatureMap, View
from conpet.features.triangle import packed, unpacked

_ROUNDING_VARIANCE = 1 / 12
_FINE = 256
"""Each label's row is rounded to this part of a grid unit, so that sums of products come out the same in any order."""
_LABELS_AT_ONCE = 512
"""About so many labels' sums are copied at a time where those of all tasks are gone through."""
_ROWS_AT_ONCE = 128
"""So many rows of a scatter are added up at a time, each up to the last one's diagonal: about half the work of all."""
_MAP_SHAPES: Mapping[str, tuple[int, ...]] = {"map": (3,), "map.bandwidth": (), "map.views": (len(View),)}
_DTYPES = {"map": torch.int64, "map.views": torch.bool, "count": torch.int64, "counts": torch.int64}
"""All other tensors are float64."""


@dataclass(frozen=True, eq=False)
class Gram:
    """Sums over all examples of a workspace: of their views, and of the products of each view with itself.

    Only one is kept, whatever the number of tasks: a task is added, or taken out, with its features alone. Never
    changed in place, so the factors it keeps stay right.

    Attributes:
        feature_map: The map the sums were taken with; its `views` are those summed.
        count: Number of examples.
        sums: Per view, float64 `[D]` of whole numbers.
        products: Per view, float64 `[D, D]` of whole numbers.
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
        """Return the sums with the examples of these features, `[n, dim]`, added.

        Raises:
            DataError: The features do not fit the map, or there are more examples than can be summed exactly.
        """
        if self.count + len(features) > MAX_EXAMPLES:
            raise DataError(
                f"closed-form statistics are exact for up to {MAX_EXAMPLES:,} examples; {self.count:,} are in them and "
                f"{len(features):,} more were given: start another workspace"
            )
        return self._moved(features, 1)

    def minus(self, features: Tensor) -> Gram:
        """Return the sums with the examples of these features, `[n, dim]`, taken out exactly.

        Raises:
            DataError: The features do not fit the map, or were never added.
        """
        moved = self._moved(features, -1)
        if moved.count < 0 or any(bool((moved.products[view].diagonal() < 0).any()) for view in moved.products):
            raise DataError(
                f"{len(features):,} examples cannot be taken out of statistics over {self.count:,}: "
                "they were never added; give the very features that were learned"
            )
        return moved

    def _moved(self, features: Tensor, sign: int) -> Gram:
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

        It is computed once, and kept for as long as these statistics are. There must be one example or more, and the
        view must be one of the map's.
        """
        key = (view, strength)
        if key not in self._factors:
            centred = self.products[view].addr(self.sums[view], self.sums[view], alpha=-1 / self.count)
            self._factors[key] = Factor.of(centred, strength * self.count * mean_variance(centred, self.count))
        return self._factors[key]

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors for storage; of each symmetric matrix the upper triangle."""
        tensors = {**_pack_map(self.feature_map), "count": torch.tensor(self.count)}
        for view in self.feature_map.views:
            tensors[f"{view}.sum"] = self.sums[view]
            tensors[f"{view}.products"] = packed(self.products[view])
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Gram:
        """Invert `to_tensors`.

        Raises:
            CorruptionError: A tensor is missing, surplus, or of another shape or dtype.
        """
        feature_map = _unpack_map(tensors, "closed-form statistics")
        shapes: dict[str, tuple[int, ...]] = {"count": ()}
        for view in feature_map.views:
            width = feature_map.width(view)
            shapes |= {f"{view}.sum": (width,), f"{view}.products": (width * (width + 1) // 2,)}
        _check_shapes(tensors, shapes, "closed-form statistics")
        return cls(
            feature_map,
            int(tensors["count"]),
            {view: tensors[f"{view}.sum"] for view in feature_map.views},
            {view: unpacked(tensors[f"{view}.products"], feature_map.width(view)) for view in feature_map.views},
        )


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums over the examples of each label of one task: the small part, kept with the task.

    Attributes:
        feature_map: The map the sums were taken with.
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
            DataError: The features do not fit the map, or there are more or fewer rows than labels.
        """
        if len(features) != len(labels):
            raise DataError(f"{len(features)} rows of features for {len(labels)} labels; give one label a row")
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
        """Return named tensors for storage; the labels are the caller's to keep."""
        views = {f"{view}.sums": self.sums[view] for view in self.feature_map.views}
        return {**_pack_map(self.feature_map), "counts": self.counts, **views}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], labels: Sequence[str]) -> Self:
        """Invert `to_tensors`, given the labels in their order.

        Raises:
            CorruptionError: A tensor is missing, surplus, or of another shape or dtype.
        """
        what = f"class sums of {len(labels)} labels"
        feature_map = _unpack_map(tensors, what)
        shapes = {f"{view}.sums": (len(labels), feature_map.width(view)) for view in feature_map.views}
        _check_shapes(tensors, {"counts": (len(labels),), **shapes}, what)
        sums = {view: tensors[f"{view}.sums"] for view in feature_map.views}
        return cls(feature_map, tuple(labels), tensors["counts"], sums)


class Scatter:
    """The sum over labels of `s s^T / n`, of the sum s of n rows of a view, `[D, D]`.

    A state differs from the one before by a task or few: only their labels are added, or taken out, so that the cost
    does not grow with the number of tasks. Safe for threads.
    """

    def __init__(self) -> None:
        self._last: Mapping[View, tuple[Mapping[int, ClassSums], Tensor]] = {}

    def of(self, view: View, classes: Sequence[ClassSums]) -> Tensor:
        """Return the lower triangle of the scatter of a view over some tasks' labels, float64 in grid units.

        What is above the diagonal means nothing. Do not change it.

        Args:
            view: One of the view of the tasks' feature map.
            classes: The class sums of each task, at least one.
        """
        now = {id(one): one for one in classes}
        known, total = self._last.get(view, ({}, None))
        coming = [one for key, one in now.items() if key not in known]
        leaving = [one for key, one in known.items() if key not in now]
        if total is None or len(coming) + len(leaving) >= len(now):
            width = classes[0].feature_map.width(view)
            coming, leaving, total = list(now.values()), [], torch.zeros(width, width, dtype=torch.float64)
        total = _moved(_moved(total, view, coming, 1), view, leaving, -1)
        self._last = {**self._last, view: (now, total)}
        return total / _FINE**2


@dataclass(frozen=True, eq=False)
class ClosedFormState:
    """All that closed-form classifiers are computed from.

    As sums are exact, that of the classes must equal that of the Gram to the last bit; it is checked here, so that
    statistics that have parted from their tasks are found before they classify anything.

    Attributes:
        gram: Over the examples of all tasks.
        classes: Of each task, in the order of the tasks.
        scatter: Keeps the scatter of the labels' means from state to state.
        fitted: Classifiers computed from it so far, by method; see `conpet.features.fitting`.

    Raises:
        DataError: Two tasks share a label.
        CorruptionError: The Gram is not over the examples of just these classes.
    """

    gram: Gram
    classes: tuple[ClassSums, ...]
    scatter: Scatter = field(default_factory=Scatter, repr=False)
    fitted: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        labels = self.labels
        if len(set(labels)) < len(labels):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            raise DataError(f"labels in two tasks of one closed-form state: {', '.join(twice)}; give each once")
        if any(classes.feature_map != self.feature_map for classes in self.classes):
            raise CorruptionError(f"class sums of another feature map than the statistics' {self.feature_map}")
        same = int(self.counts.sum()) == self.gram.count and all(
            torch.equal(self._total(view), total) for view, total in self.gram.sums.items()
        )
        if not same:
            raise CorruptionError(
                f"closed-form statistics over {self.gram.count} examples are not those of the tasks given "
                f"({len(self.classes)} tasks, {int(self.counts.sum())} examples); compute them again"
            )

    def _total(self, view: View) -> Tensor:
        """Return the sum over all examples `[D]`, from those over the examples of each label."""
        none = torch.zeros(self.feature_map.width(view), dtype=torch.float64)
        return sum((sums.sum(dim=0) for sums, _ in _copies(view, self.classes)), none)

    @property
    def feature_map(self) -> FeatureMap:
        """The map all sums were taken with."""
        return self.gram.feature_map

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of all tasks, task by task."""
        return tuple(chain.from_iterable(classes.labels for classes in self.classes))

    @cached_property
    def counts(self) -> Tensor:
        """Examples per label, int64 `[C]`."""
        return torch.cat([torch.zeros(0, dtype=torch.int64), *(classes.counts for classes in self.classes)])

    def sums(self, view: View) -> Tensor:
        """Return a copy of the sums of one of the map's views over each label's examples, float64 `[C, D]`."""
        none = torch.zeros(0, self.feature_map.width(view), dtype=torch.float64)
        return torch.cat([none, *(classes.sums[view] for classes in self.classes)])

    def between(self, view: View) -> Tensor:
        """Return the scatter of the labels' means about 0, each as often as it has examples; see `Scatter.of`."""
        return self.scatter.of(view, self.classes)

    def means(self, view: View) -> Tensor:
        """Return the mean of one of the map's views over the examples of each label, float64 `[C, D]` in grid units."""
        return self.sums(view).div_(self.counts.unsqueeze(1))


def _moved(total: Tensor, view: View, classes: Sequence[ClassSums], sign: int) -> Tensor:
    if not classes:
        return total
    moved = total.clone()
    for sums, counts in _copies(view, classes):
        rows = sums.div_(counts.sqrt().unsqueeze(1)).mul_(_FINE).round_()
        for first in range(0, len(moved), _ROWS_AT_ONCE):
            end = first + _ROWS_AT_ONCE
            moved[first:end, :end].addmm_(rows[:, first:end].T, rows[:, :end], alpha=sign)
    return moved


def _copies(view: View, classes: Sequence[ClassSums]) -> Iterator[tuple[Tensor, Tensor]]:
    """Copy the sums of a view `[c, D]` and the counts `[c]` of tasks' labels, task after task, some tasks at a time."""
    ends = accumulate(len(one.labels) for one in classes)
    for _, group in groupby(zip(ends, classes, strict=True), lambda found: found[0] // _LABELS_AT_ONCE):
        some = [one for _, one in group]
        yield torch.cat([one.sums[view] for one in some]), torch.cat([one.counts for one in some])


def mean_variance(scatter: Tensor, count: int) -> float:
    """Return the variance of a dimension, on average, from a scatter matrix over `count` examples; in grid units.

    Where there is none but rounding (one example, say), that of standardised features stands in.
    """
    variance = float(scatter.diagonal().mean()) / count
    return variance if variance > _ROUNDING_VARIANCE else float(STEPS**2)


def _pack_map(feature_map: FeatureMap) -> dict[str, Tensor]:
    return {
        "map": torch.tensor([feature_map.dim, feature_map.projection, feature_map.seed]),
        "map.bandwidth": torch.tensor(feature_map.bandwidth, dtype=torch.float64),
        "map.views": torch.tensor([view in feature_map.views for view in View]),
    }


def _unpack_map(tensors: Mapping[str, Tensor], what: str) -> FeatureMap:
    kept = {name: tensor for name, tensor in tensors.items() if name in _MAP_SHAPES}
    _check_shapes(kept, {}, what)
    dim, projection, seed = kept["map"].tolist()
    views = tuple(compress(View, kept["map.views"].tolist()))
    try:
        return _feature_map(dim, projection, seed, kept["map.bandwidth"].item(), views)
    except ConfigError as error:
        raise CorruptionError(f"{what}: {error}; restore or compute again") from error


_feature_map = lru_cache(maxsize=4)(FeatureMap)
"""All tasks of a workspace have the same map: it is checked, and kept, once."""


def _check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Check that there are tensors of just these shapes, and those of the feature map."""
    expected = {name: (shape, _DTYPES.get(name, torch.float64)) for name, shape in {**_MAP_SHAPES, **shapes}.items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        raise CorruptionError(
            f"{what}: tensors missing, surplus or of another shape: {', '.join(wrong)}; restore or compute again"
        )
