"""`conpet tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.changes import patiently
from conpet.cli.console import INTERRUPTED, line, messages, output, print_json, stages
from conpet.cli.options import AsJson, BackboneMoved, Device, Wait, WorkspacePath
from conpet.cli.workspace import open_workspace
from conpet.errors import UnknownNameError

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.data import Task
    from conpet.report.design import TuneReport


def tune(
    workspace: WorkspacePath,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A task's file or folder; a stream's folder, for its first task; or the name of a learned task.",
            show_default=False,
        ),
    ],
    seconds: Annotated[float | None, typer.Option(help="Limit in seconds.", show_default=False)] = None,
    passes: Annotated[
        float | None,
        typer.Option(
            help="Limit in forward-pass equivalents: passes of the whole backbone over one example (a backward pass "
            "counts as two).",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Limit in designs.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Search and print, but change nothing.")] = False,
    as_json: AsJson = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Search for split, rank, targets, learning rate, epochs and warm-up by validation, and set them.

    Give a limit: --seconds, --passes or --trials.
    In a workspace that has learned something, split and warm-up stay as they are.
    """
    opened = open_workspace(workspace, backbone, device)
    source = _source(opened, task)
    try:
        with stages(source if isinstance(source, str) else source.name) as progress:
            found = patiently(
                wait,
                lambda patience: opened.tune(
                    source,
                    seconds=seconds,
                    passes=passes,
                    trials=trials,
                    dry_run=dry_run,
                    wait_seconds=patience,
                    progress=progress,
                ),
            )
    except KeyboardInterrupt:
        line("stopped: nothing was changed", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found, workspace)


def _source(workspace: ConPET, task: str) -> Task | str:
    """Return the task of a path, or else the name as it is."""
    from conpet.data import read_stream

    if Path(task).exists():
        return read_stream(task, seed=workspace.settings.seed)[0]
    learned = [known.name for known in workspace.tasks]
    if task in learned:
        return task
    have = ", ".join(learned) or "none yet"
    raise UnknownNameError(f"{task}: no such file or folder, and no task of this name was learned; have: {have}")


def _print(found: TuneReport, workspace: Path) -> None:
    from conpet.report import text
    from conpet.report.tables import trials_table

    out = output()
    for note in found.notes:
        line(note, out)
    out.print(trials_table(found))
    out.print()
    line(f"chosen: {found.choice.design}", out)
    line(
        f"{text.percent(found.choice.accuracy)} of {found.validation:,} validation examples; before "
        f"{text.percent(found.before.accuracy)}",
        out,
    )
    tried = text.plural(len(found.trials), "design")
    line(f"cost: {text.duration(found.seconds)}, {found.passes:,.0f} forward-pass equivalents, {tried}", out)
    if not found.applied:
        line("a dry run: nothing was changed", out)
    elif found.choice.design == found.before.design:
        line("nothing better found: the settings are what they were", out)
    else:
        line(f"these are the settings of {workspace} now; next: conpet learn {workspace} TASK_OR_STREAM", out, "dim")
