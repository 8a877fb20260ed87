"""Learn, roll back and remove under full load: every answer must be that of the generation it names.

python -m benchmarks.serving_proof.swaps [--backbone minilm-l6] [--changes 50] [--keep]

Half of the changes are jobs of the server, half are made by another process. Clients ask the same texts all the time,
so that all caches are warm. `--keep` writes benchmarks/results/serving-swaps.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.serving_proof.answers import Expected, Faults, copy_of
from benchmarks.serving_proof.changer import Changer
from benchmarks.serving_proof.load import Asked, Load
from benchmarks.serving_proof.results import none_of, row, show, write
from benchmarks.serving_proof.scenes import make_workspace, tasks_for, texts_of, variant
from benchmarks.serving_proof.servers import Server, serving
from conpet import Client, Task

SIZES = (1,) * 8 + (32,) * 2
TOP_N = 100
BEFORE, AFTER = 1.0, 0.5
"""Seconds around the first answer of a new generation in which requests count as touched by its swap."""
STALL_MS = 100
SEEN_SECONDS = 1.0


@dataclass(frozen=True)
class Swap:
    """A change.

    Attributes:
        verb: What was done.
        by: Who did it.
        generation: The generation that it made.
        known: When it was known to be made, on the monotonic clock.
    """

    verb: str
    by: str
    generation: int
    known: float


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="minilm-l6")
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--keep", action="store_true", help="write the result file")
    options = parser.parse_args(arguments)
    made_by, start = provenance(), time.monotonic()
    rows, detail = measure(options.backbone, options.changes)
    show(rows)
    if options.keep:
        circumstances = (
            f"{options.changes} changes, half of them jobs of the server and half by another process, while "
            f"{len(SIZES)} clients asked without a pause ({SIZES.count(1)} with one text, the others with 32), the "
            "same texts all the time. A request is touched by a swap if it was open between "
            f"{BEFORE:g} s before and {AFTER:g} s after the first answer of the new generation; the stall is its time "
            "less the median of the untouched ones"
        )
        more = {"backbone": options.backbone, "seconds": round(time.monotonic() - start, 1)}
        print(write("serving-swaps", made_by, circumstances, rows, [], **more, **detail))


def measure(backbone: str, changes: int) -> tuple[list[Any], dict[str, Any]]:
    """Make changes under load; return the rows and what they rest on."""
    tasks = tasks_for(backbone)
    expected = Expected(texts_of(tasks), TOP_N)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learner = make_workspace(folder / "ws", backbone, tasks)
        learner.close()
        copies = [copy_of(learner.path, folder / "copy-0")]
        with serving(Server(learner.path, folder)) as server:
            load = Load(server.port, expected.texts, SIZES, TOP_N)
            swaps = []
            changer = Changer(learner.path, backbone)
            with load, Client(server.url) as client:
                time.sleep(2)
                for swap in made(client, changer, tasks, changes):
                    swaps.append(swap)
                    client.predict(expected.texts[0], min_generation=swap.generation)
                    load.least = swap.generation
                    copies.append(copy_of(learner.path, folder / f"copy-{len(copies)}"))
                    time.sleep(AFTER)
                changer.close()
            errors = len(server.errors())
        for copy in copies:
            expected.note(copy)
    faults = expected.faults(load.asked)
    stalls = stalls_of(load.asked, swaps)
    return rows_of(swaps, faults, expected, stalls, errors), {"swaps": [vars(swap) for swap in swaps], **stalls}


def made(client: Client, changer: Changer, tasks: Sequence[Task], changes: int) -> Iterator[Swap]:
    """Make changes and yield each when it is made."""
    for number in range(changes):
        wanted = wanted_change(tasks, number)
        if (number + number // 4) % 2:
            generation, by = changer.make(wanted), "another process"
        else:
            generation, by = by_job(client, tasks, wanted), "a job"
        yield Swap(wanted["verb"], by, generation, time.monotonic())


def wanted_change(tasks: Sequence[Task], number: int) -> dict[str, Any]:
    """Return a change: a task is learned anew and rolled back, then another one removed and learned again."""
    relearned, removed = tasks[number // 4 % 2], tasks[2 + number // 4 % 2]
    match number % 4:
        case 0:
            return {"verb": "learn", "task": relearned.name, "variant": number // 4}
        case 1:
            return {"verb": "activate", "task": relearned.name, "version": 1}
        case 2:
            return {"verb": "remove", "task": removed.name}
        case _:
            return {"verb": "learn", "task": removed.name, "variant": None}


def by_job(client: Client, tasks: Sequence[Task], wanted: dict[str, Any]) -> int:
    """Have a change made by the server, and return the generation."""
    task = next(task for task in tasks if task.name == wanted["task"])
    match wanted["verb"]:
        case "learn":
            new = task if wanted["variant"] is None else variant(task, wanted["variant"])
            job = client.learn(new, evaluate=False)
        case "activate":
            job = client.activate(task.name, wanted["version"], evaluate=False)
        case _:
            job = client.remove(task.name, evaluate=False)
    result = client.wait(job, timeout=300).result
    assert result is not None
    return int(result["generation"])


def stalls_of(asked: Sequence[Asked], swaps: Sequence[Swap]) -> dict[str, Any]:
    """Return how long requests took that were touched by a swap, and others, in milliseconds."""
    firsts = first_answers(asked)
    windows = [(firsts[swap.generation] - BEFORE, firsts[swap.generation] + AFTER) for swap in swaps]
    touched, others = [], []
    for one in asked[len(SIZES) :]:
        within = any(one.start <= end and one.end >= start for start, end in windows)
        (touched if within else others).append(one)
    by_size = {size: statistics.median(one.seconds for one in others if one.texts[1] == size) for size in set(SIZES)}
    return {
        "longest_stall_ms": 1000 * max(one.seconds - by_size[one.texts[1]] for one in touched),
        "longest_other_stall_ms": 1000 * max(one.seconds - by_size[one.texts[1]] for one in others),
        "median_ms": {str(size): 1000 * seconds for size, seconds in by_size.items()},
        "touched": len(touched),
        "seen_after_seconds": max(firsts[swap.generation] - swap.known for swap in swaps),
    }


def first_answers(asked: Sequence[Asked]) -> dict[int, float]:
    """Return when each generation answered first."""
    firsts: dict[int, float] = {}
    for one in asked:
        if one.status == 200:
            head = one.body[: one.body.index(b",")]
            generation = int(head.rpartition(b":")[2])
            firsts[generation] = min(firsts.get(generation, one.end), one.end)
    return firsts


def rows_of(
    swaps: Sequence[Swap], faults: Faults, expected: Expected, stalls: dict[str, Any], errors: int
) -> list[Any]:
    distinct = expected.distinct_changes()
    seen = max(0.0, stalls["seen_after_seconds"])
    return [
        row("learns, rollbacks and removals under load", len(swaps)),
        row("of them by another process", sum(swap.by != "a job" for swap in swaps)),
        row("of them after which answers differ clearly", distinct, "", str(len(swaps)), held=distinct == len(swaps)),
        row("answers compared with those of their generation", faults.answers),
        none_of("requests that failed", len(faults.failed) + errors),
        none_of("responses that mix generations", faults.mixed),
        none_of("answers that are not those of the generation they name", faults.wrong + faults.unknown),
        none_of("of them answers of an older generation", faults.older),
        none_of("answers older than what the client already knew of", faults.outdated),
        row("longest wait until a change is seen", seen, "s", f"< {SEEN_SECONDS:g} s", held=seen < SEEN_SECONDS),
        row(
            "longest stall of a request due to a swap",
            stalls["longest_stall_ms"],
            "ms",
            f"< {STALL_MS} ms",
            held=stalls["longest_stall_ms"] < STALL_MS,
        ),
        row("longest stall of a request at other times, learning included", stalls["longest_other_stall_ms"], "ms"),
        row("median time of a request with one text", stalls["median_ms"]["1"], "ms"),
        row("median time of a request with 32 texts", stalls["median_ms"]["32"], "ms"),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
