"""Room on the disk that a workspace keeps, so that a change that frees storage works when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress

from conpet.store.layout import Layout

FREEING = frozenset({"remove", "retire", "drop", "forget"})
"""The changes that may use the room."""

_LOG_BYTES = 4 << 20
"""Room for the changed pages of the database and for SQLite's other files."""


def use_reserve(layout: Layout) -> None:
    """Give the room to the disk; the next `keep_reserve` takes it back."""
    layout.reserve.unlink(missing_ok=True)


def keep_reserve(layout: Layout, rewritten_bytes: int) -> None:
    """Keep room for a change that frees storage, if the disk has it.

    Args:
        layout: The paths of the workspace.
        rewritten_bytes: Size of the objects that such a change writes again.
    """
    wanted = rewritten_bytes + _LOG_BYTES
    with suppress(OSError):
        if layout.reserve.exists() and wanted <= layout.reserve.stat().st_size <= 2 * wanted:
            return
        use_reserve(layout)
        try:
            _allocate(layout, wanted)
        except OSError:
            use_reserve(layout)
            raise


def _allocate(layout: Layout, size: int) -> None:
    with layout.reserve.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.write(bytes(size))
