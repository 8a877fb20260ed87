"""Do the runs of an experiment that have no result yet, in parallel processes."""

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
"""Folder of unfinished runs, inside the folder of results."""
_QUIET_SECONDS = 60.0
_DERIVED = {"backbone.frozen_layers": None, "features.layers": None, "backbone.dtype": "auto"}
"""Settings that a new workspace derives from the backbone, with the value that requests this."""
Outcome = tuple[Result | None, str, float]
"""The result or None, the error message, and the seconds taken."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run.

    Attributes:
        run: The run.
        result: Its result, or None if it failed.
        failure: The error message if it failed, else "".
        seconds: Its total wall time.
        done: Number of runs finished so far, including failed ones.
        total: Number of runs to do.
        left_seconds: Estimated time of the remaining runs, or None if no run has succeeded yet.
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
        folder: The folder of results.

    Raises:
        ConfigError: There are results of an older version of the experiment.
        CorruptionError: A file in the folder is not a result.
    """
    remaining, stale = [], []
    for run in runs:
        path = folder / run.file
        if not path.exists():
            remaining.append(run)
        elif (result := Result.read(path)).asked != run.asked:
            stale.append(f"{path}{_changes(result, run)}")
    if stale:
        shown = "\n  ".join(stale[:10]) + (f"\n  and {len(stale) - 10} more" if len(stale) > 10 else "")
        raise ConfigError(
            f"the experiment changed after {len(stale)} of its results were written; remove them, or give another "
            f"folder for new results (--results):\n  {shown}"
        )
    return remaining


def _changes(result: Result, run: Run) -> str:
    """Describe how settings and sizes of a result differ from those of the run."""
    before = flat(result.settings)
    changed = [
        f"{name} {before.get(name)} then, {value} now"
        for name, value in flat(run.given).items()
        if before.get(name) != value and not (name in _DERIVED and value == _DERIVED[name])
    ]
    sizes = {subset: getattr(run.source, subset) for subset in result.protocol.examples}
    changed += [
        f"{subset} {result.protocol.examples[subset]} then, {size} now"
        for subset, size in sizes.items()
        if result.protocol.examples[subset] != size
    ]
    return f": {', '.join(changed)}" if changed else ""


def perform(
    runs: Sequence[Run],
    folder: Path,
    *,
    data_folders: Sequence[Path] = (),
    workers: int = 1,
    threads: int | None = None,
    on_finished: Callable[[Finished], None],
    on_progress: Callable[[Mapping[Run, int]], None] = lambda tasks: None,
) -> None:
    """Do runs and write their results. A failed run does not stop the others.

    After an interruption, the next call resumes: finished runs and finished tasks are not repeated.

    Args:
        runs: The runs, without results.
        folder: Folder for the results.
        data_folders: Folders to search for data sets.
        workers: Number of parallel runs.
        threads: Threads per run; None for the number of cores divided by `workers`.
        on_finished: Called after every run.
        on_progress: Called once a minute while no run finishes, with the number of finished tasks of each started run.

    Raises:
        WorkspaceBusyError: Another process writes results to this folder.
        ConfigError: A worker process was killed, most likely because memory ran out.
    """
    (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
    each = threads or max(1, (os.cpu_count() or 1) // workers)
    made_by = provenance() | {"workers": workers, "threads": each}
    lock = FileLock(folder / SCRATCH / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkspaceBusyError(f"another process is writing results to {folder}; wait for it, or stop it") from None
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _prepare, (each,)) as pool:
            try:
                _collect(
                    pool, runs, folder, data_folders, made_by, _Clock(workers, len(runs)), on_finished, on_progress
                )
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
    on_finished: Callable[[Finished], None],
    on_progress: Callable[[Mapping[Run, int]], None],
) -> None:
    futures = {pool.submit(_do, run, folder, tuple(data_folders), made_by): run for run in runs}
    while futures:
        done, _ = wait(futures, _QUIET_SECONDS, FIRST_COMPLETED)
        if not done:
            progress = {run: _tasks_done(folder / SCRATCH / run.file.with_suffix("")) for run in futures.values()}
            on_progress({run: tasks for run, tasks in progress.items() if tasks is not None})
        for future in done:
            run = futures.pop(future)
            result, failure, seconds = _outcome(future)
            clock.note(run, seconds, failed=bool(failure))
            on_finished(Finished(run, result, failure, seconds, clock.done, clock.total, clock.left(futures.values())))


def _tasks_done(scratch: Path) -> int | None:
    """Return the number of finished tasks of a run, or None if it has not started."""
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
            "a worker process was killed, most likely because memory ran out; run the same command again to resume, "
            "with fewer --workers if necessary"
        ) from None


@dataclass
class _Clock:
    """Estimates the remaining time from the times of finished runs."""

    workers: int
    total: int
    done: int = 0
    took: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, run: Run, seconds: float, *, failed: bool) -> None:
        self.done += 1
        for key in () if failed else _similarity_keys(run):
            self.took[key].append(seconds)

    def left(self, waiting: Iterable[Run]) -> float | None:
        return sum(self._expected(run) for run in waiting) / self.workers if self.took else None

    def _expected(self, run: Run) -> float:
        return next(median(self.took[key]) for key in _similarity_keys(run) if key in self.took)


def _similarity_keys(run: Run) -> list[tuple[str, ...]]:
    """Return keys of runs that may take a similar time, the most specific first."""
    return [(run.learner, run.data, run.variant), (run.learner, run.data), (run.learner,), ()]


def _prepare(threads: int) -> None:
    """Set up a worker process: it ends with its parent, and leaves Ctrl-C to the parent."""
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
    except Exception as error:  # noqa: BLE001 - the other runs continue; unexpected errors are reported with traceback
        result, failure = None, str(error) if isinstance(error, ConpetError) else traceback.format_exc()
        shutil.rmtree(scratch, ignore_errors=True)  # the next attempt starts from the beginning
    return result, failure, time.perf_counter() - started
