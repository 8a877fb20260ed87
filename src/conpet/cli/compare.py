"""`conpet compare`: find the learner that pays on the user's data."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import INTERRUPTED, line, messages, output, print_json, stages
from conpet.cli.options import (
    AsJson,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    Sheet,
    TextColumn,
    assignments,
    reading,
    reading_arguments,
    require_path,
)
from conpet.config import DEFAULT_BACKBONE, Settings
from conpet.report.comparison import LEARNERS

if TYPE_CHECKING:
    from conpet.report.comparison import ComparisonReport

_WORKSPACE = "WORKSPACE"


def compare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="TASK_OR_STREAM",
            help="A data file, or a folder, as for `conpet learn`.",
            show_default=False,
        ),
    ],
    learners: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=(
                "Methods to compare, with commas; METHOD+consolidate also consolidates after the last task, "
                "METHOD+consolidate-top only the top layers."
            ),
        ),
    ] = ",".join(LEARNERS),
    divisions: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Random divisions of the validation examples; the time grows with their number."
        ),
    ] = 1,
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
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Find out which method pays on your data, before you create a workspace.

    Learns the tasks with each learner in a temporary workspace and measures accuracy, time and storage.
    Half of the validation examples go to the learners; accuracy is measured on the other half, over several divisions
    with --divisions. Test examples are not used. Prints the expected time before it starts.
    Recommends the cheapest learner that is not clearly worse than the best, and prints the commands to use it.
    """
    direct = {"backbone.name": backbone, "backbone.device": device, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in direct.items() if value is not None}
    if twice := given.keys() & (own := assignments(settings or [])).keys():
        raise typer.BadParameter(f"{min(twice)} has an option of its own", param_hint="--set")
    Settings().changed(given | own)  # wrong ones are reported before torch is imported
    options = reading(
        text=text_column,
        label=label_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    require_path(source, "nothing was compared")
    names = [name.strip() for name in learners.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("name at least one method", param_hint="--learners")
    from conpet.comparison import compare_learners
    from conpet.data import read_stream

    tasks = read_stream(source, seed=(given | own).get("seed", 0), **asdict(options))
    for task in tasks:
        for note in task.notes:
            line(f"{task.name}: {note}", messages())
    try:
        with stages("comparing") as progress:
            report = compare_learners(
                tasks,
                names,
                divisions=divisions,
                progress=progress,
                announce=lambda said: line(said, messages()),
                **given,
                **own,
            )
    except KeyboardInterrupt:
        line("stopped: the temporary workspaces are deleted", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None
    commands = _commands(report, [str(source), *reading_arguments(options)], given, settings or [])
    if as_json:
        print_json(report.model_dump(mode="json") | {"commands": commands})
    else:
        _print(report, commands)


def _commands(report: ComparisonReport, source: list[str], given: dict[str, Any], settings: list[str]) -> list[str]:
    """Return the commands that learn the data with the chosen learner.

    Args:
        report: The comparison.
        source: The arguments of `conpet learn` that name the data, and how to read it.
        given: Settings given by options of their own.
        settings: Settings given with --set.
    """
    options = {"backbone.name": "--backbone", "backbone.device": "--device", "seed": "--seed"}
    init = ["conpet", "init", _WORKSPACE, "--method", report.choice.method]
    for name, value in given.items():
        init += [] if (name, value) == ("backbone.name", DEFAULT_BACKBONE) else [options[name], str(value)]
    for assignment in settings:
        init += ["--set", assignment]
    commands = [init, ["conpet", "learn", _WORKSPACE, *source]]
    if report.choice.consolidated:
        fall = report.choice.fall
        top = ["--set", "layers=top"] if report.choice.only_top else []
        commands.append(["conpet", "consolidate", _WORKSPACE, *top, *(["--bound", str(ceil(fall))] if fall else [])])
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
    several = f" in {report.divisions} divisions (all figures are means)" if report.divisions > 1 else ""
    reading = text.duration(report.reading_seconds)
    line(
        f"measured on {report.distinct:,} validation examples of {text.plural(report.labels, 'label')} that no learner "
        f"saw{several}; p: exact sign test against the best; reading the examples took {reading}",
        out,
    )
    line(str(report), out, "bold")
    for command in commands:
        line(f"  {command}", out)
