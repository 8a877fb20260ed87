"""Measure what upgrading a static workspace and merging tasks of a dynamic one do to accuracy.

The figures are in docs/how-to/merge-and-upgrade.md.

python benchmarks/growing.py

`minilm-l6`, the first tasks of the demo's stream (15 intents each, 20 training examples an intent), default settings,
one order and one seed. The merge is judged on the validation examples of the merged tasks, as `conpet merge` does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from provenance import provenance, write_result

from conpet import ConPET, TaskStream
from conpet.demo.stream import demo_stream

STATIC_TASKS = 4
MERGED = 3


def main() -> None:
    made_by = provenance()
    result = {"data": "CLINC150, first tasks of the demo, full test sets", "upgrade": upgrade(), "merge": merge()}
    print(write_result("growing", result, made_by))


def upgrade() -> dict[str, Any]:
    """Return whole accuracy before and after upgrades, and with one more task learned."""
    tasks = demo_stream()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, fusion in (("static", None), ("paper", "paper"), ("calibrated", "calibrated")):
            learner = _taught(Path(folder) / name, tasks[:STATIC_TASKS], method="emr")
            found[name] = {"before": learner.evaluate().whole_accuracy}
            if fusion is not None:
                learner.upgrade("dynamic", fusion=fusion)
                found[name]["upgraded"] = learner.evaluate().whole_accuracy
            learner.learn(tasks[STATIC_TASKS], evaluate=False)
            found[name]["and_one_more_task"] = learner.evaluate().whole_accuracy
            print(name, found[name], flush=True)
    return found


def merge() -> dict[str, Any]:
    """Return what merging some tasks did to their validation accuracy and to the bytes stored."""
    with tempfile.TemporaryDirectory() as folder:
        learner = _taught(Path(folder) / "w", demo_stream()[:STATIC_TASKS], method="dynamic")
        report = learner.merge([task.name for task in learner.tasks[:MERGED]], bound=5.0)
    found = report.to_json()
    print(found, flush=True)
    return found


def _taught(path: Path, tasks: TaskStream, **settings: Any) -> ConPET:
    learner = ConPET.create(path, backbone="minilm-l6", **settings)
    for task in tasks:
        learner.learn(task, evaluate=False)
    return learner


if __name__ == "__main__":
    main()
