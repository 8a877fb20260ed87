"""The state cache's SQLite file: its tables, the statements on them, and what its errors mean."""

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
# The casts hold the types even where the file is damaged: SQLite gives what it finds.
_LOCATE = "SELECT id FROM entries WHERE key IN ({})"
_SELECT = """
SELECT id, CAST(key AS BLOB), CAST(used AS INTEGER), CAST(blob AS BLOB)
FROM entries JOIN blobs USING (id) WHERE id IN ({}) ORDER BY id
"""
_OLDEST = "SELECT id, CAST(coalesce(bytes, 0) AS INTEGER) FROM entries ORDER BY used, id"
_INSERT = "INSERT INTO entries (key, used, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING id"
# Our statements never change, so one that fails of itself has met tables that are not (or no longer) ours.
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
# What a statement may raise: sqlite3 fails to decode the name in SQLite's message where the tables' names are damaged.
FAILURES = (sqlite3.Error, UnicodeDecodeError)
Found = tuple[int, bytes | None, int | None, bytes | None]
"""Id, key, time of last use and blob of an entry; None only where the file is damaged."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class DamageError(sqlite3.DatabaseError):
    """SQLite itself sees nothing wrong, yet the file is not what this module wrote."""


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: Exception) -> bool:
    """Say whether the file itself is at fault, so that only a new one helps."""
    cut_short = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ
    return cut_short or isinstance(error, (DamageError, UnicodeDecodeError)) or _code(error) in _DAMAGED


def is_busy(error: Exception) -> bool:
    """Say whether others held the file for too long."""
    return _code(error) in _BUSY


def set_up(connection: sqlite3.Connection, log_bytes: int) -> None:
    """Prepare a fresh connection; make the tables where the file is new."""
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
        raise DamageError(f"it has schema {version}, wanted {_SCHEMA_VERSION}")


def _scalar(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def cost(blob: bytes) -> int:
    """Return how many bytes of the file a blob takes with its entry, at most: whole pages."""
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
    """Return the ids of the entries under some keys. Blobs lie in the file in the order of their ids."""
    return [row for (row,) in connection.execute(_LOCATE.format(",".join("?" * len(keys))), keys)]


def read(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Found]:
    """Return those of some entries that are still there, in the order in which they lie in the file."""
    return connection.execute(_SELECT.format(",".join("?" * len(ids))), ids).fetchall()


def insert(connection: sqlite3.Connection, rows: Iterable[tuple[bytes, bytes]], now: int) -> None:
    """Insert keys with their blobs; those that are there stay as they are."""
    for key, blob in rows:
        made = connection.execute(_INSERT, (key, now, cost(blob))).fetchone()
        if made is not None:
            connection.execute("INSERT INTO blobs (id, blob) VALUES (?, ?)", (made[0], blob))


def touch(connection: sqlite3.Connection, ids: Iterable[int], now: int) -> None:
    """Note that some entries were used."""
    connection.executemany("UPDATE entries SET used = ? WHERE id = ?", [(now, row) for row in ids])


def delete(connection: sqlite3.Connection, ids: Iterable[int]) -> int:
    """Delete some entries; return how many there were."""
    rows = [(row,) for row in ids]
    connection.executemany("DELETE FROM blobs WHERE id = ?", rows)
    return connection.executemany("DELETE FROM entries WHERE id = ?", rows).rowcount


def clear(connection: sqlite3.Connection) -> None:
    """Delete every entry."""
    connection.execute("DELETE FROM blobs")
    connection.execute("DELETE FROM entries")


def make_room(connection: sqlite3.Connection, limit: int, incoming: int) -> None:
    """Delete the rows used longest ago until `incoming` bytes fit (or nothing is left).

    What a row frees is known only roughly, never too low: hence the loop, which measures the file each time.
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
            raise DamageError("its index names rows that are not there")


def shrink(connection: sqlite3.Connection, limit: int) -> None:
    """Give free pages above `limit` bytes back to the disk; those below are used again by later rows."""
    surplus = _scalar(connection, "PRAGMA page_count") - limit // _PAGE_BYTES
    if surplus > 0:
        # As a script: `execute` stops after the first page.
        connection.executescript(f"PRAGMA incremental_vacuum({surplus}); PRAGMA wal_checkpoint(PASSIVE);")
