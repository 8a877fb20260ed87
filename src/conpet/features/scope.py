"""Whether an input belongs to something learned: relative Mahalanobis scores, in closed form from kept statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conpet.features.cholesky import Factor
from conpet.features.feature_map import FeatureMap, View
from conpet.features.statistics import ClosedFormState, shrunk_covariance

SHRINKAGE = 0.5
"""Share of the within-class covariance that is replaced by a multiple of the identity."""
GENERAL_EXAMPLES = 20.0
"""Weight of the mean of general language in the background, in examples. With it, a single label has a background."""
_JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class Scope:
    """The relative Mahalanobis score of some classes (Ren et al. 2021, arXiv 2106.09022), fitted to statistics.

        score(x, c) = (x - g)' B^-1 (x - g) - (x - m_c)' W^-1 (x - m_c)
        score(x)    = max over c of score(x, c)

    W is the within-class covariance, pooled over all labels and shrunk: `(1 - s) S + s tr(S)/D I`. The background B
    adds the scatter of the class means, `(1 - s)` times, about their weighted mean g. General language, whose mean is 0
    because features are standardised by it, counts in the background as one more class, of `GENERAL_EXAMPLES` examples.

    As B and W share the ridge, their difference acts only in the space that the means span. So a score costs two
    products of the features with matrices as wide as the number of classes, or D if that is less. Everything comes from
    exact sums, so learning in any order, or removing a task, gives the score of the remaining tasks.

    Attributes:
        feature_map: Maps features to rows.
        centre: g, float64 `[D]`.
        weights: `W^-1 (m_c - g)` in the columns, float32 `[D, C]`.
        offsets: `(m_c - g)' W^-1 (m_c - g)`, float32 `[C]`.
        background: H with `H H' = W^-1 - B^-1`, float32 `[D, r]`.
        deviations: `m_c - g`, float32 `[C, D]`.
        shares: The weight of each mean in B, float32 `[C]`.
    """

    feature_map: FeatureMap
    centre: Tensor
    weights: Tensor
    offsets: Tensor
    background: Tensor
    deviations: Tensor
    shares: Tensor

    @classmethod
    def fit(cls, statistics: ClosedFormState, columns: Tensor) -> Scope:
        """Compute the score of some classes.

        The factor of the covariance is kept with the statistics, unless these read storage.

        Args:
            statistics: The statistics of all tasks.
            columns: Indices of the classes that may be the answer, at least one.
        """
        view, count = View.RAW, statistics.gram.count
        factor = statistics.fitted.get(_FACTOR)
        if factor is None:
            within = statistics.gram.products[view] - statistics.between(view)
            factor = _within_factor(within, count - len(statistics.labels))
            if not statistics.gram.reads_storage:
                statistics.fitted[_FACTOR] = factor
        means = statistics.means(view)[columns]
        return cls._of(statistics.feature_map, factor, means, statistics.counts[columns].double())

    @classmethod
    def without_rows(cls, statistics: ClosedFormState, columns: Tensor, features: Tensor, classes: Tensor) -> Scope:
        """Compute the score as if some examples had not been learned: their rows are subtracted from the statistics.

        Args:
            statistics: The statistics of all tasks.
            columns: Indices of the classes that may be the answer.
            features: Features of the examples `[n, F]`.
            classes: The index of each one's class in `columns`; at least one example of a class remains.
        """
        view = View.RAW
        rows = statistics.feature_map.view(view, features)
        sums, counts = statistics.sums(view), statistics.counts.double()
        sums.index_add_(0, columns[classes], rows, alpha=-1)
        counts = counts.index_add(0, columns[classes], torch.ones(len(rows), dtype=torch.float64), alpha=-1)
        scaled = sums / counts.sqrt().unsqueeze(1)
        within = statistics.gram.products[view].addmm(rows.T, rows, alpha=-1).addmm_(scaled.T, scaled, alpha=-1)
        factor = _within_factor(within, int(counts.sum()) - len(counts))
        means = sums[columns] / counts[columns].unsqueeze(1)
        return cls._of(statistics.feature_map, factor, means, counts[columns])

    @classmethod
    def _of(cls, feature_map: FeatureMap, factor: Factor, means: Tensor, counts: Tensor) -> Scope:
        total = float(counts.sum()) + GENERAL_EXAMPLES
        centre = (counts / total) @ means
        deviations = means - centre
        whitened = factor.solve_lower(torch.cat([deviations, -centre.unsqueeze(0)]).T)
        shares = torch.cat([counts, counts.new_tensor([GENERAL_EXAMPLES])]) * ((1 - SHRINKAGE) / total)
        return cls(
            feature_map,
            centre,
            factor.solve_upper(whitened[:, :-1]).float(),
            whitened[:, :-1].square().sum(dim=0).float(),
            factor.solve_upper(_explained(whitened * shares.sqrt())).float(),
            deviations.float(),
            shares[:-1].float(),
        )

    def scores(self, features: Tensor) -> Tensor:
        """Return the score of each class `[n, C]`, float32, for features `[n, F]`; an input's score is the maximum."""
        return self._scores(*self._products(features))

    def scores_without(self, features: Tensor, own: Tensor, groups: Tensor) -> Tensor:
        """Return the scores of examples as if the group of classes of each had not been learned `[n, C]`.

        The means of the group are taken out of the background and get -inf. The within-class covariance keeps them.

        Args:
            features: Features `[n, F]`.
            own: The group of each example `[n]`.
            groups: The group of each class `[C]`.
        """
        products, projected = self._products(features)
        scores = self._scores(products, projected)
        for group in own.unique().tolist():
            rows, gone = own == group, groups == group
            towards = self.deviations[gone] @ self.background
            scale = self.shares[gone].sqrt()
            mutual = self.deviations[gone] @ self.weights[:, gone] - towards @ towards.T
            left = torch.eye(len(scale), dtype=torch.float32) - scale.unsqueeze(1) * mutual * scale
            lost = (products[rows][:, gone] - projected[rows] @ towards.T) * scale
            scores[rows] += (lost * torch.linalg.solve(left, lost.T).T).sum(dim=1, keepdim=True)
            scores[rows.unsqueeze(1) & gone] = -torch.inf
        return scores

    def scores_of_general(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return the scores of general language `[n, C]`: its mean, with the deviations of examples from their class.

        Args:
            features: Features of the examples `[n, F]`.
            classes: The class of each `[n]`.
        """
        rows = (self.feature_map.view(View.RAW, features) - 2 * self.centre).float() - self.deviations[classes]
        return self._scores(rows @ self.weights, rows @ self.background)

    @property
    def references(self) -> tuple[Tensor, Tensor]:
        """The score of each class mean `[C]`, and of the mean of general language `[1]`."""
        known = self.offsets - (self.deviations @ self.background).square().sum(dim=1)
        general = -self.centre.float().unsqueeze(0)
        return known, self._scores(general @ self.weights, general @ self.background).amax(dim=1)

    def _products(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products with the weights `[n, C]` and with the background `[n, r]`."""
        rows = (self.feature_map.view(View.RAW, features) - self.centre).float()
        return rows @ self.weights, rows @ self.background

    def _scores(self, products: Tensor, projected: Tensor) -> Tensor:
        return 2 * products - self.offsets - projected.square().sum(dim=1, keepdim=True)


_FACTOR = "scope: factor of the within-class covariance"


def _within_factor(within: Tensor, freedom: int) -> Factor:
    """Return the factor of the shrunk covariance, given the within-class scatter, of which only a triangle is valid."""
    return Factor.of(*shrunk_covariance(within, freedom, SHRINKAGE))


def _explained(scaled: Tensor) -> Tensor:
    """Return G with `G G' = I - (I + S S')^-1` for whitened means S `[D, C]`, as wide as the smaller dimension."""
    width, number = scaled.shape
    if number <= width:
        lower = torch.linalg.cholesky(torch.eye(number, dtype=scaled.dtype) + scaled.T @ scaled)
        solved: Tensor = torch.linalg.solve_triangular(lower, scaled.T, upper=False)
        return solved.T
    identity = torch.eye(width, dtype=scaled.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(identity + scaled @ scaled.T))
    factor: Tensor = torch.linalg.cholesky((1 + _JITTER) * identity - inverse)
    return factor
