"""What does the record of predictions cost, and how fast is a page of a million entries? See docs/how-to/audit.md.

python benchmarks/prediction_log.py [--entries 1000000] [--tasks 10] [--into FOLDER]

Entries of ten tasks with 15 labels each, one every two seconds, are appended in batches of 200. Processor times of one
thread; each page is timed several times, and the median is taken. With another number of tasks, the result is a file
of its own; the tasks are then asked about as unevenly as by Zipf's law. `--into` keeps the record, in a workspace or
any other folder.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from provenance import provenance, write_result

from conpet import Example, Prediction
from conpet.store.prediction_log import PredictionLog
from conpet.types import Trace

BATCH, TASKS, LABELS, REPEATS = 200, 10, 15, 7
DAYS = 30
"""Days that an overview shows."""
SPACING_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--into", type=Path, help="folder in which the record is kept")
    arguments = parser.parse_args()
    entries, tasks = arguments.entries, arguments.tasks
    made_by = provenance()
    with tempfile.TemporaryDirectory() as folder:
        log = PredictionLog(arguments.into or Path(folder))
        seconds = fill(log, entries, tasks)
        single = _single(log)
        log.close()
        result = {
            "entries": entries,
            "tasks": tasks,
            "microseconds_per_text": {"in_batches": seconds / entries * 1e6, "alone": single * 1e6},
            "bytes_per_entry": log.size / entries,
            "milliseconds": {name: _timed(look) for name, look in _looks(log, entries).items()},
        }
    write_result("prediction-log" if tasks == TASKS else f"prediction-log-{tasks}-tasks", result, made_by)
    sys.stdout.write(f"{result}\n")


def _answers(number: int, tasks: int, generator: random.Random) -> tuple[list[Example], list[Prediction]]:
    examples, predictions = [], []
    weights = None if tasks == TASKS else [1 / (1 + rank) for rank in range(tasks)]
    for task in generator.choices(range(tasks), weights, k=number):
        examples.append(Example.of_text(f"this is the text {generator.random()} of a user"))
        name, label = f"task {task}", f"label {task} {generator.randrange(LABELS)}"
        score = generator.random()
        decision = "decline" if score < 0.05 else "ask" if score < 0.2 else "answer"
        trace = Trace(0.9, generator.gauss(0, 1), ((name, 1),))
        predictions.append(Prediction(label, score, name, 1, generation=5, decision=decision, trace=trace))
    return examples, predictions


def fill(log: PredictionLog, entries: int, tasks: int) -> float:
    """Append entries; return the processor seconds of that alone."""
    generator, spent, begin = random.Random(0), 0.0, time.time() - entries * SPACING_SECONDS
    for start in range(0, entries, BATCH):
        examples, predictions = _answers(min(BATCH, entries - start), tasks, generator)
        started = time.process_time()
        at = begin + start * SPACING_SECONDS
        log.append(log.rows(f"request {start}", examples, predictions, with_text=False, at=at))
        spent += time.process_time() - started
    return spent


def _single(log: PredictionLog) -> float:
    """Return the processor seconds of an append of one entry."""
    examples, predictions = _answers(1, TASKS, random.Random(1))
    started = time.process_time()
    for number in range(300):
        log.append(log.rows(f"single {number}", examples, predictions, with_text=False))
    return (time.process_time() - started) / 300


def _looks(log: PredictionLog, entries: int) -> dict[str, Callable[[], Any]]:
    now = datetime.now(UTC)
    month = (now - timedelta(days=DAYS)).date()
    return {
        "newest page": lambda: log.entries(),
        "page in the middle": lambda: log.entries(before=entries // 2),
        "page of a task": lambda: log.entries(task="task 3"),
        "page of a label that never was": lambda: log.entries(label="none"),
        "page of a decision": lambda: log.entries(decision="decline"),
        "a request": lambda: log.entries(request="request 400"),
        "counts by day, all": lambda: log.counts(hours=24),
        "counts by hour, last week": lambda: log.counts(now - timedelta(days=7)),
        "counts of tasks by hour, last week": lambda: log.counts(now - timedelta(days=7), labels=False),
        "number of entries": log.total,
        "decisions of each day": lambda: log.daily(month, tasks=False),
        "decisions of each task": lambda: log.daily(month, days=False),
        "a task day by day": lambda: log.daily(month, of=["task 3"]),
        "overview": lambda: [log.daily(month, tasks=False), log.daily(month, days=False), log.total(), log.entries()],
    }


def _timed(look: Callable[[], Any]) -> float:
    """Return the median of the processor milliseconds."""
    look()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        look()
        times.append(1000 * (time.process_time() - started))
    return statistics.median(times)


if __name__ == "__main__":
    main()
