"""A folder that is read by a user who may not write it, whoever runs the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

NOBODY = 65534


@contextmanager
def public_folder() -> Iterator[Path]:
    """Yield a new folder that every user can read; pytest's own folders are private to the user who runs it."""
    folder = Path(mkdtemp(prefix="conpet-public-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        set_writable(folder, True)
        shutil.rmtree(folder)


def set_writable(folder: Path, wanted: bool) -> None:
    """Give or take away every user's right to write a folder and everything in it; root keeps it."""
    for path in (folder, *folder.rglob("*")):
        readable = 0o555 if path.is_dir() else 0o444
        path.chmod(readable | 0o200 if wanted else readable)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user without special rights: root becomes nobody during the block, and anyone else stays who they are."""
    if os.geteuid():
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def reading_only(folder: Path) -> Iterator[None]:
    """Be a user who can read a folder, and write nothing in it."""
    set_writable(folder, False)
    try:
        with unprivileged():
            assert not os.access(folder, os.W_OK, effective_ids=True)
            assert os.access(folder, os.R_OK | os.X_OK, effective_ids=True)
            yield
    finally:
        set_writable(folder, True)
