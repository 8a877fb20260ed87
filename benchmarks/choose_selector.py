"""Which selector finds the task best? CLINC150, 10 domains as 10 tasks, 20 training examples per intent.

The comparison uses validation examples, so that the choice of the default does not use the test set. Modules are
trained for only one step, because they do not affect selection. The learned selector gets 100 steps per task.

    python benchmarks/choose_selector.py
"""

from __future__ import annotations

import random
import tempfile
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from provenance import provenance, write_result

from conpet import ConPET, Example, TaskStream
from conpet.data import Kind
from conpet.demo.stream import demo_stream
from conpet.testing import live_of

ORDERS = 1
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "prototypes": {"name": "prototypes"},
    "learned, 100 steps a task": {"name": "learned", "steps": 100},
}


def main() -> None:
    made_by = provenance()
    rows = {name: measure(selector) for name, selector in CONFIGURATIONS.items()}
    for name, row in rows.items():
        print(f"{name}: {row['selector_accuracy_mean']:.4f} +- {row['interval_95']:.4f}, {row['seconds_mean']:.1f} s")
    print(write_result("selectors", {"data": "CLINC150, validation", "orders": ORDERS, "selectors": rows}, made_by))


def measure(selector: dict[str, Any]) -> dict[str, Any]:
    """Learn the stream in several orders; return the selector's accuracy and the seconds of its stage."""
    accuracies, within_three, seconds = [], [], []
    # Only the learned selector depends much on the order.
    orders = ORDERS if selector["name"] == "learned" else 1
    for order in range(orders):
        tasks = list(demo_stream())
        random.Random(order).shuffle(tasks)
        with tempfile.TemporaryDirectory() as folder:
            learner = ConPET.create(Path(folder) / "w", training={"max_steps": 1}, selector=selector, seed=order)
            reports = list(learner.learn_stream(TaskStream(tuple(tasks)), evaluate=False))
            right, near, total = accuracy(learner, [(task.name, task.validation) for task in tasks])
        accuracies.append(right / total)
        within_three.append(near / total)
        stages = [stage for report in reports for stage in report.cost if stage.stage in ("selector", "statistics")]
        seconds.append(sum(stage.seconds for stage in stages))
        print(selector, order, accuracies[-1], flush=True)
    spread = stdev(accuracies) if len(accuracies) > 1 else sqrt(mean(accuracies) * (1 - mean(accuracies)) / total)
    return {
        "selector_accuracy": accuracies,
        "selector_accuracy_mean": mean(accuracies),
        "interval_95": 1.96 * spread / sqrt(len(accuracies)),
        "interval_is_over": "orders and seeds" if len(accuracies) > 1 else "examples",
        "true_task_within_three_mean": mean(within_three),
        "seconds_mean": mean(seconds),
        "examples": total,
    }


def accuracy(learner: ConPET, examples: list[tuple[str, tuple[Example, ...]]]) -> tuple[int, int, int]:
    """Count how often the selector ranks the true task first and within the first three, and all examples."""
    right = near = total = 0
    live = live_of(learner)
    names = [task.name for task in live.state.tasks]
    for task, task_examples in examples:
        inputs = live.method.encode(live.state, task_examples, Kind.TEXT, keep=True)
        ranked = live.method.score(live.state, inputs, Kind.TEXT).tasks
        assert ranked is not None
        best = ranked.topk(3, dim=1).indices
        own = torch.tensor(names.index(task))
        right += int((best[:, 0] == own).sum())
        near += int((best == own).any(dim=1).sum())
        total += len(task_examples)
    return right, near, total


if __name__ == "__main__":
    main()
