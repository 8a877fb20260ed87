"""Kill, fill, delete, damage, lock: nothing acknowledged is lost, nothing half-learned served, others are answered.

python -m benchmarks.serving_proof.faults [--quick] [--only kills storage clients] [--keep]

Clients ask all the time, and every answer is compared with that of its generation. `--keep` writes
benchmarks/results/serving-faults.json; with `--only`, the other faults stay in it. Some faults need the right to mount
file systems; without it they are left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.provenance import provenance
from benchmarks.serving_proof import clients, kills, storage
from benchmarks.serving_proof.answers import Expected, copy_of
from benchmarks.serving_proof.outcome import Outcome
from benchmarks.serving_proof.results import row, show, write
from benchmarks.serving_proof.scenes import TINY, make_workspace, tasks_for, texts_of
from benchmarks.serving_proof.servers import Server, serving

GROUPS = ("kills", "storage", "clients")
TOP_N = 100
KILLS = 50
"""Kills of each kind of server: of one process, and of several."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one try of most faults")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="the others stay in the result file")
    parser.add_argument("--keep", action="store_true", help="write the result file")
    options = parser.parse_args(arguments)
    made_by, start = provenance(), time.monotonic()
    outcomes = []
    for outcome in measure(options.only, quick=options.quick):
        outcomes.append(outcome)
        show(outcome.rows())
        print(dict(outcome.noted), *outcome.failures[:10], sep="\n  ", flush=True)
    if options.keep:
        rows = [one for outcome in outcomes for one in outcome.rows()]
        if "kills" in options.only:
            killed = sum(outcome.tries for outcome in outcomes if outcome.what in kills.KILLED.values())
            rows.insert(0, row("kills", killed))
        circumstances = (
            "Four clients asked all the time, three with one text and one with 16; each answer was compared with that "
            "of the generation that it names. A client that lost its connection or was told to come back (503) tried "
            "again, and its wait is that of all its attempts. Failures are wrong or missing answers, answers with 500, "
            "accepted jobs that were not done exactly once, and damage that stays"
        )
        more = {"backbone": TINY, "seconds": round(time.monotonic() - start, 1)}
        details = {outcome.what: {**asdict(outcome), "noted": dict(outcome.noted)} for outcome in outcomes}
        remarks = [outcome.remark for outcome in outcomes if outcome.remark]
        partial = set(options.only) != set(GROUPS)
        print(write("serving-faults", made_by, circumstances, rows, remarks, details=details, partial=partial, **more))


def measure(groups: Sequence[str] = GROUPS, *, quick: bool = False) -> Iterator[Outcome]:
    """Cause faults; yield the outcome of each kind.

    Args:
        groups: Which kinds.
        quick: Whether to cause few, as a check of the script.
    """
    tasks = tasks_for(TINY)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learner = make_workspace(folder / "base", TINY, tasks[:3])
        learner.close()
        numbers = iter(range(100))

        def scene() -> tuple[Path, Path, Expected]:
            own = folder / str(next(numbers))
            own.mkdir()
            expected = Expected(texts_of(tasks[:3], 48), TOP_N)
            path = copy_of(learner.path, own / "ws")
            expected.note(path)
            return path, own, expected

        def often(tries: int) -> int:
            return 1 if quick else tries

        if "kills" in groups:
            for workers in (1,) if quick else (1, 2):
                yield kills.kill_processes(*scene(), tasks[0], workers, 2 if quick else KILLS)
        if "storage" in groups:
            changing: list[tuple[Callable[..., Outcome], int]] = [
                (storage.fill_disk, 8),
                (storage.delete_workspace, 2),
                (storage.forbid_writing, 2),
                (storage.lock_databases, 6),
                (storage.shift_clock, 6),
            ]
            for cause, tries in changing if not quick else changing[:1]:
                yield cause(*scene(), tasks[0], often(tries))
            for kind in ("adapter_model.safetensors", ".sqlite", ".json"):
                yield storage.damage_files(*scene(), kind, often(20))
            yield storage.damage_records(*scene(), often(500))
        if "clients" in groups:
            yield from slow_and_silent(*scene(), quick=quick)


def slow_and_silent(path: Path, folder: Path, expected: Expected, *, quick: bool) -> Iterator[Outcome]:
    """Yield the outcomes of clients that keep a server waiting."""
    causes: list[tuple[Callable[..., Outcome], int]] = [
        (clients.send_slowly, 50),
        (clients.half_open, 200),
        (clients.idle, 1000),
        (clients.read_slowly, 64),
    ]
    with serving(Server(path, folder, clients.SETTINGS)) as server:
        for cause, tries in causes:
            yield cause(server, expected, tries // 10 if quick else tries)


if __name__ == "__main__":
    main(sys.argv[1:])
