"""`conpet evaluate`: measure accuracy on the test examples."""

from __future__ import annotations

from conpet.cli.console import line, output, print_json, stages
from conpet.cli.options import AsJson, BackboneMoved, Device, WorkspacePath
from conpet.cli.workspace import open_workspace


def evaluate(
    workspace: WorkspacePath, as_json: AsJson = False, backbone: BackboneMoved = None, device: Device = None
) -> None:
    """Evaluate on the test examples of all tasks and compare with the reference classifiers. Changes nothing."""
    from conpet.commands.report import evaluated, overall, report_data
    from conpet.report.tables import final_table, tasks_table

    opened = open_workspace(workspace, backbone, device)
    data = report_data(opened.store)
    if data.tasks:
        with stages(data.workspace.name) as progress:
            data = evaluated(data, opened.evaluate(progress))
    last = overall(data)
    if as_json:
        print_json(dict(data.summary))
    elif last is None or not data.tasks:
        line(f"{workspace} has learned nothing yet; next: conpet learn {workspace} TASK_OR_STREAM")
    else:
        out = output()
        out.print(tasks_table(data.tasks, last))
        out.print()
        out.print(final_table(last, data.workspace.backbone))
