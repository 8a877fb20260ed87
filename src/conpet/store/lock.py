"""The writer lock: only one process at a time changes a workspace."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from conpet.errors import WorkspaceBusyError

LOCK = "lock"
OWNER = "owner.json"


@contextmanager
def hold_lock(workspace: Path, verb: str, wait_seconds: float | None) -> Iterator[None]:
    """Hold the writer lock of `workspace`; the operating system frees it if the process dies.

    Args:
        workspace: The workspace's folder.
        verb: The operation, named in the message to waiting processes.
        wait_seconds: Most seconds to wait for another writer; 0 fails at once, None waits without limit.

    Raises:
        WorkspaceBusyError: If another writer still holds it after `wait_seconds`.
    """
    lock = FileLock(workspace / LOCK, timeout=-1 if wait_seconds is None else wait_seconds)
    try:
        lock.acquire()
    except Timeout:
        raise WorkspaceBusyError(
            f"{workspace} is being changed by {_describe_owner(workspace)}; "
            "try again later, wait longer, or stop it (a stopped writer leaves the workspace consistent)"
        ) from None
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since": _now()}
        with suppress(OSError):  # a full disk: waiting processes are told about "another process"
            (workspace / OWNER).write_text(json.dumps(owner), encoding="utf-8")
        try:
            yield
        finally:
            (workspace / OWNER).unlink(missing_ok=True)
    finally:
        lock.release()


def _describe_owner(workspace: Path) -> str:
    try:
        owner = json.loads((workspace / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} ({owner['verb']}, since {owner['since']})"
    except (FileNotFoundError, ValueError, KeyError):  # the other writer is just starting or ending
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
