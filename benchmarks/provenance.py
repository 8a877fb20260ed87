"""What every result file says of how it came about."""

from __future__ import annotations

import json
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
RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Return commit, versions, machine and command of the running process."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": _git("status", "--porcelain", "--", "src", "benchmarks/*.py").splitlines(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *_relative(sys.argv)]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "load_before": os.getloadavg()[0],
        },
    }


def write_result(name: str, result: dict[str, Any], made_by: dict[str, Any]) -> Path:
    """Write a result with its provenance to `benchmarks/results/NAME.json`."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"made_by": made_by, **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _relative(arguments: list[str]) -> list[str]:
    here = Path.cwd()
    return [str(Path(one).relative_to(here)) if Path(one).is_relative_to(here) else one for one in arguments]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
