"""Fit a calibration to scores of held-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from conpet.features.grouped_logsumexp import FLOOR
from conpet.refusal.calibration import ScopeCalibration, Source

_PRIOR_EXAMPLES = 2.0
"""Strength of the priors, in examples: of the slope at `_PRIOR_SLOPE`, of the temperature at 1."""
_PRIOR_SLOPE = 4.0
"""Slope of the prior, where a unit is half the distance between the medians of the two sides. It is even midway."""
_LOW = 0.1
"""The quantile of the scores of learned labels that defines their spread below the median."""
_LEAST_HALF = 0.05
_TEMPERATURES = (0.2, 10.0)
_STEPS = 24


def fit_scope(source: Source, known: Tensor, unknown: Tensor, unknown_share: float) -> ScopeCalibration:
    """Fit the probability of belonging to something learned.

    Logistic regression on asinh of the score, in which the two sides weigh as much as the shares of inputs expected.
    The scores of learned labels lie close together, those of unknown inputs are spread wide below: asinh, in units of
    the spread of the former, keeps the midpoint of the two near the learned labels.

    Args:
        source: What the scores come from.
        known: Scores of held-out examples of learned labels `[n]`, at least one.
        unknown: Scores of examples as if their label or task had not been learned `[m]`, at least one.
        unknown_share: Expected share of inputs that belong to nothing learned.
    """
    centre = known.double().median()
    spread = (centre - known.double().quantile(_LOW)).clamp(min=1e-3 * float(centre.abs()) + 1e-6)
    inside, outside = (torch.asinh((scores.double() - centre) / spread) for scores in (known, unknown))
    middle = (inside.median() + outside.median()) / 2
    half = ((inside.median() - outside.median()) / 2).clamp(min=_LEAST_HALF)
    inside, outside = (inside - middle) / half, (outside - middle) / half
    prior = torch.tensor([0.0, _PRIOR_SLOPE], dtype=torch.float64)
    weights = prior.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")
    strength = _PRIOR_EXAMPLES / (len(known) + len(unknown))

    def loss() -> Tensor:
        optimizer.zero_grad()
        a, b = weights[0], weights[1]
        value = (1 - unknown_share) * torch.nn.functional.softplus(-(a + b * inside)).mean()
        value = value + unknown_share * torch.nn.functional.softplus(a + b * outside).mean()
        value = value + strength * (weights - prior).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    intercept, slope = float(weights[0].detach()), max(float(weights[1].detach() / half), 0.0)
    counts = (0, 0) if source is Source.MEANS else (len(known), len(unknown))
    return ScopeCalibration(
        source,
        *counts,
        unknown_share,
        float(centre),
        float(spread),
        intercept - slope * float(middle),
        slope,
        scores=() if source is Source.MEANS else tuple(sorted(known.tolist())),
    )


def probability_of_scope(fitted: ScopeCalibration, scores: Tensor, unknown_share: float | None = None) -> Tensor:
    """Return the probability of belonging to something learned `[n]`, float64.

    Args:
        fitted: The fit.
        scores: The scores `[n]`.
        unknown_share: Expected share of inputs that belong to nothing learned; None for that of the fit.
    """
    shift = 0.0 if unknown_share is None else _odds(fitted.unknown_share) - _odds(unknown_share)
    distances = torch.asinh((scores.double() - fitted.centre) / fitted.scale)
    return torch.sigmoid(fitted.intercept + shift + fitted.slope * distances)


def _odds(share: float) -> float:
    return math.log(share / (1 - share))


def tempered(log_probabilities: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities `[n, C]` at a temperature; -inf stays."""
    return log_probabilities if temperature == 1 else torch.log_softmax(log_probabilities / temperature, dim=1)


def fit_temperature(log_probabilities: Tensor, targets: Tensor) -> float:
    """Return the temperature with the highest likelihood (Guo et al. 2017), under a prior at 1.

    Args:
        log_probabilities: Of held-out examples `[n, C]`.
        targets: Their classes `[n]`, at least one.
    """
    scores = log_probabilities.clamp(min=FLOOR)
    strength = _PRIOR_EXAMPLES / len(targets)

    def loss(log_temperature: float) -> float:
        predicted = torch.log_softmax(scores / math.exp(log_temperature), dim=1)
        nll = -float(predicted.gather(1, targets.unsqueeze(1)).mean())
        return nll + strength * log_temperature**2

    return math.exp(_minimum(loss, *map(math.log, _TEMPERATURES)))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimum of a function with one minimum, by golden-section search."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
