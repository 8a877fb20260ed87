"""Measure how upgrading a static workspace and merging tasks of a dynamic one change accuracy.

The figures are in docs/how-to/merge-and-upgrade.md.

python benchmarks/growing.py

`minilm-l6`, the first tasks of the demo's stream (15 intents each, 20 training examples per intent), default settings,
one order and one seed. The merge is evaluated on the validation examples of the merged tasks, as `conpet merge` does.
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
    """Return whole accuracy before and after upgrades, and after one more task."""
    tasks = demo_stream()
    accuracies: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, fusion in (("static", None), ("paper", "paper"), ("calibrated", "calibrated")):
            learner = _learned(Path(folder) / name, tasks[:STATIC_TASKS], method="emr")
            accuracies[name] = {"before": learner.evaluate().whole_accuracy}
            if fusion is not None:
                learner.upgrade("dynamic", fusion=fusion)
                accuracies[name]["upgraded"] = learner.evaluate().whole_accuracy
            learner.learn(tasks[STATIC_TASKS], evaluate=False)
            accuracies[name]["and_one_more_task"] = learner.evaluate().whole_accuracy
            print(name, accuracies[name], flush=True)
    return accuracies


def merge() -> dict[str, Any]:
    """Return how merging tasks changed their validation accuracy and the bytes stored."""
    with tempfile.TemporaryDirectory() as folder:
        learner = _learned(Path(folder) / "w", demo_stream()[:STATIC_TASKS], method="dynamic")
        report = learner.merge([task.name for task in learner.tasks[:MERGED]], bound=5.0)
    summary = report.to_json()
    print(summary, flush=True)
    return summary


def _learned(path: Path, tasks: TaskStream, **settings: Any) -> ConPET:
    learner = ConPET.create(path, backbone="minilm-l6", **settings)
    for task in tasks:
        learner.learn(task, evaluate=False)
    return learner


if __name__ == "__main__":
    main()
