"""Symmetric positive definite systems, solved in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factor:
    """Cholesky factor of a symmetric matrix plus a multiple of the identity.

    Attributes:
        lower: The factor, float64 `[D, D]`.
    """

    lower: Tensor

    @classmethod
    def of(cls, matrix: Tensor, ridge: float) -> Factor:
        """Factor `matrix + ridge * I`.

        The ridge grows tenfold for as long as rounding leaves the sum short of positive definite.

        Args:
            matrix: Symmetric, positive semi-definite but for rounding, float64 `[D, D]`; the sum is made in its place.
                Nothing above the diagonal is read.
            ridge: Above 0.
        """
        added = 0.0
        while True:
            matrix.diagonal().add_(ridge - added)
            lower, failed = torch.linalg.cholesky_ex(matrix)
            if not failed:
                return cls(lower)
            added, ridge = ridge, ridge * 10

    def solve(self, right: Tensor) -> Tensor:
        """Return x of `(matrix + ridge * I) x = right`, for `right` of shape `[D, C]`."""
        return torch.cholesky_solve(right, self.lower)

    def half(self, right: Tensor) -> Tensor:
        """Return `L^-1 right` for the factor L: the inner products of its columns are those of a Mahalanobis metric."""
        solved: Tensor = torch.linalg.solve_triangular(self.lower, right, upper=False)
        return solved

    def other_half(self, right: Tensor) -> Tensor:
        """Return `L^-T right`: of what `half` returned, the solution."""
        solved: Tensor = torch.linalg.solve_triangular(self.lower.T, right, upper=True)
        return solved
