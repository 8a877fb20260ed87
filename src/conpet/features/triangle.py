"""Store symmetric matrices as upper triangles, row by row: half the bytes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_BLOCK = 64


def packed(matrix: Tensor) -> Tensor:
    """Return the upper triangle of a symmetric matrix, float64 `[D, D]`, row by row: `[D (D + 1) / 2]`."""
    width, rows = len(matrix), matrix.numpy()
    upper = np.empty(width * (width + 1) // 2)
    for row, (first, last) in enumerate(_row_bounds(width)):
        upper[first:last] = rows[row, row:]
    return torch.from_numpy(upper)


def unpacked(upper: Tensor, width: int) -> Tensor:
    """Invert `packed`: return the symmetric matrix, float64 `[width, width]`."""
    values, matrix = upper.numpy(), np.empty((width, width))
    for row, (first, last) in enumerate(_row_bounds(width)):
        matrix[row, row:] = values[first:last]
    for start in range(0, width, _BLOCK):  # block by block, so that column reads stay in the processor's cache
        end = start + _BLOCK
        matrix[end:, start:end] = matrix[start:end, end:].T
        square = matrix[start:end, start:end]
        below = np.tril_indices(len(square), -1)
        square[below] = square.T[below]
    return torch.from_numpy(matrix)


def _row_bounds(width: int) -> list[tuple[int, int]]:
    ends = np.arange(width, 0, -1).cumsum().tolist()
    return list(zip([0, *ends], ends, strict=False))
