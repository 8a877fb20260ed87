"""`conpet upgrade` and `conpet merge`: one module for all that becomes many, and many that become one."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from conpet.cli.changes import confirm, made, say_accuracy
from conpet.cli.console import line, print_json
from conpet.cli.options import AsJson, BackboneMoved, Device, NoEvaluate, Wait, WorkspacePath, Yes
from conpet.cli.workspace import open_workspace


def upgrade(
    workspace: WorkspacePath,
    method: Annotated[str, typer.Option(help="The method to go on with.")] = "dynamic",
    fusion: Annotated[
        str,
        typer.Option(help="How scores become one ranking: paper (answers stay what they are) or calibrated."),
    ] = "paper",
    selector: Annotated[
        str | None,
        typer.Option(help="What finds an input's task: closed-form or prototypes.", show_default="the workspace's"),
    ] = None,
    yes: Yes = False,
    no_evaluate: NoEvaluate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Let a workspace with one module for all tasks go on with a module for each new one.

    The one module is frozen and goes on serving the labels learned so far.
    """
    from conpet.commands.checks import upgraded_settings

    opened = open_workspace(workspace, backbone, device)
    with opened.store.snapshot() as snapshot:
        upgraded_settings(snapshot, method, fusion, selector)
    former = opened.settings.method.name
    confirm(f"Upgrade from {former} to {method}? Versions of tasks that are not in use lose their module.", yes)
    change = partial(opened.upgrade, method, fusion=fusion, selector=selector)
    evaluation = made("upgrade", wait, no_evaluate, change)
    line(
        f"{workspace}: method {method} in place of {former}, fusion {fusion}; "
        "one frozen module serves all labels so far"
    )
    if evaluation is not None:
        say_accuracy(evaluation.whole_accuracy, len(opened.labels))


def merge(
    workspace: WorkspacePath,
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK TASK...", help="Names of the tasks, two or more.", show_default=False)
    ],
    bound: Annotated[
        float, typer.Option(metavar="POINTS", help="How far accuracy on their validation examples may fall.")
    ] = 1.0,
    yes: Yes = False,
    as_json: AsJson = False,
    no_evaluate: NoEvaluate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Let several tasks share one module, trained on their stored examples, unless that costs too much accuracy."""
    from conpet.commands.checks import mergeable
    from conpet.report import text

    opened = open_workspace(workspace, backbone, device)
    with opened.store.snapshot() as snapshot:
        mergeable(snapshot, tasks, bound)
    confirm(f"Merge the modules of {', '.join(tasks)}? Those they have now are deleted.", yes)
    report = made("merge", wait, no_evaluate, partial(opened.merge, tasks, bound=bound))
    if as_json:
        print_json(report.to_json())
        return
    line(f"{', '.join(report.tasks)}: one module serves them all")
    line(
        f"right on their validation examples: {text.percent(report.after.accuracy)}, before "
        f"{text.percent(report.before.accuracy)} (of {report.before.total:,})"
    )
    line(f"stored: {text.size(report.bytes_after)}, before {text.size(report.bytes_before)}")
    if report.evaluation is not None:
        say_accuracy(report.evaluation.whole_accuracy, len(opened.labels))
