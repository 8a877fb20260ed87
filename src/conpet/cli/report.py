"""`conpet report`: write the HTML and JSON report of a workspace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from conpet.cli.console import line, messages, output, stages
from conpet.cli.options import AsJson, BackboneMoved, Device, WorkspacePath
from conpet.cli.workspace import open_workspace


def report(
    workspace: WorkspacePath,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR_OR_FILE.html",
            help="Folder or page to write.",
            show_default="WORKSPACE/report/",
        ),
    ] = None,
    as_json: AsJson = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate now, for tasks that were learned with --no-evaluate.")
    ] = False,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Write the report of a workspace: one HTML page and a JSON file.

    With --json, the JSON is printed to standard output; files are written only with --output.
    """
    from conpet.commands.report import evaluated, overall, report_data
    from conpet.report.files import REPORT_FOLDER, require_report, write_report
    from conpet.report.tables import final_table
    from conpet.report.text import untested
    from conpet.store import Store

    store = Store.open(workspace)
    written = target or (None if as_json else store.path / REPORT_FOLDER)
    if written is not None:
        require_report(written)
    data = report_data(store)
    if evaluate and data.tasks:
        with stages(data.workspace.name) as progress:
            data = evaluated(data, open_workspace(workspace, backbone, device).evaluate(progress=progress))
    if as_json:
        sys.stdout.write(data.to_json() + "\n")
    if written is not None:
        files = write_report(data, written)
        last = overall(data)
        if last is not None and not as_json:
            output().print(final_table(last, data.workspace.backbone))
        if not as_json and (without := [task.name for task in data.tasks if not task.test]):
            line(untested(without))
        for file in (files.page, files.data):
            line(str(file), messages() if as_json else None)
