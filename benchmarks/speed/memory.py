"""Rows that measure memory and opening a workspace; each run is a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from benchmarks.speed.bench import Bench
from benchmarks.speed.row import Row
from benchmarks.speed.timing import Goal, Measured, UnequalError, in_turns
from conpet import ConPET
from conpet.testing import toy_stream
from conpet.testing.toy import tiny_settings

ROOT = Path(__file__).parents[2]
MB = 1e6


def child(*arguments: object) -> dict[str, Any]:
    """Run `benchmarks.speed.child` and return its result."""
    command = [sys.executable, "-m", "benchmarks.speed.child", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class OpenManyModules(Row):
    name = "open"
    goals: ClassVar[Mapping[str, Goal]] = {
        "open-time": Goal("open a workspace with 1,000 modules", "conpet: a workspace with 10 modules", "at most", 1.1),
        "open-answer": Goal(
            "open it, load the backbone and make one prediction, which reads the class sums of all labels",
            "conpet: a workspace with 10 modules",
            "at most",
            1.1,
        ),
        "open-memory": Goal(
            "open it and make one prediction: peak memory of the process",
            "conpet: a workspace with 10 modules",
            "at most",
            1.1,
        ),
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        many, few = (bench.many(tasks).resolve() for tasks in (bench.sizes.many, bench.sizes.few))
        pairs = in_turns(
            lambda _: None, lambda _: child("open", many), lambda _: child("open", few), bench.sizes.learn_pairs
        )
        for opened, tasks in ((pairs.ours[-1], bench.sizes.many), (pairs.theirs[-1], bench.sizes.few)):
            if opened["tasks"] != tasks or not opened["known"]:
                raise UnequalError(f"a workspace of {tasks} tasks opened as one of {opened['tasks']}")
        opening = [[run["open"] for run in runs] for runs in (pairs.ours, pairs.theirs)]
        seconds = [[run["open"] + run["first_answer"] for run in runs] for runs in (pairs.ours, pairs.theirs)]
        peaks = [[run["peak"] / MB for run in runs] for runs in (pairs.ours, pairs.theirs)]
        extra = bench.sizes.many - bench.sizes.few
        growth = {
            "ms_per_module": 1e3 * (median(seconds[0]) - median(seconds[1])) / extra,
            "kb_per_module": 1e3 * (median(peaks[0]) - median(peaks[1])) / extra,
        }
        detail = {"backbone": bench.sizes.small, "many": pairs.ours[-1], "few": pairs.theirs[-1], **growth}
        equal = "both have all their tasks and answer"
        return {
            "open-time": Measured(*opening, equal, detail=detail),
            "open-answer": Measured(*seconds, equal, detail=detail),
            "open-memory": Measured(*peaks, equal, unit="MB", detail=detail),
        }


class Stream(Row):
    name = "stream"
    goals: ClassVar[Mapping[str, Goal]] = {
        "stream": Goal("peak memory after 1,000,000 rows streamed", "after the first 100,000", "at most", 1.02)
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        path = bench.scratch("stream")
        learner = ConPET.create(path, **tiny_settings(backbone={"cache": False}))
        for task in toy_stream(2, labels=2, train=4, validation=2, test=0):
            learner.learn(task, evaluate=False)
        first, last = bench.sizes.streamed
        streamed = child("stream", path.resolve(), first, last)
        if streamed["rows"] != [first, last - first]:
            raise UnequalError(f"expected {last} predictions, got {sum(streamed['rows'])}")
        early, late = (peak / MB for peak in streamed["peaks"])
        detail = {"backbone": "tiny-random", "seconds": streamed["seconds"], "rows": streamed["rows"]}
        return {"stream": Measured([late], [early], f"{last:,} answers for as many rows", unit="MB", detail=detail)}
