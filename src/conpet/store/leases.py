"""Leases: a reader prevents the writer from deleting objects that it may still read.

A lease is a shared `flock` on `leases/<generation>`. It costs a reader one open file, needs no write to the database
and ends with the process in any case. The writer deletes an object released by event e only when no lease on a
generation before e is held.

A reader takes the lease first and then reads its snapshot. Objects deleted before the lease became visible had been
released by a committed event, so the snapshot does not refer to them; objects released later are kept.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path


class Lease:
    """A shared lock held through an open file, until `release` or the garbage collector.

    Args:
        descriptor: The open, locked file.
    """

    def __init__(self, descriptor: int) -> None:
        # Closing instead of unlocking keeps the lease of the parent when a forked child drops its copy.
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """End the lease; further calls have no effect."""
        self._close()


def take_lease(folder: Path, generation: int) -> Lease:
    """Keep all objects in use at `generation` or later on disk."""
    while True:
        descriptor = os.open(folder / str(generation), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return Lease(descriptor)
        os.close(descriptor)  # the writer removed the stale file between open and flock


def oldest_lease(folder: Path, current: int) -> int:
    """Return the oldest generation leased, or `current` if none is older, and remove the files of ended leases."""
    generations = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    held = [generation for generation in generations if generation < current and not _end(folder / str(generation))]
    return min(held, default=current)


def _end(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # the file of another user can be locked but not written
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
