"""conpet in a process of its own, without a server.

python -m benchmarks.serving.library learn FOLDER BACKBONE TASKS EXAMPLES EPOCHS
python -m benchmarks.serving.library predict WORKSPACE

The second reads measurements as JSON, one a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving.client import Plan, fresh_text
from conpet import ConPET, Task
from conpet.demo.stream import demo_stream

FULL_BATCH = 256


class Library:
    """A workspace whose predictions are timed."""

    def __init__(self, workspace: Path) -> None:
        self._learner = ConPET.open(workspace)

    def measure(self, texts: dict[str, list[str]], seed: int, seconds: float, batch: int) -> dict[str, Any]:
        """Predict batches of new texts for some seconds; return their number and the milliseconds of each call."""
        drawn, milliseconds = _drawn(Plan(0, texts, batch, seconds, seed=seed)), []
        self._learner.predict(list(itertools.islice(drawn, batch)))
        cpu, start = time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            asked = list(itertools.islice(drawn, batch))
            before = time.perf_counter()
            self._learner.predict(asked)
            milliseconds.append(1000 * (time.perf_counter() - before))
        return {
            "texts": batch * len(milliseconds),
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "milliseconds": sorted(milliseconds),
        }


def _drawn(plan: Plan) -> Iterator[str]:
    draw = random.Random(plan.seed)
    return (fresh_text(plan, None, draw, number) for number in itertools.count())


def learn(folder: Path, backbone: str, tasks: int, examples: int, epochs: int) -> None:
    """Learn the demo's tasks, with some examples of each label, and export their modules."""
    learner = ConPET.create(folder / "ws", backbone=backbone, training={"epochs": epochs})
    cut = []
    for task in demo_stream()[:tasks]:
        train = [row for label in task.labels for row in [one for one in task.train if one.label == label][:examples]]
        cut.append(Task(task.name, tuple(train), task.validation[:50], task.test[:50]))
    learner.learn_batch(cut, evaluate=False)
    (folder / "modules").mkdir()
    for task in cut:
        learner.export(task.name, folder / "modules" / task.name)


def main() -> None:
    verb, folder, *rest = sys.argv[1:]
    if verb == "learn":
        learn(Path(folder), rest[0], *map(int, rest[1:]))
        return
    library = Library(Path(folder))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(library.measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
