"""API keys: made, listed, revoked and verified. Only a hash of a key is stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Column, Connection, DateTime, LargeBinary, MetaData, String, Table, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from conpet.errors import ConfigError, CorruptionError, UnknownNameError, did_you_mean
from conpet.store.actions import ActionLog
from conpet.store.chain import actor

KEYS = "keys.sqlite"
"""Default name of the file of keys, in the workspace's folder."""
MARK = "conpet"
"""First part of every key, so that secret scanners recognise it."""
NAME_LENGTH = 100
"""Most characters of the name of a key."""
_COST = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}
"""Parameters of scrypt: 16 MiB for each hash, and as much time as makes guessing slow."""
_HEADER = 28
"""Bytes at the start of a SQLite file, up to the counter that every change increments."""
_USED_SECONDS = 30.0
"""Least seconds between two notes of a key's use by the same process."""

_TABLES = MetaData()
_KEYS = Table(
    "keys",
    _TABLES,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("created", DateTime, nullable=False),
    Column("last_used", DateTime),
    Column("revoked", DateTime),
)


class Role(StrEnum):
    """What a key may do; each role may do all that the ones before it may."""

    PREDICT = "predict"
    LEARN = "learn"
    OPERATE = "operate"

    def allows(self, needed: Role) -> bool:
        """Return whether a key of this role may do what `needed` is needed for."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its secret; all times are in UTC.

    Attributes:
        id: Its public part.
        name: Name for people.
        role: What it may do.
        created: When it was made.
        last_used: When it was last used, to half a minute; None if never.
        revoked: When it was revoked, or None.
    """

    id: str
    name: str
    role: Role
    created: datetime
    last_used: datetime | None
    revoked: datetime | None


@dataclass(frozen=True, slots=True)
class _Stored:
    record: KeyRecord
    salt: bytes
    hash: bytes


class KeyStore:
    """The file of API keys. Threads and processes may share it; a running server sees every change at once.

    Args:
        file: The SQLite file; made with the first key, readable by its owner only.
        actions: Trail of the workspace that the keys are for; by default, the one in the folder of the file.
    """

    def __init__(self, file: Path, actions: ActionLog | None = None) -> None:
        self.file = file
        self._actions = actions or ActionLog(file.parent)
        self._engine = create_engine(f"sqlite+pysqlite:///{file}", poolclass=NullPool)
        self._lock = threading.Lock()
        self._stamp: object = None
        self._keys: dict[str, _Stored] = {}
        self._verified: dict[bytes, str] = {}
        self._noted: dict[str, float] = {}
        self._required = False

    def create(
        self, role: Role, name: str = "", *, by: str | None = None, key_id: str | None = None
    ) -> tuple[str, KeyRecord]:
        """Make a key and return it; it is shown this once and cannot be read again.

        Args:
            role: What it may do.
            name: Name for people.
            by: Who makes it; by default the actor of this process.
            key_id: Its public part, 12 hexadecimal digits; by default at random.

        Raises:
            ConfigError: The name is too long or has control characters, or there is a key with this id.
            ReadOnlyError: It cannot be recorded that it is made.
        """
        if len(name) > NAME_LENGTH or not name.isprintable():
            raise ConfigError(f"the name of a key has at most {NAME_LENGTH} printable characters")
        secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(16)
        key_id = secrets.token_hex(6) if key_id is None else key_id
        record = KeyRecord(key_id, name, role, _now(), None, None)
        self._make()
        with self._changing() as connection:
            if connection.execute(select(_KEYS.c.id).where(_KEYS.c.id == key_id)).first():
                raise ConfigError(f"there is a key with the id {key_id} already")
            connection.execute(
                _KEYS.insert().values(
                    id=key_id, name=name, role=str(role), salt=salt, hash=_hash(secret, salt), created=record.created
                )
            )
            self._record("key-made", record, by)
        return f"{MARK}_{key_id}_{secret}", record

    def list(self) -> list[KeyRecord]:
        """Return all keys, oldest first, revoked ones included."""
        return [stored.record for stored in self._read().values()]

    def revoke(self, key_id: str, *, by: str | None = None) -> KeyRecord:
        """Revoke a key; running servers refuse it from now on. One that is revoked does not change.

        Args:
            key_id: Its public part.
            by: Who revokes it; by default the actor of this process.

        Raises:
            UnknownNameError: There is no such key.
            ReadOnlyError: It cannot be recorded that it is revoked.
        """
        keys = self._read()
        if key_id not in keys:
            raise UnknownNameError(
                f"no key {key_id!r} in {self.file}{did_you_mean(key_id, keys)}; `conpet keys list` lists them"
            )
        with self._changing() as connection:
            unrevoked = (_KEYS.c.id == key_id) & _KEYS.c.revoked.is_(None)
            if connection.execute(_KEYS.update().where(unrevoked).values(revoked=_now())).rowcount:
                self._record("key-revoked", keys[key_id].record, by)
        return self._read()[key_id].record

    @property
    def required(self) -> bool:
        """Whether requests need a key: once a key was made, also if all are revoked."""
        self._required = self._required or bool(self._read())  # a file that is gone opens no server
        return self._required

    def cached(self, token: str) -> KeyRecord | None:
        """Return a key that this process verified before and that is not revoked; without scrypt."""
        key_id = self._verified.get(_digest(token))
        stored = self._read().get(key_id) if key_id else None
        return stored.record if stored and stored.record.revoked is None else None

    def verify(self, token: str) -> KeyRecord | None:
        """Return the key of a token, or None if there is none or it is revoked; slow on purpose (scrypt)."""
        mark, _, rest = token.partition("_")
        key_id, _, secret = rest.partition("_")
        stored = self._read().get(key_id) if mark == MARK else None
        salt, expected = (stored.salt, stored.hash) if stored else (bytes(16), bytes(32))
        equal = hmac.compare_digest(_hash(secret, salt), expected)
        if not equal or stored is None or stored.record.revoked is not None:
            return None
        with self._lock:
            self._verified[_digest(token)] = key_id
        return stored.record

    def find(self, key_id: str) -> KeyRecord | None:
        """Return a key that is not revoked, or None."""
        stored = self._read().get(key_id)
        return stored.record if stored and stored.record.revoked is None else None

    def mac(self, key_id: str, message: str) -> str | None:
        """Return a message authentication code that only servers with this file can make; None without such a key.

        It changes with the key, so what was signed for a key is of no use once the key is revoked.
        """
        stored = self._read().get(key_id)
        if stored is None or stored.record.revoked is not None:
            return None
        secret = hmac.digest(stored.hash, stored.salt, "sha256")
        return hmac.new(secret, message.encode(errors="replace"), "sha256").hexdigest()

    def is_due(self, key_id: str) -> bool:
        """Return whether a use of a key is worth a note: at most one in half a minute. Asking counts as noting."""
        now = time.monotonic()
        with self._lock:
            due = now - self._noted.get(key_id, -_USED_SECONDS) >= _USED_SECONDS
            if due:
                self._noted[key_id] = now
            return due

    def note_use(self, key_id: str) -> None:
        """Note that a key is used now; a file that cannot be written is left alone."""
        with suppress(DBAPIError, OSError), self._changing() as connection:
            connection.execute(_KEYS.update().where(_KEYS.c.id == key_id).values(last_used=_now()))

    def _record(self, verb: str, key: KeyRecord, by: str | None) -> None:
        self._actions.append(by or actor(), verb, key=key.id, name=key.name, role=str(key.role))

    def _make(self) -> None:
        """Make the file, if there is none, so that only its owner can read it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))
        with self._engine.begin() as connection:
            _TABLES.create_all(connection)

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection
        self._stamp = None

    def _read(self) -> dict[str, _Stored]:
        """Return all keys by id; read again only if the file has changed."""
        try:
            with self.file.open("rb") as file:
                stamp = (os.fstat(file.fileno()).st_ino, file.read(_HEADER))
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise PermissionError(
                f"the API keys in {self.file} cannot be read: only their owner may. Give the file to the user that "
                "runs the server (chown)"
            ) from error
        if not stamp[1]:  # being made
            return {}
        if stamp != self._stamp:
            try:
                with self._engine.begin() as connection:
                    rows = connection.execute(select(_KEYS).order_by(_KEYS.c.created)).all()
            except DBAPIError as error:
                raise CorruptionError(f"the keys in {self.file} cannot be read ({error.orig})") from error
            keys = {row.id: _Stored(_record(row), row.salt, row.hash) for row in rows}
            with self._lock:
                self._keys, self._stamp = keys, stamp
        return self._keys


def _record(row: object) -> KeyRecord:
    values = row._mapping  # type: ignore[attr-defined]
    times = [values[name] and values[name].replace(tzinfo=UTC) for name in ("created", "last_used", "revoked")]
    return KeyRecord(values["id"], values["name"], Role(values["role"]), *times)


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(errors="replace"), salt=salt, **_COST)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _now() -> datetime:
    return datetime.now(UTC)
