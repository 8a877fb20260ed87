"""Quantise features to whole numbers, so that sums over examples are exact in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from conpet.errors import ConfigError, DataError
from conpet.features.exact_product import ExactProduct
from conpet.features.last_result import LastResult

STEPS = 1024
"""Grid steps per unit: a feature x is stored as round(x * STEPS)."""
RADIUS = 16
"""Features beyond this many units are clipped."""
MAX_EXAMPLES = 2**25
"""Products of two grid values are at most 2**28, so sums over this many examples stay at or below 2**53: exact."""

_BYTES = 8
_WEIGHT_DEVIATION = math.sqrt(_BYTES * (256**2 - 1) / 12)
_CHUNK_NUMBERS = 2**23
_TURN_BITS = 14
_TURN = 2**_TURN_BITS
"""Steps of a full turn: half a step changes a Fourier feature by less than half a grid step."""


class View(StrEnum):
    """A transformation of the features that statistics and classifiers read."""

    RAW = "raw"
    PROJECTED = "projected"
    FOURIER = "fourier"


@dataclass(frozen=True)
class FeatureMap:
    """The views of a feature vector, as whole numbers in float64 (in units of 1/`STEPS`).

    - raw: clipped to +-`RADIUS` and rounded.
    - projected: `relu(x W / sqrt(dim))`, on the same grid, with a fixed random `W` (the random projection of RanPAC,
      McDonnell et al. 2023, arXiv 2307.02251).
    - Fourier: `sqrt(2) cos(x W / sigma + b)`, on the same grid, with `b` uniform over a turn and `sigma = bandwidth
      sqrt(dim)` (Rahimi & Recht 2007). The mean product of two rows, `z z' / M`, approximates the RBF kernel
      `exp(-|x - x'|^2 / (2 sigma^2))` with an error of about `1 / sqrt(M)`. `|x - x'|^2` of two standardised rows is
      about `2 dim`, so a bandwidth of 1 is the median heuristic.

    Entries of `W` are sums of eight random bytes: nearly Gaussian, but whole numbers, so the product with the raw view
    is exact too. Angles are rounded to `2^14` steps of a turn and cosines come from a table, because the last bit of a
    computed cosine may depend on the position in a batch and on the machine. So the views of a row depend on that row
    alone, to the bit, on every machine and in every batch.

    Args:
        dim: Width F of the features.
        projection: Width M of the projected view and of the Fourier view.
        seed: Seed of `W` and `b`, 0 or more.
        bandwidth: Width of the RBF kernel in units of `sqrt(dim)`, above 0. The default was the best for `klda` among
            eleven values from 0.25 to 8 on validation examples: intents of CLINC150 and relations of FewRel, states of
            MiniLM, M = 2048. Narrower kernels were worse, the median heuristic by 0.2 and 2.4 points.
        views: The views that statistics include, in the order of `View`. A view of M dimensions takes `M^2 / 2`
            numbers, so include only views that are read.
    """

    dim: int
    projection: int = 2048
    seed: int = 0
    bandwidth: float = 4.0
    views: tuple[View, ...] = (View.RAW, View.PROJECTED)

    def __post_init__(self) -> None:
        if self.dim < 1 or self.projection < 1 or self.seed < 0:
            raise ConfigError(f"{self}: dim and projection must be 1 or more, seed 0 or more")
        if not 0 < self.bandwidth < math.inf:
            raise ConfigError(f"{self}: bandwidth must be a number above 0")
        if not self.views or self.views != tuple(view for view in View if view in self.views):
            raise ConfigError(
                f"{self}: views must be one or more of these, each once and in this order: {', '.join(View)}"
            )

    def width(self, view: View) -> int:
        """Return the number of dimensions of a view."""
        return self.dim if view is View.RAW else self.projection

    def view(self, view: View, features: Tensor) -> Tensor:
        """Return a view, included in `views` or not: float64 `[n, width(view)]`; do not change it in place.

        Raises:
            DataError: The shape is not `[n, dim]`, or a number is not finite.
        """
        compute = {View.RAW: self.raw, View.PROJECTED: self.projected, View.FOURIER: self.fourier}
        return self._last_results[view].of(features, compute[view])

    def raw(self, features: Tensor) -> Tensor:
        """Quantise features `[n, dim]`, which should be roughly standardised.

        Returns:
            Whole numbers in +-`RADIUS * STEPS`, float64 `[n, dim]`.

        Raises:
            DataError: The shape is not `[n, dim]`, or a number is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise DataError(f"features have shape {list(features.shape)}; this map takes [n, {self.dim}]")
        exact = features.to("cpu", torch.float64)
        if not exact.isfinite().all():
            row = int((~exact.isfinite()).any(dim=1).nonzero()[0])
            raise DataError(f"features of row {row} (from 0) contain NaN or infinity; use backbone.dtype=float32")
        return _on_grid(exact * STEPS)

    def projected(self, features: Tensor) -> Tensor:
        """Project, rectify and quantise features `[n, dim]`.

        Returns:
            Whole numbers in 0 to `RADIUS * STEPS`, float64 `[n, projection]`.

        Raises:
            DataError: The shape is not `[n, dim]`, or a number is not finite.
        """
        return _on_grid(self._products(features).relu_().mul_(1 / (_WEIGHT_DEVIATION * math.sqrt(self.dim))))

    def fourier(self, features: Tensor) -> Tensor:
        """Return quantised random Fourier features of features `[n, dim]`.

        Returns:
            Whole numbers in +-`sqrt(2) * STEPS`, float64 `[n, projection]`.

        Raises:
            DataError: The shape is not `[n, dim]`, or a number is not finite.
        """
        radian = _TURN / math.tau
        scale = radian / (STEPS * _WEIGHT_DEVIATION * self.bandwidth * math.sqrt(self.dim))
        angles = self._products(features).mul_(scale).round_().to(torch.int64)
        angles.add_(_random_phases(self.projection, self.seed)).bitwise_and_(_TURN - 1)
        return _cosines()[angles]

    def chunks(self, features: Tensor) -> Iterator[Tensor]:
        """Split rows so that any view of a chunk takes at most about 64 MiB."""
        rows = max(1, _CHUNK_NUMBERS // max(self.dim, self.projection))
        # A single chunk stays the same object, so that `view` recognises it.
        yield from torch.split(features, rows) if len(features) > rows else (features,)

    def _products(self, features: Tensor) -> Tensor:
        """Return `x W` in whole numbers, in units of `_WEIGHT_DEVIATION / STEPS`."""
        return _random_weights(self.dim, self.projection, self.seed).of(self.view(View.RAW, features))

    @cached_property
    def _last_results(self) -> Mapping[View, LastResult]:
        """The last result for each view."""
        return {view: LastResult() for view in View}


@lru_cache(maxsize=4)
def _random_weights(dim: int, projection: int, seed: int) -> ExactProduct:
    """Return products with `W`, whole numbers up to +-1020 with standard deviation `_WEIGHT_DEVIATION`."""
    draws = np.random.PCG64(seed).random_raw(dim * projection).astype("<u8")
    sums = draws.view(np.uint8).reshape(dim, projection, _BYTES).sum(axis=2, dtype=np.int16)
    return ExactProduct(torch.from_numpy(sums - np.int16(_BYTES * 255 // 2)))


@lru_cache(maxsize=4)
def _random_phases(projection: int, seed: int) -> Tensor:
    """Return `b` in steps of a turn, int64 `[projection]`, drawn independently of `W`."""
    draws = np.random.PCG64([seed, 1]).random_raw(projection)
    return torch.from_numpy((draws >> np.uint64(64 - _TURN_BITS)).astype(np.int64))


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """Return `sqrt(2) cos` at every step of a turn, on the grid."""
    cosines = (math.cos(math.tau * step / _TURN) for step in range(_TURN))
    return torch.tensor([round(math.sqrt(2) * STEPS * cosine) for cosine in cosines], dtype=torch.float64)


def _on_grid(values: Tensor) -> Tensor:
    return values.round_().clamp_(-RADIUS * STEPS, RADIUS * STEPS)
