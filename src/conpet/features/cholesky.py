"""Solve symmetric positive definite systems in float64."""

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

        If rounding errors leave the sum not positive definite, the ridge is multiplied by 10 until it is.

        Args:
            matrix: Symmetric, positive semi-definite up to rounding, float64 `[D, D]`; changed in place. Only its lower
                triangle is read.
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
        """Return the solution x of `(matrix + ridge * I) x = right`, for `right` of shape `[D, C]`."""
        return torch.cholesky_solve(right, self.lower)

    def solve_lower(self, right: Tensor) -> Tensor:
        """Return `L^-1 right` for the factor L; inner products of its columns are those of the Mahalanobis metric."""
        solved: Tensor = torch.linalg.solve_triangular(self.lower, right, upper=False)
        return solved

    def solve_upper(self, right: Tensor) -> Tensor:
        """Return `L^-T right`; applied to the result of `solve_lower`, this is the solution."""
        solved: Tensor = torch.linalg.solve_triangular(self.lower.T, right, upper=True)
        return solved
