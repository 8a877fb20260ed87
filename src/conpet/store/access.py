"""Which parts of a workspace this process may write, and reading the database where it may write nothing."""

from __future__ import annotations

import os
import pwd
import sqlite3
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from conpet.errors import ReadOnlyError
from conpet.store.layout import Layout

_NO_LOCKING = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
_RETRY_SECONDS = 0.01
_JOURNAL_MODE = slice(18, 20)
"""Bytes of a database file that say whether it has a write-ahead log (2) or none (1)."""


def require_writable(layout: Layout) -> None:
    """Raise `ReadOnlyError` unless everything in a workspace can be written; the message names what cannot."""
    for path in (layout.root, layout.database, *layout.folders):
        if reason := missing_right(path):
            raise ReadOnlyError(
                f"{layout.root} can be read but not changed: {path} {reason}. Change it as a user with write "
                "permission, or copy the folder and change the copy"
            )


def missing_right(path: Path) -> str | None:
    """Return why a file or folder cannot be written, as it continues its name, or None if it can."""
    effective = os.access in os.supports_effective_ids
    needed = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    if os.access(path, needed, effective_ids=effective):
        return None
    if not path.exists():
        return "is missing"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "is on a read-only file system"
    return f"is not writable for user {_user()}"


def connect_read_only(file: Path, wait_seconds: float) -> sqlite3.Connection:
    """Open a database without creating or changing any file; each connection sees a complete state.

    While a writer has the database open, its lock files are there, and SQLite takes part in the locking. Without them
    it cannot, so the connection gets a copy in memory, taken while no writer was at work.

    Args:
        file: The SQLite file, with or without a write-ahead log.
        wait_seconds: Most seconds to wait for a moment without a writer.
    """
    uri = f"{file.absolute().as_uri()}?mode=ro&readonly_shm=1"
    raw = sqlite3.connect(uri, uri=True, timeout=wait_seconds, isolation_level=None)
    try:
        raw.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raw.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_LOCKING:
            raise
        return _copied(file, wait_seconds)
    return raw


def _copied(file: Path, wait_seconds: float) -> sqlite3.Connection:
    content, log = _consistent(file, wait_seconds)
    memory = sqlite3.connect(":memory:", isolation_level=None)
    if not log:
        image = bytearray(content)
        image[_JOURNAL_MODE] = b"\1\1"  # SQLite opens no image in memory that has a log
        memory.deserialize(bytes(image))
        return memory
    with TemporaryDirectory(prefix="conpet-") as folder:  # SQLite applies the log to the copy
        copy = Path(folder) / file.name
        copy.write_bytes(content)
        _log_of(copy).write_bytes(log)
        raw = sqlite3.connect(copy, isolation_level=None)
        try:
            raw.backup(memory)
        finally:
            raw.close()
    return memory


def _consistent(file: Path, wait_seconds: float) -> tuple[bytes, bytes]:
    """Return the content of a database and its log as of one moment.

    A writer appends to the log, and copies the log into the file before it deletes the log. An unchanged log therefore
    makes up for whatever was being copied, and without a log, two equal readings of the file are of one state.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        log, content = _read_log(file), file.read_bytes()
        if _read_log(file) == log and (log or file.read_bytes() == content):
            return content, log
        if time.monotonic() > deadline:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        time.sleep(_RETRY_SECONDS)


def _read_log(file: Path) -> bytes:
    try:
        return _log_of(file).read_bytes()
    except FileNotFoundError:
        return b""


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _user() -> str:
    try:
        return repr(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:  # a container may run under a number without a name
        return str(os.geteuid())
