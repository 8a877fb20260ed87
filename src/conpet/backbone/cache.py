"""Prefix states kept on disk: a byte-limited, least-recently-used SQLite file shared by processes and threads.

A cache must never stop the work it speeds up. Nothing that happens to the file reaches the caller: a damaged row is
a miss, a damaged file is made anew, and where the disk cannot be used there is one warning and no cache.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from filelock import FileLock

from conpet.backbone import cache_file
from conpet.backbone.cache_codec import CachedState, decode, encode
from conpet.cost import meter
from conpet.errors import ConfigError

__all__ = ["CachedState", "StateCache"]

Item = TypeVar("Item")
_BUSY_SECONDS = 20.0
_ROWS_PER_QUERY = 500
_BYTES_PER_TRANSACTION = 16 << 20


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


class StateCache:
    """States on disk by key; safe to share between threads and processes, and after a fork or a kill.

    Closing frees the file; a closed cache opens again when used.

    Args:
        path: The SQLite file; made where missing, with its folders.
        limit_bytes: Largest size of the file, above 0; its write-ahead log (some 16 MB at most) comes on top.
        clock: Gives the time in seconds.
        touch_seconds: How exact the order of use is: a row's time of use is written at most once in so many seconds,
            so that reading hardly ever writes.
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
                f"limit_bytes is {limit_bytes}; a cache needs at least 1 (leave the cache out to have none)"
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
        """Return the states of those keys that are there.

        They are read in the order in which they lie in the file, so that the system reads ahead. (To map the file into
        memory was no quicker then, and a damaged one could end the process.)
        """
        ids = sorted(row for some in _in_queries(keys) for row in self._located(some))
        wanted = set(keys)
        found: dict[bytes, CachedState] = {}
        for some_ids in _in_queries(ids):
            # An id may be another key's by now.
            found |= {key: state for key, state in self._read(some_ids).items() if key in wanted}
        costs = meter()
        costs.cache_hits += sum(key in found for key in keys)
        costs.cache_lookups += len(keys)
        return found

    def put_many(self, items: Iterable[tuple[bytes, CachedState]]) -> None:
        """Store states; a key that is there keeps what it has. Those used longest ago make room."""
        most = min(_BYTES_PER_TRANSACTION, self.limit_bytes // 4)
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        # Rows are encoded before a transaction begins: `items` may compute for long, and must not hold up the others.
        for key, state in items:
            blob = encode(key, state)
            cost = cache_file.cost(blob)
            if cost > self.limit_bytes:
                continue
            if rows and size + cost > most:
                self._put(rows)
                rows, size = [], 0
            rows.append((key, blob))
            size += cost
        if rows:
            self._put(rows)

    def clear(self) -> None:
        """Forget every example and give the file's space back."""
        with self._guarded(writing=True) as connection:
            if connection is None:
                return
            with cache_file.transaction(connection):
                cache_file.clear(connection)
            cache_file.shrink(connection, 0)

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
        rows: list[cache_file.Found] = []
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
            self._keep_books(now, stale, damaged)
        return found

    def _keep_books(self, now: int, stale: Sequence[int], damaged: Sequence[int]) -> None:
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
        """Give the open connection, or None where there is no cache; swallow every failure of the file."""
        with self._lock:
            connection = None
            try:
                if self._readable and (self._writable or not writing):
                    connection = self._open()
            except (*cache_file.FAILURES, OSError) as error:
                self._suffer(error, writing=False)
            try:
                yield connection
            except cache_file.FAILURES as error:
                self._suffer(error, writing=writing)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes must not both set up a new file, or one throw away what the other has just made anew.
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

    def _suffer(self, error: Exception, *, writing: bool) -> None:
        """Take a failure of the file: make it anew, let it pass, or stop caching."""
        if cache_file.is_damage(error):
            self._make_anew(error)
            return
        if cache_file.is_busy(error):
            return  # others write: this time without the cache
        self._writable = False
        self._readable = writing and self._connection is not None
        off = "no more states are kept" if self._readable else "states are not cached"
        warnings.warn(
            f"the state cache {self.path} cannot be used ({error}): {off} and will be computed again when needed; "
            "make room there or choose another folder with CONPET_HOME",
            RuntimeWarning,
            stacklevel=2,
        )

    def _make_anew(self, error: Exception) -> None:
        self._drop()
        try:
            with FileLock(f"{self.path}.lock", timeout=_BUSY_SECONDS):
                self._discard(error)
        except OSError as failure:
            self._suffer(failure, writing=False)

    def _discard(self, error: Exception) -> None:
        """Remove the damaged file, unless another process has already put a new one in its place."""
        self._drop()
        if self._inode and self.path.exists() and self.path.stat().st_ino != self._inode:
            return
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        reason = f"the state cache {self.path} was damaged ({error}); it starts empty, nothing else is lost"
        warnings.warn(reason, RuntimeWarning, stacklevel=2)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _in_queries(values: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut values into as many as a statement takes at once."""
    return (values[start : start + _ROWS_PER_QUERY] for start in range(0, len(values), _ROWS_PER_QUERY))


def _close_around_forks(cache: StateCache) -> None:
    """Close the file before each fork; parent and child open it again. SQLite's locks do not survive a fork."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(cache)
    held: list[StateCache] = []

    def before() -> None:
        living = reference()
        if living is not None:
            living._lock.acquire()
            living._drop()
            held.append(living)

    def after() -> None:
        while held:
            held.pop()._lock.release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
