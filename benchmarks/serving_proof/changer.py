"""The other process: it changes a workspace as it is told on standard input, and answers with the generation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving_proof.scenes import tasks_for, variant
from conpet import ConPET


def main(path: str, backbone: str) -> None:
    tasks = {task.name: task for task in tasks_for(backbone)}
    with ConPET.open(path) as learner:
        for line in sys.stdin:
            change(learner, tasks, json.loads(line))
            print(learner.store.generation(), flush=True)


def change(learner: ConPET, tasks: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Make a change: `verb`, `task`, and `version` or `variant`."""
    task = wanted["task"]
    match wanted["verb"]:
        case "learn":
            new = tasks[task] if wanted["variant"] is None else variant(tasks[task], wanted["variant"])
            learner.learn(new, evaluate=False)
        case "activate":
            learner.rollback(task, wanted["version"], evaluate=False)
        case "remove":
            learner.remove(task, evaluate=False)


class Changer:
    """Starts that process and tells it what to change.

    Args:
        workspace: The workspace.
        backbone: Its backbone, which decides on the tasks.
    """

    def __init__(self, workspace: Path, backbone: str) -> None:
        command = [sys.executable, "-m", "benchmarks.serving_proof.changer", str(workspace), backbone]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def make(self, wanted: dict[str, Any]) -> int:
        """Have a change made, and return the generation."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(wanted)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
