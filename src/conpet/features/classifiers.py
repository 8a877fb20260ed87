"""The closed-form classifiers: pure functions of a `ClosedFormState`, so the order of tasks does not matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from conpet.errors import ConfigError, DataError
from conpet.features.cholesky import Factor
from conpet.features.feature_map import FeatureMap, View
from conpet.features.last_result import LastResult
from conpet.features.logistic import LogisticRegression, LogisticWeights
from conpet.features.statistics import ClosedFormState, shrunk_covariance


class ClosedFormClassifier(Protocol):
    """A fitted classifier: scores over the labels of its state, in the state's order."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each column of the scores."""

    def scores(self, features: Tensor) -> Tensor:
        """Return scores `[n, C]`, float32, for features `[n, dim]`; higher is better."""


class ClosedFormEstimator(Protocol):
    """A closed-form method, registered in `conpet.features.CLASSIFIERS`."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def view(self) -> View:
        """The view it reads; the state's feature map must include it."""

    def fit(self, state: ClosedFormState) -> ClosedFormClassifier:
        """Compute the classifier.

        Raises:
            ConfigError: The state does not include the view it reads.
            DataError: The state has no labels.
        """


PRIOR_EXAMPLES = 400
"""Weight of the identity in the covariance of LDA and KLDA, in training examples.

Chosen on training examples that no benchmark uses (`benchmarks/choose_prior.py`).
"""
MAX_EAGER_LABELS = 512
"""Up to this many labels, weights are solved for at the first use, which takes a few hundredths of a second.

With more labels, scores are computed in float32, in half the time. They then differ from float64 by rounding: by 5e-8
in ridge outputs, by 5e-4 in log-probabilities down to -2,000 (2,000 labels, states of MiniLM).
"""


@dataclass(frozen=True, eq=False)
class _Scores(ABC):
    """Scores of one view of the features.

    Attributes:
        name: Registered name of the method.
        labels: The label of each column, in the state's order.
        feature_map: Maps features to the view.
        view: The view that is read.
    """

    name: str
    labels: tuple[str, ...]
    feature_map: FeatureMap
    view: View

    def scores(self, features: Tensor) -> Tensor:
        """Return scores `[n, C]`, float32, for features `[n, dim]`; do not change them in place."""
        return self._last_result.of(features, self._compute)

    @cached_property
    def _last_result(self) -> LastResult:
        """The last scores: selector and fusion read the scores of the same features."""
        return LastResult()

    def _compute(self, features: Tensor) -> Tensor:
        chunks = self.feature_map.chunks(features)
        return torch.cat([self._score_rows(self.feature_map.view(self.view, chunk)) for chunk in chunks]).float()

    @abstractmethod
    def _score_rows(self, rows: Tensor) -> Tensor:
        """Return scores `[n, C]` for rows of the view, float64 `[n, D]` in grid units."""


@dataclass(frozen=True, eq=False)
class CosineScores(_Scores):
    """Cosines with the columns of a matrix.

    Attributes:
        weights: Columns of norm 1, float64 `[D, C]`.
    """

    weights: Tensor

    def _score_rows(self, rows: Tensor) -> Tensor:
        return normalize(rows) @ self.weights


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """Scores `x W + bias`.

    Attributes:
        weights: W `[D, C]`.
        bias: `[C]`.
    """

    weights: Tensor
    bias: Tensor


class _System(ABC):
    """A linear system for every label, with the matrix F `[D, D]`.

    Args:
        factor: Factor of F.
        moments: Right-hand sides, float64 `[D, C]`.
        dtype: The dtype of the weights.
    """

    def __init__(self, factor: Factor, moments: Tensor, dtype: torch.dtype) -> None:
        self.factor = factor
        self.moments = moments
        self.dtype = dtype

    @abstractmethod
    def solution(self) -> _Linear:
        """Solve for the weights."""

    @abstractmethod
    def outputs(self, rows: Tensor) -> Tensor:
        """Return what the solution gives for rows `[n, D]`, without solving for the weights."""


@dataclass(frozen=True, eq=False)
class SolvedScores(_Scores):
    """Scores whose weights are the solution of a linear system for every label.

    Solving costs D^2 for each of C labels; scoring a row without the weights costs D^2 too. So with very many labels,
    the weights are solved for only after C rows have been scored: learning a task scores a few hundred rows, however
    many labels there are. Once solved, the system is no longer kept: its matrix is larger than the weights.

    Attributes:
        system: The system.
        centre: Subtracted from all rows `[D]`, or None.
        log_softmax: Whether scores are log-probabilities.
        at_once: Whether to solve for the weights at the first use, however many labels there are.
    """

    system: InitVar[_System]
    centre: Tensor | None = field(default=None, kw_only=True)
    log_softmax: bool = field(default=False, kw_only=True)
    at_once: bool = field(default=False, kw_only=True)
    _solved: list[_System | _Linear] = field(default_factory=list, init=False, repr=False)
    _rows_scored: list[int] = field(default_factory=lambda: [0], init=False, repr=False)

    def __post_init__(self, system: _System) -> None:
        self._solved.append(system)

    @property
    def solved(self) -> bool:
        """Whether the weights have been solved for, and the system is no longer kept."""
        return isinstance(self._solved[0], _Linear)

    def _score_rows(self, rows: Tensor) -> Tensor:
        self._rows_scored[0] += len(rows)
        centred = rows if self.centre is None else rows - self.centre
        solved = self._solved[0]
        if isinstance(solved, _System) and (
            self.at_once or len(self.labels) <= max(MAX_EAGER_LABELS, self._rows_scored[0])
        ):
            solved = self._solved[0] = solved.solution()
        if isinstance(solved, _System):
            outputs = solved.outputs(centred)
        else:
            outputs = torch.addmm(solved.bias, centred.to(solved.weights.dtype), solved.weights)
        return outputs.log_softmax(dim=1) if self.log_softmax else outputs


class RidgeSystem(_System):
    """A ridge regression: outputs are `(x - mean) F^-1 R + share`, where R are the moments.

    Args:
        factor: As in `_System`.
        moments: As in `_System`.
        dtype: As in `_System`.
        mean: Mean of all rows learned `[D]`.
        share: Share of the examples with each label `[C]`.
    """

    def __init__(self, factor: Factor, moments: Tensor, dtype: torch.dtype, mean: Tensor, share: Tensor) -> None:
        super().__init__(factor, moments, dtype)
        self.mean = mean
        self.share = share

    def solution(self) -> _Linear:
        """Solve for the weights."""
        weights = self.factor.solve(self.moments).to(self.dtype)
        return _Linear(weights, (self.share - self.mean @ weights.double()).to(self.dtype))

    def outputs(self, rows: Tensor) -> Tensor:
        """Return what the solution gives for rows `[n, D]`."""
        solved = self.factor.solve((rows - self.mean).T).T.to(self.dtype)
        return torch.addmm(self.share.to(self.dtype), solved, self._right)

    @cached_property
    def _right(self) -> Tensor:
        return self.moments.to(self.dtype)


class DiscriminantSystem(_System):
    """Log-probabilities, up to a constant, of equally likely Gaussian classes with covariance F and means M.

    The moments are the means, and means and rows are centred at the mean of the means, which changes no probability and
    keeps sums small.
    """

    def solution(self) -> _Linear:
        """Solve for the weights."""
        return _Linear(self.factor.solve_upper(self._whitened).to(self.dtype), self._bias)

    def outputs(self, rows: Tensor) -> Tensor:
        """Return what the solution gives for rows `[n, D]`."""
        solved = self.factor.solve_lower(rows.T).T.to(self.dtype)
        return torch.addmm(self._bias, solved, self._right)

    @cached_property
    def _right(self) -> Tensor:
        return self._whitened.to(self.dtype)

    @cached_property
    def _whitened(self) -> Tensor:
        return self.factor.solve_lower(self.moments)

    @cached_property
    def _bias(self) -> Tensor:
        return (self._whitened.square().sum(dim=0) / -2).to(self.dtype)


def _dtype_of_weights(labels: Sequence[str]) -> torch.dtype:
    return torch.float64 if len(labels) <= MAX_EAGER_LABELS else torch.float32


@dataclass(frozen=True)
class NearestMean:
    """The label with the nearest class mean; scores are cosines, -1 to 1.

    Cosine instead of Euclidean distance reduces the weight of the few examples with very large states. On the intents
    of CLINC150 with states of SmolLM2 it was better at every depth tried, by 0.3 to 11 points.
    """

    name: ClassVar[str] = "nearest-mean"
    view: ClassVar[View] = View.RAW

    def fit(self, state: ClosedFormState) -> CosineScores:
        """Compute the normalised means."""
        _check(state, self)
        weights = normalize(state.means(self.view)).T.contiguous()
        return CosineScores(self.name, state.labels, state.feature_map, self.view, weights)


@dataclass(frozen=True)
class LinearDiscriminant:
    """Linear discriminant analysis: Gaussian classes with a shared covariance; scores are log-probabilities.

    The covariance is pooled over labels and shrunk: `(1 - s) S + s tr(S)/D I`. The prior over labels is uniform: label
    frequencies in training do not predict those in use.

    Args:
        shrinkage: `s`, above 0 and up to 1. None means `PRIOR_EXAMPLES / (PRIOR_EXAMPLES + n)` for n training examples:
            a few hundred examples say little about a covariance of thousands of dimensions.
    """

    shrinkage: float | None = None
    name: ClassVar[str] = "lda"
    view: ClassVar[View] = View.RAW

    def __post_init__(self) -> None:
        if self.shrinkage is not None and not 0 < self.shrinkage <= 1:
            raise ConfigError(f"{self.name}: shrinkage is {self.shrinkage}; give a number above 0 and up to 1")

    def fit(self, state: ClosedFormState) -> SolvedScores:
        """Compute the factor and the means."""
        _check(state, self)
        factor = self._factor(state)
        means = state.means(self.view).T
        centre = means.mean(dim=1)
        return SolvedScores(
            self.name,
            state.labels,
            state.feature_map,
            self.view,
            DiscriminantSystem(factor, means - centre.unsqueeze(1), _dtype_of_weights(state.labels)),
            centre=centre,
            log_softmax=True,
            at_once=state.solve_at_once,
        )

    def _factor(self, state: ClosedFormState) -> Factor:
        """Return the factor of the shrunk covariance; computed once for statistics without and with `refit`."""
        key = self.view, self.shrinkage
        kept = {} if state.factors is None else state.factors
        known: Factor | None = kept.pop(key, None) if state.refit else None
        if known is not None:
            return known
        within = state.gram.products[self.view] - state.between(self.view)  # its lower triangle
        freedom = state.gram.count - len(state.labels)
        shrinkage = PRIOR_EXAMPLES / (PRIOR_EXAMPLES + state.gram.count) if self.shrinkage is None else self.shrinkage
        factor = Factor.of(*shrunk_covariance(within, freedom, shrinkage))
        if not state.refit:
            kept[key] = factor
        return factor


@dataclass(frozen=True)
class KernelDiscriminant(LinearDiscriminant):
    """`LinearDiscriminant` on random Fourier features of the RBF kernel: KLDA (Momeni et al. 2024, arXiv 2412.15571).

    KLDA inverts the pooled scatter with a pseudo-inverse and tunes the kernel's width for each data set; here the
    covariance is shrunk as for LDA, and the width is fixed relative to the features (`FeatureMap.bandwidth`). KLDA's
    ensembles over several random maps are not implemented.
    """

    name: ClassVar[str] = "klda"
    view: ClassVar[View] = View.FOURIER


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on one-hot labels; scores are the outputs of the regression, about 0 to 1.

    The intercept is not penalised. It comes from exact centring with the sums: a constant feature would need a scale,
    and a large common mean would make the system ill-conditioned. As outputs are linear in the targets, the output for
    a group of labels (a task) is the sum of their outputs.

    Args:
        strength: The penalty as a share of the mean variance over dimensions times the number of examples
            (`trace / D` of the centred Gram), so that its meaning does not depend on the number or order of examples.
            Above 0. The default was within one point of the best from 0.01 to 3 on the intents of CLINC150 with states
            of SmolLM2, for both views.
    """

    strength: float = 0.1
    name: ClassVar[str] = "ridge"
    view: ClassVar[View] = View.RAW

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise ConfigError(f"{self.name}: strength is {self.strength}; give a number above 0")

    def fit(self, state: ClosedFormState) -> SolvedScores:
        """Compute factor and moments; the factor is reused as long as the state's Gram is the same object in memory."""
        _check(state, self)
        total, share = state.gram.sums[self.view], state.counts.double() / state.gram.count
        system = RidgeSystem(
            state.gram.factor(self.view, self.strength),
            state.sums(self.view).T.addr_(total, share, alpha=-1),
            _dtype_of_weights(state.labels),
            mean=total / state.gram.count,
            share=share,
        )
        return SolvedScores(self.name, state.labels, state.feature_map, self.view, system, at_once=state.solve_at_once)


@dataclass(frozen=True)
class ProjectedRidge(Ridge):
    """`Ridge` on the rectified random projection: RanPAC (McDonnell et al. 2023, arXiv 2307.02251).

    RanPAC scores `h (G + penalty I)^-1 C`, where `C` are the class sums of `h`. This class adds an intercept and fixes
    the penalty relative to the variance of `h`; RanPAC tunes it on held-out data after every task.
    """

    name: ClassVar[str] = "projected-ridge"
    view: ClassVar[View] = View.PROJECTED


@dataclass(frozen=True, eq=False)
class LogisticScores(_Scores):
    """Log-probabilities of logistic regressions, each over the labels of one kind of input.

    Attributes:
        weights: The weights for each kind.
    """

    weights: tuple[LogisticWeights, ...]

    def _compute(self, features: Tensor) -> Tensor:
        column = {label: index for index, label in enumerate(self.labels)}
        scores = torch.full((len(features), len(self.labels)), -torch.inf, dtype=torch.float32)
        for weights in self.weights:
            scores[:, [column[label] for label in weights.labels]] = weights.logits(features).log_softmax(dim=1)
        return scores

    def _score_rows(self, rows: Tensor) -> Tensor:
        raise NotImplementedError("logistic regression reads the features themselves")


@dataclass(frozen=True)
class TrainedLogistic:
    """Logistic regression, trained as tasks come and go; scores are log-probabilities among labels of one kind."""

    name: ClassVar[str] = LogisticRegression.name
    view: ClassVar[View] = View.RAW

    def fit(self, state: ClosedFormState) -> LogisticScores:
        """Return the classifier with the weights of the state; nothing is trained."""
        _check(state, self)
        if not state.logistic:
            raise ConfigError(
                f"{self.name}: these statistics hold no trained weights; use a method that trains them ('logistic', "
                "'dynamic')"
            )
        return LogisticScores(self.name, state.labels, state.feature_map, self.view, state.logistic)


def _check(state: ClosedFormState, method: ClosedFormEstimator) -> None:
    if method.view not in state.feature_map.views:
        raise ConfigError(
            f"{method.name} reads the {method.view} view, but these statistics include only "
            f"{', '.join(state.feature_map.views)}: a view must be included from the first task on; make a new "
            "workspace"
        )
    if not state.labels:
        raise DataError("a closed-form classifier needs at least one label, but no task has been learned: learn one")
