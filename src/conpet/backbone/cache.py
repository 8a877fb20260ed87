"""Prefix states on disk: a size-limited, least-recently-used SQLite file shared by processes and threads.

The cache must never stop the work it speeds up, so no failure of the file reaches the caller: a damaged row is a miss,
a damaged file is replaced, and if the disk cannot be used, there is one warning and no cache.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from filelock import FileLock

from conpet.backbone import cache_file
from conpet.backbone.cache_codec import CachedState, decode, encode
from conpet.cost import meter
from conpet.errors import ConfigError, reason_of

__all__ = ["CachedState", "StateCache"]

Item = TypeVar("Item")
_BUSY_SECONDS = 20.0
_ROWS_PER_QUERY = 500
_BYTES_PER_TRANSACTION = 16 << 20


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


class StateCache:
    """States on disk by key; safe for threads and processes, and after a fork or a kill.

    A closed cache reopens its file on the next use.

    Args:
        path: The SQLite file; created with its folders if missing.
        limit_bytes: Largest size of the file, above 0, without its write-ahead log (at most about 16 MB).
        clock: Returns the time in seconds.
        touch_seconds: Shortest time between two updates of a row's time of use, so that reading rarely writes. The
            order of use is exact to this many seconds.
        connect: Opens the file.

    Example:
        >>> import tempfile, torch
        >>> cache = StateCache(Path(tempfile.mkdtemp()) / "states.sqlite", limit_bytes=1 << 20)
        >>> cache.put_many([(b"k" * 32, CachedState(torch.ones(3, 4, dtype=torch.bfloat16), torch.zeros(4)))])
        >>> cache.get_many([b"k" * 32])[b"k" * 32].hidden.shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        path: Path,
        *,
        limit_bytes: int,
        clock: Callable[[], float] = time.time,
        touch_seconds: float = 60.0,
        connect: Callable[[Path], sqlite3.Connection] = _connect,
    ) -> None:
        if limit_bytes <= 0:
            raise ConfigError(
                f"limit_bytes is {limit_bytes}; a cache needs at least 1 (pass no cache to disable caching)"
            )
        self.path = path
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._touch_seconds = touch_seconds
        self._connector = connect
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._readable = True
        self._writable = True
        self._lock = threading.Lock()
        _close_around_forks(self)

    @property
    def entries(self) -> int:
        """Number of examples in the file."""
        with self._guarded() as connection:
            return cache_file.count(connection) if connection else 0
        return 0

    @property
    def bytes_used(self) -> int:
        """Bytes of the file that are in use."""
        with self._guarded() as connection:
            return cache_file.bytes_used(connection) if connection else 0
        return 0

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, CachedState]:
        """Return the states of the keys that are in the cache.

        Rows are read in file order, so that the system reads ahead. (Mapping the file into memory was not faster, and a
        damaged file could then end the process.)
        """
        ids = sorted(row for part in _in_queries(keys) for row in self._located(part))
        requested = set(keys)
        found: dict[bytes, CachedState] = {}
        for part in _in_queries(ids):
            # An id may have been reused for another key.
            found |= {key: state for key, state in self._read(part).items() if key in requested}
        costs = meter()
        costs.cache_hits += sum(key in found for key in keys)
        costs.cache_lookups += len(keys)
        return found

    def put_many(self, items: Iterable[tuple[bytes, CachedState]]) -> None:
        """Store states; existing keys keep theirs. The least recently used rows are deleted if the file is full."""
        batch_bytes = min(_BYTES_PER_TRANSACTION, self.limit_bytes // 4)
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        # Encode rows before a transaction begins: `items` may compute for long and must not block other processes.
        for key, state in items:
            blob = encode(key, state)
            cost = cache_file.cost(blob)
            if cost > self.limit_bytes:
                continue
            if rows and size + cost > batch_bytes:
                self._put(rows)
                rows, size = [], 0
            rows.append((key, blob))
            size += cost
        if rows:
            self._put(rows)

    def clear(self) -> None:
        """Delete every example and return the file's space to the disk; the file itself, if the disk is full."""
        cleared = False
        with self._lock, suppress(*cache_file.FAILURES, OSError):
            connection = self._open()
            cache_file.overwrite_deleted(connection)
            with cache_file.transaction(connection):
                cache_file.clear(connection)
            cache_file.shrink(connection, 0)
            cache_file.empty_log(connection)
            cleared = True
        if not cleared and self.path.exists():
            with self._lock, FileLock(f"{self.path}.lock", timeout=_BUSY_SECONDS):
                self._drop()
                self._unlink()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _located(self, keys: Sequence[bytes]) -> list[int]:
        with self._guarded() as connection:
            return cache_file.locate(connection, keys) if connection else []
        return []

    def _read(self, ids: Sequence[int]) -> dict[bytes, CachedState]:
        rows: list[cache_file.Row] = []
        with self._guarded() as connection:
            if connection is not None:
                rows = cache_file.read(connection, ids)
        now = int(self._clock())
        found: dict[bytes, CachedState] = {}
        damaged: list[int] = []
        stale: list[int] = []
        for row, key, used, blob in rows:
            state = decode(key, blob) if key and blob else None
            if key is None or state is None:
                damaged.append(row)
                continue
            found[key] = state
            if now - (used or 0) >= self._touch_seconds:
                stale.append(row)
        if self._writable and (damaged or stale):
            self._update_rows(now, stale, damaged)
        return found

    def _update_rows(self, now: int, stale: Sequence[int], damaged: Sequence[int]) -> None:
        with self._guarded(writing=True) as connection:
            if connection is None:
                return
            with cache_file.transaction(connection):
                cache_file.touch(connection, stale, now)
                cache_file.delete(connection, damaged)

    def _put(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        now = int(self._clock())
        with self._guarded(writing=True) as connection:
            if connection is None:
                return
            with cache_file.transaction(connection):
                cache_file.make_room(connection, self.limit_bytes, sum(cache_file.cost(blob) for _, blob in rows))
                cache_file.insert(connection, rows, now)
                cache_file.make_room(connection, self.limit_bytes, 0)
            cache_file.shrink(connection, self.limit_bytes)

    @contextmanager
    def _guarded(self, *, writing: bool = False) -> Iterator[sqlite3.Connection | None]:
        """Yield the open connection, or None if the cache cannot be used; suppress every failure of the file."""
        with self._lock:
            connection = None
            try:
                if self._readable and (self._writable or not writing):
                    connection = self._open()
            except (*cache_file.FAILURES, OSError) as error:
                self._handle(error, writing=False)
            try:
                yield connection
            except cache_file.FAILURES as error:
                self._handle(error, writing=writing)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes must not both set up a new file, nor one discard a file that the other has just replaced.
        with FileLock(f"{self.path}.lock", timeout=_BUSY_SECONDS):
            try:
                self._connection = self._set_up()
            except cache_file.FAILURES as error:
                if not cache_file.is_damage(error):
                    raise
                self._discard(error)
                self._connection = self._set_up()
        return self._connection

    def _set_up(self) -> sqlite3.Connection:
        self._inode = 0
        connection = self._connector(self.path)
        try:
            cache_file.set_up(connection, _BYTES_PER_TRANSACTION)
            if cache_file.size(connection) > self.limit_bytes:
                with cache_file.transaction(connection):
                    cache_file.make_room(connection, self.limit_bytes, 0)
                cache_file.shrink(connection, self.limit_bytes)
        except BaseException:
            connection.close()
            raise
        self._inode = self.path.stat().st_ino
        return connection

    def _handle(self, error: Exception, *, writing: bool) -> None:
        """Handle a failure of the file: replace it, ignore the failure, or stop caching."""
        if cache_file.is_damage(error):
            self._replace(error)
            return
        if cache_file.is_busy(error):
            return  # other processes are writing: continue without the cache this time
        self._writable = False
        self._readable = writing and self._connection is not None
        effect = "no more states are cached" if self._readable else "states are not cached"
        warnings.warn(
            f"the state cache {self.path} cannot be used ({reason_of(error, self.path, advice=False)}): {effect} and "
            "will be computed again when needed; free some space, or set CONPET_HOME to another folder",
            RuntimeWarning,
            stacklevel=2,
        )

    def _replace(self, error: Exception) -> None:
        self._drop()
        try:
            with FileLock(f"{self.path}.lock", timeout=_BUSY_SECONDS):
                self._discard(error)
        except OSError as failure:
            self._handle(failure, writing=False)

    def _discard(self, error: Exception) -> None:
        """Remove the damaged file, unless another process has already replaced it."""
        self._drop()
        if self._inode and self.path.exists() and self.path.stat().st_ino != self._inode:
            return
        self._unlink()
        reason = (
            f"the state cache {self.path} was damaged ({error}) and is replaced by an empty one; nothing else is lost"
        )
        warnings.warn(reason, RuntimeWarning, stacklevel=2)

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _in_queries(values: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Divide values into parts that fit one SQL statement."""
    return (values[start : start + _ROWS_PER_QUERY] for start in range(0, len(values), _ROWS_PER_QUERY))


def _close_around_forks(cache: StateCache) -> None:
    """Close the file before each fork; parent and child reopen it. SQLite's locks do not survive a fork."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(cache)
    locked: list[StateCache] = []

    def before() -> None:
        live_cache = reference()
        if live_cache is not None:
            live_cache._lock.acquire()
            live_cache._drop()
            locked.append(live_cache)

    def after() -> None:
        while locked:
            locked.pop()._lock.release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
