"""How long do the dashboard's pages take on a large workspace? See docs/how-to/dashboard.md.

python benchmarks/dashboard.py [--tasks 1000] [--entries 1000000] [--into FOLDER]

A workspace of tasks with two labels each, learned in 20 changes, each evaluated, on the random backbone of the tests;
and a record of predictions by `prediction_log.py`. A server answers; each page is asked for several times, one request
after another, and its time to the first byte and the processor time of the server are taken. `--into` keeps the
workspace, or measures on one that was kept.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prediction_log import fill
from provenance import provenance, write_result

from conpet import ConPET, Task
from conpet.store.prediction_log import PredictionLog
from conpet.testing import tiny_settings, toy_stream

CHANGES, REPEATS, PORT = 20, 10, 8765
TICKS = os.sysconf("SC_CLK_TCK")
PAGES = {
    "overview": "/ui/overview",
    "chart of the accuracy": "/ui/overview/accuracy.svg",
    "try it": "/ui/try",
    "tasks": "/ui/tasks",
    "tasks, last page": "/ui/tasks?page=20",
    "tasks, searched": "/ui/tasks?q=77",
    "labels of a task": "/ui/tasks/task?name=task%207",
    "examples of a task": "/ui/tasks/task?name=task%207&view=examples",
    "confusions of a task": "/ui/tasks/task?name=task%207&view=confusions",
    "versions of a task": "/ui/tasks/task?name=task%207&view=versions",
    "form to learn": "/ui/tasks/learn",
    "review": "/ui/review",
    "routing": "/ui/routing",
    "alarms": "/ui/alarms",
    "jobs": "/ui/jobs",
    "audit": "/ui/audit",
    "cost": "/ui/cost",
    "settings": "/ui/settings",
    "keys": "/ui/keys",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--into", type=Path, help="folder of the workspace, kept or made")
    arguments = parser.parse_args()
    made_by = provenance()
    with tempfile.TemporaryDirectory() as folder:
        workspace = arguments.into or Path(folder) / "workspace"
        if not workspace.exists():
            _make(workspace, arguments.tasks, arguments.entries)
        result = {"tasks": arguments.tasks, "entries": arguments.entries, "pages": _measured(workspace)}
    write_result("dashboard", result, made_by)
    for page, times in result["pages"].items():
        sys.stdout.write(f"{page:<26} {times}\n")


def _make(folder: Path, tasks: int, entries: int) -> None:
    settings = tiny_settings(training={"epochs": 1, "max_steps": 1})
    with ConPET.create(folder, **settings) as learner:
        drawn = toy_stream(tasks, 2, 4, 1, 2)
        named = [Task(f"task {number}", one.train, one.validation, one.test) for number, one in enumerate(drawn)]
        size = -(-tasks // CHANGES)
        for start in range(0, tasks, size):
            learner.learn_batch(named[start : start + size], gate=False)
        log = PredictionLog(learner.path)
        fill(log, entries, tasks)
        log.close()


def _measured(workspace: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "conpet", "serve", str(workspace), "--port", str(PORT)]
    server = subprocess.Popen([*command, "--log-predictions", "hash", "--set", "log_level=error"])
    try:
        _wait_until_ready()
        return {page: _page(path, server.pid) for page, path in PAGES.items()}
    finally:
        server.terminate()
        server.wait()


def _page(path: str, pid: int) -> dict[str, Any]:
    """Return the milliseconds of a page: the first time, the median of the others, and of the processor."""
    status, first = _asked(path)
    before = _processor(pid)
    times = [_asked(path)[1] for _ in range(REPEATS)]
    return {
        "status": status,
        "first": round(first, 1),
        "median": round(statistics.median(times), 1),
        "processor": round((_processor(pid) - before) / REPEATS, 1),
    }


def _asked(path: str) -> tuple[int, float]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    started = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()  # returns with the headers
    milliseconds = 1000 * (time.perf_counter() - started)
    answer.read()
    connection.close()
    return answer.status, milliseconds


def _processor(pid: int) -> float:
    """Return the processor milliseconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / TICKS


def _wait_until_ready() -> None:
    while True:
        try:
            if _asked("/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)


if __name__ == "__main__":
    main()
