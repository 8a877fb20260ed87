"""Every learner on the same streams, orders and budget (`learners.yaml`); one result file for each run.

    python benchmarks/learners.py [--workers 2] [--only LEARNER ...] [--data NAME ...]
    python benchmarks/learners_page.py        # then: docs/learners.md from the result files

Runs that have a result file are not run again, so it goes on where it was interrupted; remove a file to run it anew.
A worker has one thread, and seconds are those its processor worked: runs beside each other, and a busy machine, change
them little.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, here and in the workers

import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from provenance import RESULTS, provenance, write_result
from streams import stream

from conpet import ConPET, LearnReport
from conpet.evaluation.metrics import AccuracyMatrix, Row, backward_transfer, forgetting
from conpet.learners import METHODS
from conpet.learners.static import StaticLearner

SMALL_PROJECTION = 64
"""Static methods do not read the random projection: it stays small, and the reference computed of it means nothing."""
PROTOCOL = yaml.safe_load((Path(__file__).parent / "learners.yaml").read_text())


@dataclass(frozen=True)
class Run:
    """One learner on one stream in one order."""

    learner: str
    data: str
    order: int

    @property
    def name(self) -> str:
        """Name of its result file, without ending."""
        plain = self.learner.replace("*", "-star").replace("+", "p").replace(" ", "_")
        return f"learners/{self.data}/{plain}-{self.order}"

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of `ConPET.create`."""
        given = {"backbone": PROTOCOL["backbone"], **PROTOCOL["settings"], **PROTOCOL["learners"][self.learner]}
        method = METHODS[given["method"]]
        if not method.tunes:
            del given["split"]  # no module sits above it: the default, from whose depths the features are taken
        if issubclass(method, StaticLearner):
            given["projection"] = SMALL_PROJECTION
        return given | {"seed": self.order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=PROTOCOL["learners"], default=list(PROTOCOL["learners"]))
    parser.add_argument("--data", nargs="*", choices=PROTOCOL["data"], default=list(PROTOCOL["data"]))
    asked = parser.parse_args()
    runs = [run for run in all_runs() if run.learner in asked.only and run.data in asked.data]
    left = [run for run in runs if not (RESULTS / f"{run.name}.json").exists()]
    made_by = provenance() | {"workers": asked.workers}
    print(f"{len(runs)} runs, {len(left)} of them to do", flush=True)
    with ProcessPoolExecutor(asked.workers) as pool:
        futures = {pool.submit(measured, run): run for run in left}
        for number, future in enumerate(as_completed(futures), start=1):
            run = futures[future]
            try:
                result = future.result()
            except Exception:  # noqa: BLE001 - the other runs go on
                print(f"FAILED {run}", flush=True)
                traceback.print_exc(file=sys.stdout)
                continue
            write_result(run.name, result, made_by)
            whole, seconds = result["whole_accuracy"], result["cpu_seconds"]
            print(f"[{number}/{len(left)}] {run.name}: whole {whole:.3f}, {seconds:.0f} s", flush=True)


def all_runs() -> Iterator[Run]:
    """Return all runs, order by order, so that what is there after an interruption compares all learners."""
    for order in range(PROTOCOL["orders"]):
        for data in PROTOCOL["data"]:
            for learner in PROTOCOL["learners"]:
                yield Run(learner, data, order)


def measured(run: Run) -> dict[str, Any]:
    """Learn a stream; return accuracy, cost and settings."""
    tasks = stream(run.data, PROTOCOL["data"][run.data], run.order)
    rows: list[Row] = []
    reports: list[LearnReport] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        learner = ConPET.create(Path(folder) / "w", **run.settings)
        only_last = learner.settings.method == "joint"
        for number, task in enumerate(tasks, start=1):
            # Joint training is only measured at the end: earlier tasks get one step, what counts is that their data is
            # there.
            early = only_last and number < len(tasks)
            started = time.process_time()
            report = learner.learn(replace(task, settings={"max_steps": 1}) if early else task, evaluate=False)
            seconds += time.process_time() - started
            reports.append(report)
            if not early:
                evaluation = learner.evaluate()
                rows.append(Row(task.name, evaluation.tallies))
        on_disk = learner.store.bytes_on_disk()
    matrix = AccuracyMatrix(tuple(rows))
    stages = [stage for report in reports for stage in report.cost]
    return {
        "learner": run.learner,
        "data": run.data,
        "order": run.order,
        "tasks": [task.name for task in tasks],
        "examples": {"per_label": PROTOCOL["data"][run.data], "test": sum(len(task.test) for task in tasks)},
        "whole_accuracy": evaluation.whole_accuracy,
        "average_accuracy": evaluation.average_accuracy,
        "forgetting": None if only_last else forgetting(matrix),
        "backward_transfer": None if only_last else backward_transfer(matrix),
        "selector_accuracy": evaluation.selector_accuracy,
        "within_task_accuracy": evaluation.within_task_accuracy,
        "references": {name: tally.accuracy for name, tally in evaluation.references.items()},
        "accuracy_matrix": [{name: tally.accuracy for name, tally in row.tallies.items()} for row in rows],
        "cpu_seconds": seconds,
        "seconds_by_task": [{stage.stage: round(stage.seconds, 3) for stage in report.cost} for report in reports],
        "backbone_tokens": sum(stage.tokens for stage in stages),
        "steps": sum(stage.steps for stage in stages),
        "trainable_parameters": reports[-1].trainable_parameters,
        "head_parameters": reports[-1].head_parameters,
        "bytes_stored": reports[-1].bytes_stored,
        "bytes_on_disk": on_disk,
        "settings": learner.settings.model_dump(mode="json"),
    }


if __name__ == "__main__":
    main()
