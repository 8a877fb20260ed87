"""Servers, library and client as processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.client import Plan

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server that is ready.

    Attributes:
        port: Its port on loopback.
        pid: Its process.
    """

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time of its process so far."""
        values = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / TICKS

    def memory_mb(self) -> float:
        """Return the resident memory of its process in MB, and what was moved to swap space."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return sum(map(int, re.findall(r"(?:VmRSS|VmSwap):\s*(\d+) kB", status))) * 1024 / 1e6


class Asked:
    """A process that answers each line of JSON with a line of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return the answer to a question."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """Return the next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args} has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(module: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a module in another process until the end of the block."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, text=True, cwd=ROOT, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def asked(module: str, *arguments: str) -> Iterator[Asked]:
    """Run a module that answers lines until the end of the block."""
    with running(module, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Asked(process)


@contextmanager
def library(workspace: Path) -> Iterator[Asked]:
    """Open a workspace in another process."""
    with asked("benchmarks.serving.library", "predict", str(workspace)) as process:
        process.read()
        yield process


@contextmanager
def conpet(workspace: Path, **settings: Any) -> Iterator[Server]:
    """Serve a workspace with `conpet serve`."""
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with (
        tempfile.TemporaryFile("w+") as log,
        running("conpet", "serve", str(workspace), "--port", "0", *flags, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        port = 0
        for line in process.stderr:
            entry = json.loads(line)
            port = int(entry["url"].rpartition(":")[2]) if entry["event"] == "listening" else port
            if entry["event"] == "ready":
                break
        else:
            raise RuntimeError(f"the server did not start: {line}")
        with subprocess.Popen(["cat"], stdin=process.stderr, stdout=log):
            yield Server(port, process.pid)
            process.terminate()
            process.wait()


@contextmanager
def rival(kind: str, backbone: str, modules: Path) -> Iterator[Server]:
    """Serve a rival."""
    with running("benchmarks.serving.rivals", kind, backbone, str(modules), stdout=subprocess.PIPE) as process:
        yield Server(Asked(process).read()["port"], process.pid)


@contextmanager
def client() -> Iterator[Asked]:
    """Start a client."""
    with asked("benchmarks.serving.client") as process:
        yield process


def carry_out(client: Asked, plan: Plan) -> dict[str, Any]:
    """Let a client carry out a plan."""
    return client.ask(**asdict(plan))


def learn(folder: Path, backbone: str, numbers: Sequence[int]) -> None:
    """Learn a workspace and export its modules, in another process."""
    with running("benchmarks.serving.library", "learn", str(folder), backbone, *map(str, numbers)) as process:
        assert process.wait() == 0
