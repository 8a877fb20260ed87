"""`conpet bench run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line, messages, output
from conpet.cli.options import DataFolders
from conpet.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from conpet.bench.experiment import Run
    from conpet.bench.runner import Finished

ExperimentFile = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT", help="The experiment: a YAML file.", show_default=False)
]


def run(
    experiment: ExperimentFile,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder for the results.", show_default="results/NAME beside the experiment"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs beside each other.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each run.", show_default="cores / workers")
    ] = None,
    learner: Annotated[list[str] | None, typer.Option(help="Only these learners.", show_default=False)] = None,
    data: Annotated[list[str] | None, typer.Option(help="Only these data sets.", show_default=False)] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants.", show_default=False)] = None,
    orders: Annotated[int | None, typer.Option(min=1, help="Only the first orders.", show_default=False)] = None,
    full: Annotated[
        bool, typer.Option("--full", help="The full sizes, as the experiment's key `full` has them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs that are missing and do none.")] = False,
    data_folder: DataFolders = None,
) -> None:
    """Do the runs of an experiment that have no result yet; stopped at any point, it goes on where it was."""
    from conpet.bench.checks import check_runs
    from conpet.bench.experiment import Experiment
    from conpet.bench.runner import missing, perform

    asked = Experiment.read(experiment, full=full)
    name = f"{experiment.stem}-full" if full else experiment.stem
    folder = results or experiment.parent / "results" / name
    _check("learner", learner, asked.learners)
    _check("data", data, asked.data)
    _check("variant", variant, asked.variants)
    if orders is not None and orders > asked.orders:
        there = f"orders 0 to {asked.orders - 1}" if asked.orders > 1 else "order 0 alone"
        raise ConfigError(
            f"--orders {orders}: the experiment has {there}; ask for {asked.orders} at most, or raise 'orders' in "
            f"{experiment}"
        )
    wanted = [
        one
        for one in asked.runs(name)
        if (not learner or one.learner in learner)
        and (not data or one.data in data)
        and (not variant or one.variant in variant)
        and (orders is None or one.order < orders)
    ]
    left = missing(wanted, folder)
    line(f"{asked.title}: {len(wanted)} runs, {len(wanted) - len(left)} have a result, {len(left)} to do", messages())
    folders = [*(data_folder or ()), experiment.parent]
    for note in check_runs(wanted, folder, folders):
        line(f"note: {note}", messages())
    if dry_run:
        for one in left:
            line(str(one))
        return
    failed: list[Run] = []

    def heard(one: Finished) -> None:
        line(_told(one), output())
        if one.failure:
            failed.append(one.run)
            line(one.failure, messages(), "red")

    if left:
        try:
            perform(
                left,
                folder,
                data_folders=folders,
                workers=workers,
                threads=threads,
                heard=heard,
                under_way=lambda tasks: line(_under_way(tasks), messages()),
            )
        except KeyboardInterrupt:
            line("interrupted; the same command goes on after the last finished task of every run", messages())
            raise
    if failed:
        others = f"; the other results are in {folder}" if len(failed) < len(left) else ""
        raise ConfigError(
            f"{len(failed)} of {len(left)} runs failed, as told above{others}. The same command tries them again"
        )
    line(f"results: {folder}; next: conpet bench table {folder}", messages())


def _check(kind: str, asked: list[str] | None, known: Mapping[str, object]) -> None:
    if unknown := sorted(set(asked or ()) - known.keys()):
        if not any(known):
            raise ConfigError(f"the experiment has no {kind} {unknown[0]}, for it names no {kind}s; leave --{kind} out")
        meant = did_you_mean(unknown[0], known)
        raise ConfigError(f"the experiment has no {kind} {', '.join(unknown)}{meant}; have: {', '.join(known)}")


def _under_way(tasks: Mapping[Run, int]) -> str:
    return "under way: " + "; ".join(f"{run} ({done} tasks done)" for run, done in tasks.items())


def _told(one: Finished) -> str:
    accuracy = one.result.metrics["whole_accuracy"] if one.result else None
    what = "FAILED" if one.result is None else "done" if accuracy is None else f"whole accuracy {accuracy:.1%}"
    left = f"; {_duration(one.left_seconds)} left" if one.left_seconds and one.done < one.total else ""
    return f"[{one.done}/{one.total}] {one.run}: {what} ({one.seconds:.0f} s){left}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
