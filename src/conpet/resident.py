"""Keeps the resident memory of a process small: fewer compiled kernels, and freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

MOST_KERNELS = 224
"""Compiled matrix products that oneDNN keeps; each takes up to 0.3 MB. Its own limit is 1,024."""
_LIMITS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": MOST_KERNELS,
    # Torch's own cache keeps a description of each product, as large as the kernel. Layers share a few.
    "LRU_CACHE_CAPACITY": 16,
}
"""Environment variables with the limits of both caches, least recently used first."""


def limit_kernels() -> None:
    """Limit what is kept of compiled matrix products on a CPU, unless the user set the limits.

    Has no effect if torch has computed anything with them in this process before.
    """
    for name, most in _LIMITS.items():
        os.environ.setdefault(name, str(most))


def release_unused() -> None:
    """Return freed memory to the system, where the C library would keep it (glibc)."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None  # another C library
    return trim
