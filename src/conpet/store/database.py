"""The SQLite file: connections, transactions, errors."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.pool import NullPool

from conpet.artifact import sync
from conpet.errors import ConpetError, CorruptionError, WorkspaceBusyError
from conpet.store.access import connect_read_only, missing_right
from conpet.store.schema import SCHEMA_VERSION, Base

BUSY_SECONDS = 60.0
"""Most seconds that a statement waits for another connection; the writer lock prevents longer waits."""

_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
"""Errors of a reader on a full disk, where SQLite cannot create the file that it shares in memory."""

_SETTLED_NS = 2_000_000_000
"""Two writes within this time may give a file the same timestamp, on file systems with coarse clocks."""


class Database:
    """Transactions on one SQLite file.

    Every transaction opens its own connection, so threads can share the object and it survives a fork. Where this
    process may not write, transactions can only read, and no file is created.

    Args:
        file: The SQLite file; it must exist unless `create` is called.
        tables: Its tables; by default those of a workspace.
        version: The version of its schema.
    """

    def __init__(self, file: Path, tables: MetaData = Base.metadata, version: int = SCHEMA_VERSION) -> None:
        self.file = file
        self._tables = tables
        self._version = version
        self._reading = _engine(lambda: _open_to_read(file))
        self._writing = _engine(lambda: connect(file, "rw"), begin="BEGIN IMMEDIATE")

    def create(self) -> None:
        """Create the file with all tables."""
        with translated(self.file), closing(connect(self.file, "rwc")) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute(f"PRAGMA user_version={self._version}")
        with self.write() as connection:
            self._tables.create_all(connection)

    def make(self, fill: Callable[[Connection], object] | None = None, *, private: bool = False) -> None:
        """Create the file with all tables, complete or not at all; keep that of another process that was faster.

        Args:
            fill: Writes the first rows, before anyone can see the file.
            private: Whether only its owner may read it.
        """
        aside = self.file.with_name(f".{self.file.name}.{secrets.token_hex(4)}")
        try:
            if private:
                aside.touch(mode=0o600)
            made = Database(aside, self._tables, self._version)
            made.create()
            if fill is not None:
                with made.write() as connection:
                    fill(connection)
            sync(aside)
            with suppress(FileExistsError):
                self.file.hardlink_to(aside)
        finally:
            for leftover in self.file.parent.glob(f"{aside.name}*"):
                leftover.unlink(missing_ok=True)
        sync(self.file.parent)

    def require_version(self, connection: Connection, advice: str) -> None:
        """Check that a file has the schema of this version of conpet.

        Args:
            connection: A connection to it.
            advice: What to do if it has another.

        Raises:
            CorruptionError: It has another.
        """
        schema = connection.execute(text("PRAGMA user_version")).scalar_one()
        if schema != self._version:
            raise CorruptionError(
                f"{self.file} has schema {schema}; this version of conpet reads schema {self._version}: {advice}"
            )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection on which all queries see the same state.

        Raises:
            CorruptionError: The file is damaged, or what it returns is not what conpet wrote.
        """
        try:
            with translated(self.file), self._reading.begin() as connection:
                yield connection
        except ConpetError:
            raise
        # A damaged value cannot be decoded, and a damaged schema lacks a column.
        except (ValueError, TypeError, LookupError, DBAPIError, NoResultFound) as error:
            raise _damaged(self.file, error) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection whose statements are committed together at the end, or rolled back on an error."""
        with translated(self.file), self._writing.begin() as connection:
            yield connection

    def scrub(self) -> bool:
        """Write the file anew without free pages and empty its log; return whether no reader prevented that."""
        with translated(self.file), closing(connect(self.file, "rw")) as raw:
            raw.execute("PRAGMA temp_store=MEMORY")  # what is deleted must not be copied to another folder
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            raw.execute("VACUUM")
            (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def stamp(self) -> tuple[tuple[int, int, int], ...] | None:
        """Return a value that changes with every commit of any process; equal stamps mean equal content.

        None if that is not certain without a query: after a very recent commit, because the next one might get the same
        stamp, or on a system that does not update the times of open files.
        """
        if os.name != "posix":
            return None
        try:
            stats = [self.file.stat()]
        except OSError:
            return None  # a query will report the error
        with suppress(FileNotFoundError):
            stats.append(self.file.with_name(f"{self.file.name}-wal").stat())
        if time.time_ns() - max(stat.st_mtime_ns for stat in stats) < _SETTLED_NS:
            return None
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def _engine(connect: Callable[[], sqlite3.Connection], begin: str = "BEGIN") -> Engine:
    engine = create_engine(
        "sqlite+pysqlite://",
        creator=connect,
        poolclass=NullPool,
        json_serializer=lambda value: json.dumps(value, ensure_ascii=False, allow_nan=False),
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _open_to_read(file: Path) -> sqlite3.Connection:
    if missing_right(file) or missing_right(file.parent):
        return connect_read_only(file, BUSY_SECONDS)
    try:
        return connect(file, "rw")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_ROOM:
            raise
        return connect_read_only(file, BUSY_SECONDS)


def connect(file: Path, mode: str, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a database file; its transactions are begun and ended by hand.

    Args:
        file: The file.
        mode: "rw", or "rwc" to create it.
        any_thread: Whether other threads than this one may use the connection, one at a time.
    """
    # With isolation_level=None the driver begins no transaction: the engine does, for reads too.
    raw = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=not any_thread,
    )
    try:
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA secure_delete=ON")  # removed data must not stay readable in free pages
        raw.execute("SELECT 1 FROM sqlite_master").fetchone()
    except BaseException:
        raw.close()
        raise
    return raw


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Translate SQLite errors about the disk into `OSError`s."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        translated = _translate(file, cause) if isinstance(cause, sqlite3.Error) else None
        if translated is None:
            raise
        raise translated from error


def _damaged(file: Path, error: Exception) -> CorruptionError:
    (reason, *_) = str(error).splitlines() or [type(error).__name__]
    return CorruptionError(f"{file} is damaged ({reason}); restore the workspace from a backup")


def _translate(file: Path, error: sqlite3.Error) -> OSError | None:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        code = sqlite3.SQLITE_FULL
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(file, error)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return WorkspaceBusyError(f"{file} is locked by another program ({error}); close it and try again")
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, f"no space left on the disk ({error})", str(file))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return PermissionError(errno.EACCES, f"cannot be opened or written ({error})", str(file))
        case sqlite3.SQLITE_IOERR:
            return OSError(errno.EIO, f"cannot be read or written ({error})", str(file))
        case _:
            return None
