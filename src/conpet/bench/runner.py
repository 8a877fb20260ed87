"""Does the runs of an experiment that have no result yet, some beside each other."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock, Timeout

from conpet.bench.experiment import Run
from conpet.bench.provenance import provenance
from conpet.bench.results import STEPS, Result
from conpet.config.base import flat
from conpet.errors import ConfigError, ConpetError, WorkspaceBusyError

SCRATCH = ".running"
"""Folder, beside the results, of runs that are not finished."""
_QUIET_SECONDS = 60.0
_FOUND_OUT = {"backbone.frozen_layers": None, "features.layers": None, "backbone.dtype": "auto"}
"""Settings that creating a workspace derives from the backbone, each with the value that asks for that."""
Outcome = tuple[Result | None, str, float]
"""Result, or what went wrong, and the seconds it took."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One run that came to its end.

    Attributes:
        run: The run.
        result: What it measured, or None where it failed.
        failure: What went wrong, with where, else "".
        seconds: Wall time it took, all of it.
        done: Number of runs finished by now, failed ones too.
        total: Number of runs to do.
        left_seconds: How long the rest will take by what the runs took so far, or None before one came to its end.
    """

    run: Run
    result: Result | None
    failure: str
    seconds: float
    done: int
    total: int
    left_seconds: float | None


def missing(runs: Iterable[Run], folder: Path) -> list[Run]:
    """Return the runs without a result.

    Args:
        runs: All runs of an experiment.
        folder: Where its results stand.

    Raises:
        ConfigError: Results stand there that were asked for in another way than the runs are.
        CorruptionError: A file there is not a result.
    """
    left, stale = [], []
    for run in runs:
        path = folder / run.file
        if not path.exists():
            left.append(run)
        elif (found := Result.read(path)).asked != run.asked:
            stale.append(f"{path}{_changes(found, run)}")
    if stale:
        shown = "\n  ".join(stale[:10]) + (f"\n  and {len(stale) - 10} more" if len(stale) > 10 else "")
        raise ConfigError(
            f"the experiment was changed since {len(stale)} of its results were made; remove them, or give another "
            f"folder for the new ones (--results):\n  {shown}"
        )
    return left


def _changes(found: Result, run: Run) -> str:
    """Say in which settings and sizes a result differs from what is asked for now."""
    before = flat(found.settings)
    changed = [
        f"{name} {before.get(name)} then, {value} now"
        for name, value in flat(run.given).items()
        if before.get(name) != value and not (name in _FOUND_OUT and value == _FOUND_OUT[name])
    ]
    sizes = {split: getattr(run.source, split) for split in found.protocol.examples}
    changed += [
        f"{split} {found.protocol.examples[split]} then, {size} now"
        for split, size in sizes.items()
        if found.protocol.examples[split] != size
    ]
    return f": {', '.join(changed)}" if changed else ""


def perform(
    runs: Sequence[Run],
    folder: Path,
    *,
    data_folders: Sequence[Path] = (),
    workers: int = 1,
    threads: int | None = None,
    heard: Callable[[Finished], None],
    under_way: Callable[[Mapping[Run, int]], None] = lambda tasks: None,
) -> None:
    """Do runs and write their results; a run that fails does not keep the others from being done.

    Killed at any moment, the next call goes on: finished runs are not repeated, nor finished tasks of those under way.

    Args:
        runs: The runs, none of which has a result.
        folder: Where results are to stand.
        data_folders: Where data sets are looked for.
        workers: Number of runs beside each other.
        threads: Threads of each; None: the machine's cores divided by `workers`.
        heard: Called after every run.
        under_way: Called now and then, while none comes to its end, with the finished tasks of each run begun.

    Raises:
        WorkspaceBusyError: Another process does runs into this folder.
        ConfigError: A process was killed from outside, most likely for want of memory.
    """
    (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
    each = threads or max(1, (os.cpu_count() or 1) // workers)
    made_by = provenance() | {"workers": workers, "threads": each}
    lock = FileLock(folder / SCRATCH / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkspaceBusyError(f"another process is doing runs into {folder}; wait for it, or stop it") from None
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _prepare, (each,)) as pool:
            try:
                _collect(pool, runs, folder, data_folders, made_by, _Clock(workers, len(runs)), heard, under_way)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
    finally:
        lock.release()
    shutil.rmtree(folder / SCRATCH)


def _collect(
    pool: ProcessPoolExecutor,
    runs: Sequence[Run],
    folder: Path,
    data_folders: Sequence[Path],
    made_by: Mapping[str, Any],
    clock: _Clock,
    heard: Callable[[Finished], None],
    under_way: Callable[[Mapping[Run, int]], None],
) -> None:
    futures = {pool.submit(_do, run, folder, tuple(data_folders), made_by): run for run in runs}
    while futures:
        done, _ = wait(futures, _QUIET_SECONDS, FIRST_COMPLETED)
        if not done:
            start = {run: _tasks_done(folder / SCRATCH / run.file.with_suffix("")) for run in futures.values()}
            under_way({run: tasks for run, tasks in start.items() if tasks is not None})
        for future in done:
            run = futures.pop(future)
            result, failure, seconds = _outcome(future)
            clock.note(run, seconds, failed=bool(failure))
            heard(Finished(run, result, failure, seconds, clock.done, clock.total, clock.left(futures.values())))


def _tasks_done(scratch: Path) -> int | None:
    """Return how many tasks a run has finished, or None if it was not begun."""
    try:
        with (scratch / STEPS).open("rb") as lines:
            return (sum(1 for _ in lines) - 1) // 2
    except OSError:
        return None


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise ConfigError(
            "a process that did a run was killed from outside, most likely for want of memory; the same command goes "
            "on where it was, with fewer --workers if need be"
        ) from None


@dataclass
class _Clock:
    """Tells from what runs took how long the rest will take."""

    workers: int
    total: int
    done: int = 0
    took: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, run: Run, seconds: float, *, failed: bool) -> None:
        self.done += 1
        for key in () if failed else _likenesses(run):
            self.took[key].append(seconds)

    def left(self, waiting: Iterable[Run]) -> float | None:
        return sum(self._expected(run) for run in waiting) / self.workers if self.took else None

    def _expected(self, run: Run) -> float:
        return next(median(self.took[key]) for key in _likenesses(run) if key in self.took)


def _likenesses(run: Run) -> list[tuple[str, ...]]:
    """Return what a run has in common with others that may take as long, the most alike first."""
    return [(run.learner, run.data, run.variant), (run.learner, run.data), (run.learner,), ()]


def _prepare(threads: int) -> None:
    """Set up a worker process: it ends with the one that started it, and leaves Ctrl-C to it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(run: Run, folder: Path, data_folders: tuple[Path, ...], made_by: Mapping[str, Any]) -> Outcome:
    from conpet.bench.run import measured

    started = time.perf_counter()
    scratch = folder / SCRATCH / run.file.with_suffix("")
    failure = ""
    try:
        result = measured(run, scratch, data_folders, made_by)
        result.write(folder / run.file)
    except Exception as error:  # noqa: BLE001 - the other runs go on; it is told, of what should not be in full
        result, failure = None, str(error) if isinstance(error, ConpetError) else traceback.format_exc()
        shutil.rmtree(scratch, ignore_errors=True)  # tried again, it begins anew
    return result, failure, time.perf_counter() - started
