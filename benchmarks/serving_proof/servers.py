"""A server in a process of its own that can be killed and started again at the same address."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

START_SECONDS = 600.0
_MIB = 1 << 20


class Server:
    """`conpet serve` on a workspace. Kill and start it as often as you like; its address stays.

    Args:
        workspace: The workspace.
        folder: A folder for its log.
        settings: Settings, as with `--set`.
        environment: Further environment variables.
    """

    def __init__(
        self,
        workspace: Path,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.workspace = workspace
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._settings = settings or {}
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        options = [f"--set={name}={value}" for name, value in self._settings.items()]
        command = [sys.executable, "-m", "conpet", "serve", str(self.workspace), "--port", str(self.port), *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, env=self._environment)

    @property
    def pid(self) -> int:
        """Its first process: the server, or with several workers their supervisor."""
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[int]:
        """Return the processes that answer."""
        own = children(self.pid)
        return [pid for pid in own if "spawn_main" in command_of(pid)] or [self.pid]

    def job_process(self) -> int | None:
        """Return the process that runs jobs, if there is one."""
        every = [pid for pid in processes() if "conpet.jobs.process" in command_of(pid)]
        return next((pid for pid in every if str(self.workspace) in command_of(pid)), None)

    def is_ready(self) -> bool:
        """Return whether it takes requests."""
        return is_ready(self.url)

    def wait_until_ready(self) -> None:
        """Wait until it takes requests."""
        wait_for(self.is_ready, START_SECONDS, "the server is ready")

    def kill(self) -> None:
        """Kill its first process, as a crash would end it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start it again, as an init system does: until it stays, for its address may still be in use for a moment."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.start()
            wait_for(lambda: self._listens() or self._has_ended(), START_SECONDS, "the server listens again")
            if not self._has_ended():
                self.wait_until_ready()
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the server cannot be started again")

    def _listens(self) -> bool:
        """Return whether it, and not a process that is left of an earlier one, listens on the port."""
        listening = {f"socket:[{inode}]" for inode in listeners(self.port)}
        try:
            return any(str(link.readlink()) in listening for link in Path(f"/proc/{self.pid}/fd").iterdir())
        except OSError:
            return False

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End it in order, and then whatever is left of it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        wait_for(lambda: self.job_process() is None, 60, "the job's process ends")

    def mebibytes(self) -> float:
        """Return the resident memory of the processes that answer, without their shared libraries."""
        return sum(private_bytes(pid) for pid in self.workers()) / _MIB

    def errors(self) -> list[dict[str, Any]]:
        """Return the entries of the log about unexpected errors: answers with 500."""
        entries = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line[:1] == "{"]
        failed = {entry["request_id"] for entry in entries if entry["event"] == "request" and entry["status"] == 500}
        return [entry for entry in entries if entry["event"] == "error" and entry["request_id"] in failed]


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server until the end of the block."""
    server.start()
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def is_ready(url: str) -> bool:
    """Return whether a server takes requests."""
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait until a condition holds, or fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def listeners(port: int) -> list[str]:
    """Return the inodes of sockets that listen on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]


def processes() -> list[int]:
    """Return all processes."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    return [pid for pid in processes() if _parent_of(pid) == parent]


def command_of(pid: int) -> str:
    """Return the command of a process, or "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def private_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file backs, in bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon:")), "0 0")
    return int(line.split()[1]) * 1024


def kill(pid: int | None) -> bool:
    """Kill a process at once; return whether there was one."""
    try:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return pid is not None


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0
