"""Leases: a reader prevents the writer from deleting objects that it may still read.

A lease is a shared `flock` on `leases/<generation>`. It costs a reader one open file, needs no write to the database
and ends with the process in any case. The writer deletes an object released by event e only when no lease on a
generation before e is held.

A reader takes the lease first and then reads its snapshot. Objects deleted before the lease became visible had been
released by a committed event, so the snapshot does not refer to them; objects released later are kept.

The writer creates the file of each generation, so that readers without write permission find it. If it is missing all
the same, such a reader locks the folder of the workspace, which keeps all objects.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path

from conpet.store.layout import Layout

_READ = os.O_RDONLY | os.O_CLOEXEC
_CANNOT_CREATE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.EDQUOT}


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


def take_lease(layout: Layout, generation: int) -> Lease:
    """Keep all objects in use at `generation` or later on disk."""
    while True:
        descriptor = _open(layout, generation)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return Lease(descriptor)
        os.close(descriptor)  # the writer removed the stale file between open and flock


def offer_lease(layout: Layout, generation: int) -> None:
    """Create the file of a generation for readers without write permission, if there is room on the disk."""
    with suppress(OSError):
        (layout.leases / str(generation)).touch()


def oldest_lease(layout: Layout, current: int) -> int:
    """Return the oldest generation leased, or `current` if none is older, and remove the files of ended leases."""
    if not _is_free(layout.root):
        return 0
    generations = sorted(int(path.name) for path in layout.leases.iterdir() if path.name.isdecimal())
    held = [number for number in generations if number < current and not _is_free(layout.leases / str(number))]
    return min(held, default=current)


def _open(layout: Layout, generation: int) -> int:
    path = layout.leases / str(generation)
    try:
        return os.open(path, _READ | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _CANNOT_CREATE:
            raise
    try:
        return os.open(path, _READ)
    except (FileNotFoundError, PermissionError):
        return os.open(layout.root, _READ)


def _is_free(path: Path) -> bool:
    """Return whether no reader holds a lock on a path; a file of a lease is then removed."""
    descriptor = os.open(path, _READ)  # the file of another user can be locked but not written
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.is_dir():
            path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
