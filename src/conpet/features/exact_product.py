"""Exact products of whole numbers, by the processor's 8-bit instructions where it has them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from conpet.errors import check_memory

_ROWS, _WEIGHTS = 129, 9
"""A row's number is `129 a + b`, and a weight `9 c + d`, with 8-bit numbers a, b, c and d."""
MAX_ROW, MAX_WEIGHT = _ROWS * 127, _WEIGHTS * 127
"""Largest numbers of rows and weights."""
MAX_WIDTH = (1 << 31) // (1 << 14)
"""Sums of this many products of two 8-bit numbers fit into 32 bits."""
_BLOCK = 128
"""Rows per product. Fewer are filled up to a power of two, because kernels are compiled for each number of rows."""


class ExactProduct:
    """Multiplies rows of whole numbers by a matrix of whole numbers; the result is exact, so it has no rounding.

    With 8-bit instructions, this takes less time and memory than a product in float64.

    Args:
        weights: Whole numbers up to `MAX_WEIGHT`, int16 `[D, M]`.
    """

    def __init__(self, weights: Tensor) -> None:
        self._width = weights.shape[1]
        # Up to this width, weights are put together again in 32 bits.
        self._sums = torch.int32 if len(weights) <= MAX_WIDTH // (_WEIGHTS + 1) else torch.float64
        self._fast = len(weights) <= MAX_WIDTH and _has_instructions()
        if self._fast:
            high = (weights.float() / _WEIGHTS).round()
            parts = torch.cat([high, weights - _WEIGHTS * high], dim=1).to(torch.int8)
            self._weights = parts.T.contiguous().T  # the kernels read columns
        else:
            self._weights = weights.to(torch.float64)

    def of(self, rows: Tensor) -> Tensor:
        """Return the products, float64 `[n, M]`, of whole numbers up to `MAX_ROW`, float64 `[n, D]`."""
        if not self._fast:
            return rows @ self._weights
        products = rows.new_empty(len(rows), self._width)
        for block, into in zip(rows.split(_BLOCK), products.split(_BLOCK), strict=True):
            self._multiply(block, into)
        return products

    def _multiply(self, rows: Tensor, into: Tensor) -> None:
        count = len(rows)
        padded = 1 << (count - 1).bit_length()
        narrow = rows.float()
        high = (narrow / _ROWS).round_()
        parts = torch.zeros(2, padded, rows.shape[1], dtype=torch.int8)
        parts[0, :count], parts[1, :count] = high, narrow - _ROWS * high
        products = torch._int_mm(parts.flatten(0, 1), self._weights).view(2, padded, 2, self._width)
        high, low = products[:, :count].to(self._sums).unbind(dim=2)
        high_rows, low_rows = torch.add(low, high, alpha=_WEIGHTS)
        into.copy_(high_rows).mul_(_ROWS).add_(low_rows)


@cache
def _has_instructions() -> bool:
    """Tell whether 8-bit products are fast on this processor, and exact for the largest numbers.

    Without instructions made for them, sums of two products may be cut off at 16 bits.
    """
    try:
        if not torch.cpu._is_vnni_supported():
            return False
        signs = torch.tensor([1, -1, 1], dtype=torch.int8).repeat(40)
        rows, columns = 127 * signs.repeat(16, 1), 127 * signs.repeat(32, 1).T
        expected = torch.full((16, 32), len(signs) * 127**2, dtype=torch.int32)
        return torch.equal(torch._int_mm(rows, columns), expected)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        check_memory(error, "the processor was tested")
        return False
