"""Run rows one after the other and write down what came out."""

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
    "Each row does its work by conpet and by a rival in turns. Where at least so much is wanted, the ratio is how many "
    "times as fast conpet is; where at most, its time as a multiple of the rival's. [quartiles over pairs]"
)
AGAIN = 2
"""How many times as many pairs a row is given that is measured again because a bound lies between its quartiles."""
TRIAL = "Tiny sizes, to see that every row runs and both sides compute the same: the ratios mean nothing."


def run(bench: Bench, names: Sequence[str], out: Path | None, **more: Any) -> int:
    """Measure rows; return 1 if a row's sides were not equal or another run is at it, else 0.

    Rows that are in the file already and are not measured now stay in it, each with its own provenance. Without a file
    it is a trial: what the ratios are is told, but not judged. `more` is what else the file is to hold.
    """
    bench.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(bench.work / "lock", timeout=0):
            return _run(bench, names, out, more)
    except Timeout:
        print(f"another run uses {bench.work}, and would be measured too: wait for it to end", file=sys.stderr)
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
            print(told(key, found, judge=out is not None), flush=True)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    counts = f"{judged.count(REACHED)} of {len(judged)} goals reached, {judged.count(UNCLEAR)} unclear"
    kept = f"{counts}; written to {out}" if out else "nothing written"
    wrong = f"; NOT equal, so not measured: {', '.join(failed)}" if failed else ", both sides computed the same in each"
    print(f"{len(judged)} goals measured{wrong}; {kept}")
    return int(bool(failed))


def measure(bench: Bench, name: str) -> dict[str, Any]:
    """Measure a row; return what is written of it, by key."""
    gc.collect()  # what the row before left
    made_by, before, started = provenance(), load(), time.perf_counter()
    row = ROWS[name]()
    found = row.measure(bench)
    circumstances = {
        "made_by": made_by,
        "load": [before, load()],
        "took": round(time.perf_counter() - started, 1),
        "device": bench.device if bench.device == "cpu" else torch.cuda.get_device_name(bench.device),
    }
    return {key: {**one.to_json(row.goals[key]), **circumstances} for key, one in found.items()}


def measure_until_clear(bench: Bench, name: str) -> dict[str, Any]:
    """Measure a row; if a bound lies between the quartiles, once more with more pairs.

    The first ratios are kept beside those that take their place, as `first`.
    """
    first = measure(bench, name)
    unclear = [key for key, found in first.items() if verdict(found) == UNCLEAR]
    if not unclear:
        return first
    print(f"{', '.join(unclear)}: unclear, so measured again with {AGAIN} times as many pairs", flush=True)
    with bench.more_pairs(AGAIN):
        again = measure(bench, name)
    return {key: {**found, "first": first[key]["ratio"]} for key, found in again.items()}


def told(key: str, found: dict[str, Any], *, judge: bool) -> str:
    """Return a line for the screen."""
    ratio, cpu = found["ratio"], found.get("cpu_ratio")
    line = f"{key}: {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    if cpu:
        line += f", of processor time {cpu['median']:.2f}"
    if judge:
        line += f"; wanted {found['bound']} {found['wanted']:g}: {verdict(found).replace(MISSED, MISSED.upper())}"
    return f"{line}. Equal: {found['equal']}. {found['took']} s, load {found['load'][1]}"
