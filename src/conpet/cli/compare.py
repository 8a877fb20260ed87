"""`conpet compare`: find the learner that pays on the user's data."""

from __future__ import annotations

import shlex
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import INTERRUPTED, line, messages, output, print_json, stages
from conpet.cli.options import AsJson, assignments
from conpet.config import DEFAULT_BACKBONE
from conpet.report.comparison import CONSOLIDATE

if TYPE_CHECKING:
    from conpet.report.comparison import ComparisonReport

_WORKSPACE = "WORKSPACE"


def compare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="TASK_OR_STREAM",
            help="A JSONL, CSV or Parquet file; a folder with train, validation and test files; or a folder of these.",
            show_default=False,
        ),
    ],
    learners: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Methods to compare, with commas; METHOD+consolidate also consolidates after the last task.",
        ),
    ] = f"lda,logistic,dynamic,dynamic{CONSOLIDATE}",
    backbone: Annotated[str, typer.Option(help="Backbone, as for `conpet init`.")] = DEFAULT_BACKBONE,
    device: Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda, cuda:1, ...", show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of all random choices, also of the division.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of all learners (training.epochs=4); may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find out which method pays on your data, before you create a workspace.

    Learns the tasks with each learner in a temporary workspace and measures accuracy, time and storage.
    Half of the validation examples go to the learners; accuracy is measured on the other half. Test examples are not
    used. Recommends the cheapest learner that is not clearly worse than the best, and prints the commands to use it.
    """
    direct = {"backbone.name": backbone, "backbone.device": device, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in direct.items() if value is not None}
    if twice := given.keys() & (own := assignments(settings or [])).keys():
        raise typer.BadParameter(f"{min(twice)} has an option of its own", param_hint="--set")
    names = [name.strip() for name in learners.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("name at least one method", param_hint="--learners")
    from conpet.comparison import compare_learners
    from conpet.data import read_stream

    tasks = read_stream(source, seed=(given | own).get("seed", 0))
    for task in tasks:
        for note in task.notes:
            line(f"{task.name}: {note}", messages())
    try:
        with stages("comparing") as progress:
            report = compare_learners(tasks, names, progress=progress, **given, **own)
    except KeyboardInterrupt:
        line("stopped: the temporary workspaces are deleted", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None
    commands = _commands(report, source, given, settings or [])
    if as_json:
        print_json(report.model_dump(mode="json") | {"commands": commands})
    else:
        _print(report, commands)


def _commands(report: ComparisonReport, source: Path, given: dict[str, Any], settings: list[str]) -> list[str]:
    """Return the commands that learn the data with the chosen learner."""
    options = {"backbone.name": "--backbone", "backbone.device": "--device", "seed": "--seed"}
    init = ["conpet", "init", _WORKSPACE, "--method", report.choice.method]
    for name, value in given.items():
        init += [] if (name, value) == ("backbone.name", DEFAULT_BACKBONE) else [options[name], str(value)]
    for assignment in settings:
        init += ["--set", assignment]
    commands = [init, ["conpet", "learn", _WORKSPACE, str(source)]]
    if report.choice.consolidated:
        fall = report.choice.fall
        commands.append(["conpet", "consolidate", _WORKSPACE, *(["--bound", str(ceil(fall))] if fall else [])])
    return [shlex.join(command) for command in commands]


def _print(report: ComparisonReport, commands: list[str]) -> None:
    from conpet.report import text
    from conpet.report.tables import learners_table

    out = output()
    for note in report.notes:
        line(note, out)
    out.print(learners_table(report))
    out.print()
    for learner, reason in report.failed.items():
        line(f"{learner}: {reason}", out)
    for result in report.results:
        if result.fall:
            line(
                f"{result.learner}: the consolidation lowered accuracy on the learners' validation examples by "
                f"{result.fall:.1f} points, so `conpet consolidate` keeps it only with a --bound",
                out,
            )
    line(
        f"measured on {report.measured:,} validation examples of {text.plural(report.labels, 'label')} that no learner "
        f"saw; p: exact sign test against the best; reading the examples took {text.duration(report.reading_seconds)}",
        out,
    )
    line(str(report), out, "bold")
    for command in commands:
        line(f"  {command}", out)
