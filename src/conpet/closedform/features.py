"""From float features to whole numbers, so that sums over examples are exact in any order."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from conpet.errors import ConfigError, DataError

STEPS = 1024
"""Grid steps per unit: a feature x is kept as the whole number round(x * STEPS)."""
RADIUS = 16
"""Features beyond this many units are clipped."""
MAX_EXAMPLES = 2**25
"""Products of two grid values are at most 2**28: sums of so many of them stay below 2**53 and lose no bit."""

_BYTES = 8
_BYTE_DEVIATION = math.sqrt((256**2 - 1) / 12)
_CHUNK_NUMBERS = 2**23


class View(StrEnum):
    """Which features a statistic or classifier is over."""

    RAW = "raw"
    PROJECTED = "projected"


@dataclass(frozen=True)
class FeatureMap:
    """Both views of a feature vector, as whole numbers held in float64 (in units of 1/`STEPS`).

    The raw view clips to +-`RADIUS` and rounds. The projected view is `relu(x W / sqrt(dim))`, on the same grid, with a
    fixed random `W` (the random projection of RanPAC, McDonnell et al. 2023, arXiv 2307.02251). Entries of `W` are sums
    of eight random bytes: all but Gaussian, but whole numbers, so the product with the raw view has no rounding either.
    A row's views thus depend on that row alone, to the bit, however rows are batched and whatever the machine.

    Args:
        dim: Width F of the features.
        projection: Width M of the projected view.
        seed: Seed of `W`, 0 or more.
    """

    dim: int
    projection: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or self.projection < 1 or self.seed < 0:
            raise ConfigError(f"{self}: dim and projection must be 1 or more, seed 0 or more")

    def width(self, view: View) -> int:
        """Return how many dimensions a view has."""
        return self.dim if view is View.RAW else self.projection

    def view(self, view: View, features: Tensor) -> Tensor:
        """Return the view asked for: float64 `[n, width(view)]`."""
        return self.raw(features) if view is View.RAW else self.projected(features)

    def raw(self, features: Tensor) -> Tensor:
        """Quantise features, about standardised, of shape `[n, dim]`.

        Returns:
            Whole numbers in +-`RADIUS * STEPS`, float64 `[n, dim]`.

        Raises:
            DataError: The shape is another, or a number is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise DataError(f"features have shape {list(features.shape)}; this map takes [n, {self.dim}]")
        exact = features.to("cpu", torch.float64)
        if not exact.isfinite().all():
            row = int((~exact.isfinite()).any(dim=1).nonzero()[0])
            raise DataError(f"features of row {row} (from 0) hold NaN or infinity; compute them in a wider dtype")
        return _on_grid(exact * STEPS)

    def projected(self, features: Tensor) -> Tensor:
        """Project, rectify and quantise features of shape `[n, dim]`.

        Returns:
            Whole numbers in 0 to `RADIUS * STEPS`, float64 `[n, projection]`; do not change them in place.

        Raises:
            DataError: The shape is another, or a number is not finite.
        """
        reference, view = self._latest.get("projected", (None, None))
        if reference is not None and view is not None and reference() is features:
            return view
        scale = 1 / (_BYTE_DEVIATION * math.sqrt(_BYTES * self.dim))
        weights = _random_weights(self.dim, self.projection, self.seed)
        view = _on_grid((self.raw(features) @ weights).relu_().mul_(scale))
        self._latest["projected"] = (weakref.ref(features, lambda _: self._latest.clear()), view)
        return view

    def chunks(self, features: Tensor) -> Iterator[Tensor]:
        """Split rows so that either view of a chunk takes about 64 MiB."""
        yield from torch.split(features, max(1, _CHUNK_NUMBERS // max(self.dim, self.projection)))

    @cached_property
    def _latest(self) -> dict[str, tuple[weakref.ref[Tensor], Tensor]]:
        """The projection computed last, as long as its features live: several classifiers ask for it in turn."""
        return {}


@lru_cache(maxsize=4)
def _random_weights(dim: int, projection: int, seed: int) -> Tensor:
    """Return `W` in whole numbers of at most 1020; their standard deviation is sqrt(8) times a random byte's."""
    draws = np.random.PCG64(seed).random_raw(dim * projection).astype("<u8")
    sums = draws.view(np.uint8).reshape(dim, projection, _BYTES).sum(axis=2, dtype=np.int16)
    return torch.from_numpy(sums - np.int16(_BYTES * 255 // 2)).to(torch.float64)


def _on_grid(values: Tensor) -> Tensor:
    return values.round_().clamp_(-RADIUS * STEPS, RADIUS * STEPS)
