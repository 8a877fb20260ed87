"""Keeps the resident memory of a process small: fewer compiled kernels, and freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

_KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
MOST_KERNELS = 160
"""Compiled matrix products that oneDNN keeps; each takes up to 0.6 MB. Its own limit is 1,024."""


def limit_kernels() -> None:
    """Limit the compiled matrix products that oneDNN keeps, least recently used first, unless the user set a limit.

    Has no effect if oneDNN has computed anything in this process before.
    """
    os.environ.setdefault(_KERNELS, str(MOST_KERNELS))


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
