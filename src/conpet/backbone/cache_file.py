"""The SQLite file of the state cache: tables, statements, and the meaning of errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_SCHEMA_VERSION = 1
_PAGE_BYTES = 4096
_ENTRY_BYTES = 192
_SCHEMA = """
CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE INDEX entries_by_use ON entries (used, id);
CREATE TABLE blobs (id INTEGER PRIMARY KEY, blob BLOB NOT NULL);
"""
# The casts guarantee the types even if the file is damaged: SQLite returns whatever it finds.
_LOCATE = "SELECT id FROM entries WHERE key IN ({})"
_SELECT = """
SELECT id, CAST(key AS BLOB), CAST(used AS INTEGER), CAST(blob AS BLOB)
FROM entries JOIN blobs USING (id) WHERE id IN ({}) ORDER BY id
"""
_OLDEST = "SELECT id, CAST(coalesce(bytes, 0) AS INTEGER) FROM entries ORDER BY used, id"
_INSERT = "INSERT INTO entries (key, used, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING id"
# These statements never change, so an error in one of them means that the tables are not as this module wrote them.
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
# Exceptions of a statement; sqlite3 cannot decode SQLite's error message if the tables' names are damaged.
FAILURES = (sqlite3.Error, UnicodeDecodeError)
Row = tuple[int, bytes | None, int | None, bytes | None]
"""Id, key, time of last use and blob of an entry; None only if the file is damaged."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class DamageError(sqlite3.DatabaseError):
    """SQLite reports no error, but the file is not what this module wrote."""


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: Exception) -> bool:
    """Tell whether the file is damaged and must be replaced."""
    cut_short = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ
    return cut_short or isinstance(error, (DamageError, UnicodeDecodeError)) or _code(error) in _DAMAGED


def is_busy(error: Exception) -> bool:
    """Tell whether other processes locked the file for too long."""
    return _code(error) in _BUSY


def set_up(connection: sqlite3.Connection, log_bytes: int) -> None:
    """Prepare a new connection; create the tables if the file is new."""
    if not _scalar(connection, "PRAGMA page_count"):
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {log_bytes}")
    version = _scalar(connection, "PRAGMA user_version")
    if version == 0 and not _scalar(connection, "SELECT count(*) FROM sqlite_master"):
        connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;")
    elif version != _SCHEMA_VERSION:
        raise DamageError(f"its schema version is {version}, expected {_SCHEMA_VERSION}")


def _scalar(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def cost(blob: bytes) -> int:
    """Return an upper bound on the bytes of the file that a blob and its entry take, in whole pages."""
    return -(-(len(blob) + _ENTRY_BYTES) // _PAGE_BYTES) * _PAGE_BYTES


def count(connection: sqlite3.Connection) -> int:
    """Return the number of entries."""
    return _scalar(connection, "SELECT count(*) FROM entries")


def size(connection: sqlite3.Connection) -> int:
    """Return the size of the file in bytes, free pages included."""
    return _scalar(connection, "PRAGMA page_count") * _PAGE_BYTES


def bytes_used(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file that are in use."""
    pages = _scalar(connection, "PRAGMA page_count") - _scalar(connection, "PRAGMA freelist_count")
    return pages * _PAGE_BYTES


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock; commit at the end, roll back on an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def locate(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[int]:
    """Return the ids of the entries with these keys. Blobs are stored in the file in order of id."""
    return [row for (row,) in connection.execute(_LOCATE.format(",".join("?" * len(keys))), keys)]


def read(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Row]:
    """Return the entries with these ids that still exist, in file order."""
    return connection.execute(_SELECT.format(",".join("?" * len(ids))), ids).fetchall()


def insert(connection: sqlite3.Connection, rows: Iterable[tuple[bytes, bytes]], now: int) -> None:
    """Insert keys with their blobs; existing keys are left unchanged."""
    for key, blob in rows:
        inserted = connection.execute(_INSERT, (key, now, cost(blob))).fetchone()
        if inserted is not None:
            connection.execute("INSERT INTO blobs (id, blob) VALUES (?, ?)", (inserted[0], blob))


def touch(connection: sqlite3.Connection, ids: Iterable[int], now: int) -> None:
    """Set the time of last use of entries."""
    connection.executemany("UPDATE entries SET used = ? WHERE id = ?", [(now, row) for row in ids])


def delete(connection: sqlite3.Connection, ids: Iterable[int]) -> int:
    """Delete entries; return how many existed."""
    rows = [(row,) for row in ids]
    connection.executemany("DELETE FROM blobs WHERE id = ?", rows)
    return connection.executemany("DELETE FROM entries WHERE id = ?", rows).rowcount


def clear(connection: sqlite3.Connection) -> None:
    """Delete every entry."""
    connection.execute("DELETE FROM blobs")
    connection.execute("DELETE FROM entries")


def overwrite_deleted(connection: sqlite3.Connection) -> None:
    """Overwrite what this connection deletes, so that it cannot be read in free pages."""
    connection.execute("PRAGMA secure_delete = ON")


def empty_log(connection: sqlite3.Connection) -> None:
    """Empty the write-ahead log, which holds former pages, unless another process is reading."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def make_room(connection: sqlite3.Connection, limit: int, incoming: int) -> None:
    """Delete the least recently used rows until `incoming` bytes fit (or no row is left).

    The recorded size of a row is an upper bound on what it frees, so the loop measures the file each time.
    """
    while (excess := bytes_used(connection) + incoming - limit) > 0:
        oldest = connection.execute(_OLDEST)
        rows: list[int] = []
        for row, length in oldest:
            rows.append(row)
            excess -= length
            if excess <= 0:
                break
        oldest.close()
        if not rows:
            return
        if not delete(connection, rows):
            raise DamageError("its index refers to rows that do not exist")


def shrink(connection: sqlite3.Connection, limit: int) -> None:
    """Return free pages above `limit` bytes to the disk; those below are reused by later rows."""
    surplus = _scalar(connection, "PRAGMA page_count") - limit // _PAGE_BYTES
    if surplus > 0:
        # As a script: `execute` stops after the first page.
        connection.executescript(f"PRAGMA incremental_vacuum({surplus}); PRAGMA wal_checkpoint(PASSIVE);")
