"""Provenance of result files: commit, versions, machine and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("conpet", "torch", "transformers", "peft", "tokenizers", "numpy")
_SOURCE = Path(__file__).parents[3]


def provenance() -> dict[str, Any]:
    """Return commit, versions, machine and command of the running process.

    Commit and changed files refer to conpet's source; None if it was not installed from a clone.
    """
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": _changed(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([*_program(sys.argv[0]), *map(_shown, sys.argv[1:])]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "load_before": os.getloadavg()[0],
        },
    }


def _program(path: str) -> list[str]:
    return ["conpet"] if Path(path).name == "conpet" else ["python", _shown(path)]


def _shown(argument: str) -> str:
    """Return an argument without folders above the working directory, which are specific to the machine."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _changed() -> list[str] | None:
    status = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return None if status is None else status.splitlines()


def _git(*arguments: str) -> str | None:
    if not (_SOURCE / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(_SOURCE), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
