"""`conpet upgrade` and `conpet merge`: change from one shared module to one per task, and merge modules."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from conpet.cli.changes import confirm, print_accuracy, run_change
from conpet.cli.console import line, print_json
from conpet.cli.options import AsJson, BackboneMoved, Device, NoEvaluate, NoGate, Wait, WorkspacePath, Yes
from conpet.cli.workspace import open_workspace


def upgrade(
    workspace: WorkspacePath,
    method: Annotated[str, typer.Option(help="The new method.")] = "dynamic",
    fusion: Annotated[
        str,
        typer.Option(help="How scores are combined into one ranking: paper (answers do not change) or calibrated."),
    ] = "paper",
    selector: Annotated[
        str | None,
        typer.Option(help="How the task of an input is found: linear or prototypes.", show_default="the workspace's"),
    ] = None,
    yes: Yes = False,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Change a workspace from one module for all tasks to one module per new task.

    The existing module is frozen and continues to serve the labels learned so far.
    """
    from conpet.commands.checks import upgraded_settings

    opened = open_workspace(workspace, backbone, device, to_change=True)
    with opened.store.snapshot() as snapshot:
        upgraded_settings(snapshot, method, fusion, selector)
    former = opened.settings.method.name
    confirm(f"Upgrade from {former} to {method}? Inactive versions of tasks lose their module.", yes)
    change = partial(opened.upgrade, method, fusion=fusion, selector=selector, gate=not no_gate)
    evaluation = run_change("upgrade", wait, no_evaluate, change)
    line(
        f"{workspace}: method {method} instead of {former}, fusion {fusion}; one frozen module serves all labels so far"
    )
    if evaluation is not None:
        print_accuracy(evaluation, len(opened.labels))


def merge(
    workspace: WorkspacePath,
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK TASK...", help="Names of the tasks, two or more.", show_default=False)
    ],
    bound: Annotated[
        float, typer.Option(metavar="POINTS", help="Largest accepted drop of accuracy on their validation examples.")
    ] = 1.0,
    yes: Yes = False,
    as_json: AsJson = False,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Train one module on the stored examples of several tasks, and share it unless accuracy drops too far."""
    from conpet.commands.checks import mergeable
    from conpet.report import text

    opened = open_workspace(workspace, backbone, device, to_change=True)
    with opened.store.snapshot() as snapshot:
        mergeable(snapshot, tasks, bound)
    confirm(f"Merge the modules of {', '.join(tasks)}? Their present modules are deleted.", yes)
    report = run_change("merge", wait, no_evaluate, partial(opened.merge, tasks, bound=bound, gate=not no_gate))
    if as_json:
        print_json(report.to_json())
        return
    line(f"{', '.join(report.tasks)}: now share one module")
    line(
        f"accuracy on their validation examples: {text.percent(report.after.accuracy)}, before "
        f"{text.percent(report.before.accuracy)} (of {report.before.total:,})"
    )
    line(f"stored: {text.size(report.bytes_after)}, before {text.size(report.bytes_before)}")
    if report.evaluation is not None:
        print_accuracy(report.evaluation, len(opened.labels))
