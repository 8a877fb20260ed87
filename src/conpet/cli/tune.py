"""`conpet tune`: search for good settings within a budget."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from conpet.cli.changes import with_wait
from conpet.cli.console import INTERRUPTED, line, messages, output, print_json, stages
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    Sheet,
    TextColumn,
    Wait,
    WorkspacePath,
    reading,
)
from conpet.cli.workspace import open_workspace
from conpet.errors import UnknownNameError

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.commands.tune import Objective
    from conpet.data import Task
    from conpet.data.raw import ReadOptions
    from conpet.report.design import TuneReport


def tune(
    workspace: WorkspacePath,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="File or folder of a task, folder of a stream (its first task is used), or name of a learned task.",
            show_default=False,
        ),
    ],
    seconds: Annotated[float | None, typer.Option(help="Time limit in seconds.", show_default=False)] = None,
    passes: Annotated[
        float | None,
        typer.Option(
            help="Limit in forward-pass equivalents: forward passes of the whole backbone over one example (a "
            "backward pass counts as two).",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Most designs to try.", show_default=False)] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="accuracy|composite",
            help="Choose the cheapest design that is not clearly worse than the best, or the one with the lowest "
            "composite score (`conpet cost`).",
        ),
    ] = "accuracy",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Search and print, but change nothing.")] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    as_json: AsJson = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Search for the best frozen layers, rank, targets, learning rate, epochs and warm-up, and apply them.

    Designs are compared on validation examples. Give a limit: --seconds, --passes or --trials.
    If the workspace has learned a task, its frozen layers and warm-up do not change.
    """
    options = reading(
        text=text_column,
        label=label_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    if objective not in ("accuracy", "composite"):
        raise typer.BadParameter(f"{objective!r}: give accuracy or composite", param_hint="--objective")
    opened = open_workspace(workspace, backbone, device, to_change=not dry_run)
    source = _source(opened, task, options)
    try:
        with stages(source if isinstance(source, str) else source.name) as progress:
            result = with_wait(
                wait,
                lambda wait_seconds: opened.tune(
                    source,
                    seconds=seconds,
                    passes=passes,
                    trials=trials,
                    objective=cast("Objective", objective),
                    dry_run=dry_run,
                    wait_seconds=wait_seconds,
                    progress=progress,
                ),
            )
    except KeyboardInterrupt:
        line("stopped: nothing changed", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _print(result, workspace)


def _source(workspace: ConPET, task: str, options: ReadOptions) -> Task | str:
    """Return the task at a path, or the name of a learned task."""
    from conpet.data import read_stream
    from conpet.data.raw import ReadOptions

    if Path(task).exists():
        found = read_stream(task, seed=workspace.settings.seed, **asdict(options))[0]
        for note in found.notes:
            line(f"{found.name}: {note}", messages())
        return found
    learned = [known.name for known in workspace.tasks]
    if task in learned:
        if options != ReadOptions():
            raise typer.BadParameter(f"{task} is a learned task: leave out the options for reading files")
        return task
    learned_names = ", ".join(learned) or "none yet"
    raise UnknownNameError(
        f"{task}: there is no such file or folder, and no learned task of this name; learned: {learned_names}"
    )


def _print(result: TuneReport, workspace: Path) -> None:
    from conpet.evaluation.composite import shown_money
    from conpet.report import text
    from conpet.report.tables import trials_table

    out = output()
    for note in result.notes:
        line(note, out)
    out.print(trials_table(result))
    out.print()
    line(f"chosen: {result.choice.design}", out)
    line(
        f"{text.percent(result.choice.accuracy)} of {result.validation:,} validation examples; before "
        f"{text.percent(result.before.accuracy)}",
        out,
    )
    if result.choice.score is not None:
        before = "" if result.before.score is None else f"; before {shown_money(result.before.score)}"
        line(f"composite score, money for 1,000 answers: {shown_money(result.choice.score)}{before}", out)
    tried = text.plural(len(result.trials), "design")
    line(f"cost: {text.duration(result.seconds)}, {result.passes:,.0f} forward-pass equivalents, {tried}", out)
    if not result.applied:
        line("dry run: nothing changed", out)
    elif result.choice.design == result.before.design:
        line("no better design: the settings are unchanged", out)
    else:
        line(f"applied to {workspace}; next: conpet learn {workspace} TASK_OR_STREAM", out, "dim")
