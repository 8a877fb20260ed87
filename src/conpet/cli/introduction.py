"""`conpet plan`: how far a workspace has come on the way to full use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line, output, print_json
from conpet.cli.options import AsJson

if TYPE_CHECKING:
    from conpet.commands.introduction import CheckedStage


def plan(
    workspace: Annotated[
        Path | None,
        typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.", show_default=False),
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of stages and conditions.", show_default="those of conpet"),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this stage and those before it.", show_default="all stages"),
    ] = None,
    show_stages: Annotated[
        bool, typer.Option("--show-stages", help="Print the file of stages, to copy and change it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the stages of introduction: what is proven, what is missing, and the command for it.

    The stages are: static on a small scope, dynamic as tasks grow, rules and audit for full use.
    The exit status is 1 if the stage asked for, or the last one, is not reached.
    """
    from conpet.commands.introduction import check_stages, read_stages, shipped_stages
    from conpet.store import Store

    if show_stages:
        sys.stdout.write(stages.read_text(encoding="utf-8") if stages is not None else shipped_stages())
        return
    if workspace is None:
        raise typer.BadParameter("give the folder of a workspace", param_hint="WORKSPACE")
    read = read_stages(stages)
    planned = check_stages(Store.open(workspace), read)
    wanted = planned.stage(stage) if stage is not None else planned.stages[-1]
    if as_json:
        print_json(planned.to_json())
    else:
        for one in planned.stages[: planned.stages.index(wanted) + 1]:
            _print(one)
        line(str(planned))
    if not wanted.reached:
        raise typer.Exit(1)


def _print(stage: CheckedStage) -> None:
    from rich.table import Table
    from rich.text import Text

    out = output()
    line(f"{stage.name}: {stage.title}{' - reached' if stage.reached else ''}", out, "bold")
    if stage.purpose:
        line(stage.purpose, out, "dim")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for number in range(3):
        table.add_column(no_wrap=number == 0, overflow="fold")
    for one in stage.conditions:
        table.add_row(
            Text("proven" if one.proven else "missing", "green" if one.proven else "red"), one.wanted, one.value
        )
    out.print(table)
    for one in stage.missing:
        why = f" ({one.why})" if one.why else ""
        line(f"  {one.wanted}{why}: {'   or: '.join(one.commands)}", out)
    line("", out)
