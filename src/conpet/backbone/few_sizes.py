"""Batched products of few sizes. Kernels for 16-bit products are compiled for each size and stay in memory."""

from __future__ import annotations

from collections.abc import Iterator

_BITS = 2
"""Sizes are powers of 4: half as many as powers of 2, and most batches still take at most two products."""


def in_few_sizes(count: int) -> Iterator[slice]:
    """Divide a number of examples into parts of few sizes, largest first."""
    start = 0
    while start < count:
        size = 1 << ((count - start).bit_length() - 1) // _BITS * _BITS
        yield slice(start, start + size)
        start += size
