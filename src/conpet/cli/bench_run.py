"""`conpet bench run`: do the runs of an experiment."""

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
        typer.Option(help="Folder for the results.", show_default="results/NAME next to the experiment"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of runs at a time.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads per run.", show_default="cores / workers")] = None,
    learner: Annotated[list[str] | None, typer.Option(help="Only these learners.", show_default=False)] = None,
    data: Annotated[list[str] | None, typer.Option(help="Only these data sets.", show_default=False)] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants.", show_default=False)] = None,
    orders: Annotated[int | None, typer.Option(min=1, help="Only the first N orders.", show_default=False)] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Run at full size, as defined by the experiment's key `full`.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the missing runs without running them.")] = False,
    data_folder: DataFolders = None,
) -> None:
    """Run all missing runs of an experiment. If interrupted, run it again to resume."""
    from conpet.bench.checks import check_runs
    from conpet.bench.experiment import Experiment
    from conpet.bench.runner import missing, perform

    chosen = Experiment.read(experiment, full=full)
    name = f"{experiment.stem}-full" if full else experiment.stem
    folder = results or experiment.parent / "results" / name
    _check("learner", learner, chosen.learners)
    _check("data", data, chosen.data)
    _check("variant", variant, chosen.variants)
    if orders is not None and orders > chosen.orders:
        available = f"orders 0 to {chosen.orders - 1}" if chosen.orders > 1 else "only order 0"
        raise ConfigError(
            f"--orders {orders}: the experiment has {available}; give at most {chosen.orders}, or raise 'orders' in "
            f"{experiment}"
        )
    wanted = [
        run
        for run in chosen.runs(name)
        if (not learner or run.learner in learner)
        and (not data or run.data in data)
        and (not variant or run.variant in variant)
        and (orders is None or run.order < orders)
    ]
    remaining = missing(wanted, folder)
    line(
        f"{chosen.title}: {len(wanted)} runs, {len(wanted) - len(remaining)} have a result, {len(remaining)} to do",
        messages(),
    )
    folders = [*(data_folder or ()), experiment.parent]
    for note in check_runs(wanted, folder, folders):
        line(f"note: {note}", messages())
    if dry_run:
        for pending in remaining:
            line(str(pending))
        return
    failed: list[Run] = []

    def on_finished(finished: Finished) -> None:
        line(_result_line(finished), output())
        if finished.failure:
            failed.append(finished.run)
            line(finished.failure, messages(), "red")

    if remaining:
        try:
            perform(
                remaining,
                folder,
                data_folders=folders,
                workers=workers,
                threads=threads,
                on_finished=on_finished,
                on_progress=lambda tasks: line(_progress_line(tasks), messages()),
            )
        except KeyboardInterrupt:
            line("interrupted; the same command continues after the last finished task of every run", messages())
            raise
    if failed:
        others = f"; the other results are in {folder}" if len(failed) < len(remaining) else ""
        raise ConfigError(
            f"{len(failed)} of {len(remaining)} runs failed (see above){others}. Run the same command to try them again"
        )
    line(f"results: {folder}; next: conpet bench table {folder}", messages())


def _check(kind: str, requested: list[str] | None, known: Mapping[str, object]) -> None:
    if unknown := sorted(set(requested or ()) - known.keys()):
        if not any(known):
            raise ConfigError(
                f"the experiment has no {kind} {unknown[0]}, because it defines no {kind}s; leave --{kind} out"
            )
        meant = did_you_mean(unknown[0], known)
        raise ConfigError(f"the experiment has no {kind} {', '.join(unknown)}{meant}; available: {', '.join(known)}")


def _progress_line(tasks: Mapping[Run, int]) -> str:
    return "running: " + "; ".join(f"{run} ({done} tasks done)" for run, done in tasks.items())


def _result_line(finished: Finished) -> str:
    accuracy = finished.result.metrics["whole_accuracy"] if finished.result else None
    what = "FAILED" if finished.result is None else "done" if accuracy is None else f"whole accuracy {accuracy:.1%}"
    left = (
        f"; {_duration(finished.left_seconds)} left" if finished.left_seconds and finished.done < finished.total else ""
    )
    return f"[{finished.done}/{finished.total}] {finished.run}: {what} ({finished.seconds:.0f} s){left}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
