"""Measurements in a separate process, because memory once allocated is not returned.

python -m benchmarks.speed.child open WORKSPACE | stream WORKSPACE FIRST LAST

Prints one JSON object.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from conpet import ConPET


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    `getrusage` is not used, because a process inherits its peak from the parent.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0])


def opened(path: str) -> dict[str, Any]:
    """Open a workspace and predict one text."""
    before, started = peak_memory(), time.perf_counter()
    workspace = ConPET.open(path, device="cpu")
    ready = time.perf_counter()
    answer = workspace.predict(["a text that nobody has asked before"])[0]
    done = time.perf_counter()
    return {
        "open": ready - started,
        "first_answer": done - ready,
        "before": before,
        "peak": peak_memory(),
        "tasks": len(workspace.tasks),
        "known": answer.label in workspace.labels,
    }


def streamed(path: str, first: int, last: int) -> dict[str, Any]:
    """Predict a stream of distinct rows; measure peak memory after `first` and after `last` rows."""
    answers = ConPET.open(path, device="cpu").predict_stream(_rows(), top_n=1)
    started = time.perf_counter()
    peaks, counts = [], []
    for upto in (first, last - first):
        counts.append(sum(1 for _ in islice(answers, upto)))
        peaks.append(peak_memory())
    return {"peaks": peaks, "rows": counts, "seconds": time.perf_counter() - started}


def _rows() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"r{number:07d}"


if __name__ == "__main__":
    verb, folder, *numbers = sys.argv[1:]
    print(json.dumps(opened(folder) if verb == "open" else streamed(folder, *map(int, numbers))))
