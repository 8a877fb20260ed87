"""The closed-form classifiers: pure functions of a `ClosedFormState`, so independent of the order of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from conpet.errors import ConfigError, DataError
from conpet.features.cholesky import Factor
from conpet.features.feature_map import FeatureMap, View
from conpet.features.last_result import Latest
from conpet.features.statistics import ClosedFormState, mean_variance


class ClosedFormClassifier(Protocol):
    """What `fit` returns: scores over the labels of its state, in the state's order."""

    @property
    def name(self) -> str:
        """The method's registered name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels scored, one a column."""

    def scores(self, features: Tensor) -> Tensor:
        """Score features of shape `[n, dim]`; float32 `[n, C]`, higher is better."""


class ClosedFormEstimator(Protocol):
    """A way to classify from statistics; registered in `conpet.features.CLASSIFIERS`."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def view(self) -> View:
        """The view read; the state's feature map must keep it."""

    def fit(self, state: ClosedFormState) -> ClosedFormClassifier:
        """Compute the classifier.

        Raises:
            ConfigError: The state does not keep the method's view.
            DataError: The state holds no label.
        """


SOLVED_AT_ONCE = 512
"""Labels up to which weights are solved for whatever is asked: it takes some hundredths of a second.

Beyond it scores are computed in float32, in half the time. They then differ from those in float64 in the last digits
that float32 has at the size of the sums: by 5e-8 of ridge outputs, by 5e-4 of log-probabilities down to -2,000 (2,000
labels, states of MiniLM).
"""


@dataclass(frozen=True, eq=False)
class _Scores(ABC):
    """Scores of one view of the features.

    Attributes:
        name: The method that computed it.
        labels: One a column, in the state's order.
        feature_map: Maps features to the view.
        view: What is read.
    """

    name: str
    labels: tuple[str, ...]
    feature_map: FeatureMap
    view: View

    def scores(self, features: Tensor) -> Tensor:
        """Score features of shape `[n, dim]`; float32 `[n, C]`, not to be changed in place."""
        return self._latest.of(features, self._computed)

    @cached_property
    def _latest(self) -> Latest:
        """The scores computed last: a selector and a rule ask for the same ones."""
        return Latest()

    def _computed(self, features: Tensor) -> Tensor:
        chunks = self.feature_map.chunks(features)
        return torch.cat([self._of_rows(self.feature_map.view(self.view, chunk)) for chunk in chunks]).float()

    @abstractmethod
    def _of_rows(self, rows: Tensor) -> Tensor:
        """Score rows of the view, in grid units, float64 `[n, D]`."""


@dataclass(frozen=True, eq=False)
class CosineScores(_Scores):
    """Cosines to the columns of a matrix.

    Attributes:
        weights: Columns of norm 1, float64 `[D, C]`.
    """

    weights: Tensor

    def _of_rows(self, rows: Tensor) -> Tensor:
        return normalize(rows) @ self.weights


@dataclass(frozen=True, eq=False)
class _Solved(_Scores):
    """Scores whose weights are the solution of a system for every label.

    That costs D^2 for each of C labels; the scores of n rows can be had without them, for D^2 a row. So with very many
    labels they are not solved before as many rows were asked for: to learn a task takes a few hundred rows, however
    many labels there are.

    Attributes:
        factor: Of the system F `[D, D]`.
        moments: Its right sides, float64 `[D, C]`.
    """

    factor: Factor
    moments: Tensor
    _asked: list[int] = field(default_factory=lambda: [0], init=False, repr=False)

    def _of_rows(self, rows: Tensor) -> Tensor:
        self._asked[0] += len(rows)
        solve = len(self.labels) <= max(SOLVED_AT_ONCE, self._asked[0])
        return self._with_weights(rows) if solve else self._without(rows)

    @property
    def _format(self) -> torch.dtype:
        """The format of the weights."""
        return torch.float64 if len(self.labels) <= SOLVED_AT_ONCE else torch.float32

    @abstractmethod
    def _with_weights(self, rows: Tensor) -> Tensor:
        """Score rows, the weights solved for once."""

    @abstractmethod
    def _without(self, rows: Tensor) -> Tensor:
        """Score rows without weights."""


@dataclass(frozen=True, eq=False)
class RidgeScores(_Solved):
    """The outputs of a ridge regression, `(x - mean) F^-1 R + share`, with R the moments.

    Attributes:
        mean: Of all rows learned `[D]`.
        share: Of the examples, each label's `[C]`.
    """

    mean: Tensor
    share: Tensor

    def _with_weights(self, rows: Tensor) -> Tensor:
        return torch.addmm(self._bias, rows.to(self._format), self._weights)

    def _without(self, rows: Tensor) -> Tensor:
        solved = self.factor.solve((rows - self.mean).T).T.to(self._format)
        return torch.addmm(self.share.to(self._format), solved, self._right)

    @cached_property
    def _right(self) -> Tensor:
        return self.moments.to(self._format)

    @cached_property
    def _weights(self) -> Tensor:
        return self.factor.solve(self.moments).to(self._format)

    @cached_property
    def _bias(self) -> Tensor:
        return (self.share - self.mean @ self._weights.double()).to(self._format)


@dataclass(frozen=True, eq=False)
class DiscriminantScores(_Solved):
    """Log-probabilities of Gaussian classes of the covariance F, whose means M are the moments, all equally likely.

    All is taken from the mean of the means: that changes no probability, and sums stay small.
    """

    def _with_weights(self, rows: Tensor) -> Tensor:
        centred = (rows - self._centre).to(self._format)
        return torch.addmm(self._bias.to(self._format), centred, self._weights).log_softmax(dim=1)

    def _without(self, rows: Tensor) -> Tensor:
        solved = self.factor.half((rows - self._centre).T).T.to(self._format)
        return torch.addmm(self._bias.to(self._format), solved, self._right).log_softmax(dim=1)

    @cached_property
    def _centre(self) -> Tensor:
        return self.moments.mean(dim=1)

    @cached_property
    def _right(self) -> Tensor:
        return self._half.to(self._format)

    @cached_property
    def _half(self) -> Tensor:
        return self.factor.half(self.moments - self._centre.unsqueeze(1))

    @cached_property
    def _weights(self) -> Tensor:
        return self.factor.other_half(self._half).to(self._format)

    @cached_property
    def _bias(self) -> Tensor:
        return self._half.square().sum(dim=0) / -2


@dataclass(frozen=True)
class NearestMean:
    """The label with the nearest class mean; scores are cosines, -1 to 1.

    Cosine and not Euclidean distance: a few examples with very large states then weigh less. On the intents of CLINC150
    with states of SmolLM2 it was better at every depth tried, by 0.3 to 11 points.
    """

    name: ClassVar[str] = "nearest-mean"
    view: ClassVar[View] = View.RAW

    def fit(self, state: ClosedFormState) -> CosineScores:
        """Compute the unit means."""
        _check(state, self)
        weights = normalize(state.means(self.view)).T.contiguous()
        return CosineScores(self.name, state.labels, state.feature_map, self.view, weights)


@dataclass(frozen=True)
class LinearDiscriminant:
    """Gaussian classes of one covariance; scores are log-probabilities of the labels.

    The covariance is pooled over labels and shrunk: `(1 - s) S + s tr(S)/D I`. All labels are equally likely
    beforehand: how often a label was given for training says nothing about how often it will be asked.

    Args:
        shrinkage: `s`, above 0 and up to 1. The default was within half a point of the best from 0.01 to 0.5 on the
            intents of CLINC150 with states of SmolLM2; the oracle-approximating formula (Chen et al. 2010) was worse.
    """

    shrinkage: float = 0.1
    name: ClassVar[str] = "lda"
    view: ClassVar[View] = View.RAW

    def __post_init__(self) -> None:
        if not 0 < self.shrinkage <= 1:
            raise ConfigError(f"{self.name}: shrinkage is {self.shrinkage}; give a number above 0 and up to 1")

    def fit(self, state: ClosedFormState) -> DiscriminantScores:
        """Compute what the discriminants take."""
        _check(state, self)
        within = state.gram.products[self.view] - state.between(self.view)  # its lower triangle
        freedom = max(state.gram.count - len(state.labels), 1)
        kept = (1 - self.shrinkage) / freedom * within
        return DiscriminantScores(
            self.name,
            state.labels,
            state.feature_map,
            self.view,
            factor=Factor.of(kept, self.shrinkage * mean_variance(within, freedom)),
            moments=state.means(self.view).T,
        )


@dataclass(frozen=True)
class KernelDiscriminant(LinearDiscriminant):
    """`LinearDiscriminant` on random Fourier features of the RBF kernel: KLDA (Momeni et al. 2024, arXiv 2412.15571).

    KLDA inverts the pooled scatter by a pseudo-inverse and searches the kernel's width for each data set; here the
    covariance is shrunk as for LDA, and the width is fixed relative to that of the features (`FeatureMap.bandwidth`).
    Its ensembles over several random maps are left out.
    """

    name: ClassVar[str] = "klda"
    view: ClassVar[View] = View.FOURIER


@dataclass(frozen=True)
class Ridge:
    """Ridge regression of one-hot labels; scores are the regression's outputs, about 0 to 1.

    The intercept is not penalised. It is had by centring, exactly, from the sums: a constant feature would need a
    scale to be chosen for it, and a large common mean would make the system ill-conditioned. As outputs are linear in
    the targets, the output for a group of labels (a task) is the sum of theirs.

    Args:
        strength: The penalty as a share of the mean variance over dimensions times the number of examples
            (`trace / D` of the centred Gram), so that it keeps its meaning as examples come in, in any order. Above 0.
            The default was within one point of the best from 0.01 to 3 on the intents of CLINC150 with states of
            SmolLM2, for both views.
    """

    strength: float = 0.1
    name: ClassVar[str] = "ridge"
    view: ClassVar[View] = View.RAW

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise ConfigError(f"{self.name}: strength is {self.strength}; give a number above 0")

    def fit(self, state: ClosedFormState) -> RidgeScores:
        """Compute what its scores take; as long as the state's Gram is the same object, without factoring it again."""
        _check(state, self)
        total, share = state.gram.sums[self.view], state.counts.double() / state.gram.count
        return RidgeScores(
            self.name,
            state.labels,
            state.feature_map,
            self.view,
            factor=state.gram.factor(self.view, self.strength),
            moments=state.sums(self.view).T.addr_(total, share, alpha=-1),
            mean=total / state.gram.count,
            share=share,
        )


@dataclass(frozen=True)
class ProjectedRidge(Ridge):
    """`Ridge` on the rectified random projection: RanPAC (McDonnell et al. 2023, arXiv 2307.02251).

    RanPAC scores `h (G + penalty I)^-1 C`, with `C` the class sums of `h`; here there is an intercept, and the penalty,
    which RanPAC chooses on held-out data after every task, is fixed relative to the variance of `h`.
    """

    name: ClassVar[str] = "projected-ridge"
    view: ClassVar[View] = View.PROJECTED


def _check(state: ClosedFormState, method: ClosedFormEstimator) -> None:
    if method.view not in state.feature_map.views:
        raise ConfigError(
            f"{method.name} reads the {method.view} view; these statistics keep {', '.join(state.feature_map.views)}: "
            "keep that view from the first task on"
        )
    if not state.labels:
        raise DataError("a closed-form classifier needs one label or more; none was learned yet")
