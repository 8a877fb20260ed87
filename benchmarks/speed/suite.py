"""Run rows and write their results."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from benchmarks.speed.bench import Bench
from benchmarks.speed.machine import measure_machine
from benchmarks.speed.rows import GOALS, ROWS
from benchmarks.speed.timing import MISSED, REACHED, UNCLEAR, UnequalError, load, verdict
from conpet.bench.provenance import provenance

LEGEND = (
    "Each row runs conpet and a rival in turns. For a goal 'at least', the ratio is how many times as fast conpet is; "
    "for 'at most', it is conpet's time divided by the rival's. [quartiles over pairs]"
)
AGAIN = 2
"""Factor for the number of pairs when an unclear row is measured again."""
TRIAL = "Tiny sizes, to check that every row runs and both sides compute the same. The ratios have no meaning."


def run(bench: Bench, names: Sequence[str], out: Path | None, **more: Any) -> int:
    """Measure rows; return 1 if the sides of a row differ or another run is active, otherwise 0.

    Other rows in the file are kept, each with its own provenance. Without a file it is a trial: ratios are printed
    without a verdict. `more` is further content of the file.
    """
    bench.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(bench.work / "lock", timeout=0):
            return _run(bench, names, out, more)
    except Timeout:
        print(f"another run uses {bench.work} and would disturb the measurement: wait for it to end", file=sys.stderr)
        return 1


def _run(bench: Bench, names: Sequence[str], out: Path | None, more: Mapping[str, Any]) -> int:
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else {"rows": {}}
    result |= more
    result["machine"] = {
        "threads": torch.get_num_threads(),
        **measure_machine(bench.device, bench.sizes.matrix, bench.sizes.seconds),
    }
    print(TRIAL if out is None else LEGEND, flush=True)
    failed: list[str] = []
    judged: list[str] = []
    for name in names:
        try:
            measured = measure(bench, name) if out is None else measure_until_clear(bench, name)
        except UnequalError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed.append(name)
            continue
        rows = result["rows"] | measured
        result["rows"] = {key: rows[key] for key in GOALS if key in rows}
        for key, found in measured.items():
            judged.append(verdict(found))
            print(result_line(key, found, judge=out is not None), flush=True)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    counts = f"{judged.count(REACHED)} of {len(judged)} goals reached, {judged.count(UNCLEAR)} unclear"
    kept = f"{counts}; written to {out}" if out else "nothing written"
    wrong = (
        f"; NOT equal, not measured: {', '.join(failed)}" if failed else "; both sides computed the same in all rows"
    )
    print(f"{len(judged)} goals measured{wrong}; {kept}")
    return int(bool(failed))


def measure(bench: Bench, name: str) -> dict[str, Any]:
    """Measure a row and return its results by key."""
    gc.collect()  # leftovers of the previous row
    made_by, before, started = provenance(), load(), time.perf_counter()
    row = ROWS[name]()
    measurements = row.measure(bench)
    circumstances = {
        "made_by": made_by,
        "load": [before, load()],
        "took": round(time.perf_counter() - started, 1),
        "device": bench.device if bench.device == "cpu" else torch.cuda.get_device_name(bench.device),
    }
    return {key: {**measured.to_json(row.goals[key]), **circumstances} for key, measured in measurements.items()}


def measure_until_clear(bench: Bench, name: str) -> dict[str, Any]:
    """Measure a row; if a goal is unclear, measure again with more pairs.

    The first ratios are kept as `first`.
    """
    first = measure(bench, name)
    unclear = [key for key, found in first.items() if verdict(found) == UNCLEAR]
    if not unclear:
        return first
    print(f"{', '.join(unclear)}: unclear, so measured again with {AGAIN} times as many pairs", flush=True)
    with bench.more_pairs(AGAIN):
        again = measure(bench, name)
    return {key: {**found, "first": first[key]["ratio"]} for key, found in again.items()}


def result_line(key: str, found: dict[str, Any], *, judge: bool) -> str:
    """Format a result for printing."""
    ratio, cpu = found["ratio"], found.get("cpu_ratio")
    line = f"{key}: {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    if cpu:
        line += f", of processor time {cpu['median']:.2f}"
    if judge:
        line += f"; wanted {found['bound']} {found['wanted']:g}: {verdict(found).replace(MISSED, MISSED.upper())}"
    return f"{line}. Equal: {found['equal']}. {found['took']} s, load {found['load'][1]}"
