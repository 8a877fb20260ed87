"""`conpet labels`: list, rename, split and retire labels."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.changes import confirm, print_accuracy, run_change
from conpet.cli.console import line, output, print_json
from conpet.cli.help import App
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    NoEvaluate,
    NoGate,
    Sheet,
    TextColumn,
    Wait,
    WorkspacePath,
    Yes,
    reading,
    require_path,
)
from conpet.cli.workspace import open_workspace

if TYPE_CHECKING:
    from conpet.types import LearnReport

app = App(help="List, rename, split and retire labels.", no_args_is_help=True)
Label = Annotated[str, typer.Argument(metavar="LABEL", help="The label.", show_default=False)]


@app.command("list")
def list_(workspace: WorkspacePath, as_json: AsJson = False) -> None:
    """List every label with the task it belongs to."""
    from conpet.store import Store

    with Store.open(workspace).snapshot() as snapshot:
        rows = [
            {"label": label, "task": task.name, "version": task.active.number}
            for task in snapshot.tasks
            for label in task.active.labels
        ]
    if as_json:
        print_json(rows)
    elif not rows:
        line(f"{workspace} has no labels yet; next: conpet learn {workspace} TASK_OR_STREAM")
    else:
        _print_list(rows)


@app.command()
def rename(
    workspace: WorkspacePath,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The label.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Rename a label: its task gets a new version with the same weights."""
    opened = open_workspace(workspace, backbone, device, to_change=True)
    report = run_change(old, wait, no_evaluate, partial(opened.rename, old, new, gate=not no_gate))
    line(f"{old}: renamed to {new} ({report.task} version {report.version})")
    _print_evaluation(report)


@app.command()
def retire(
    workspace: WorkspacePath,
    label: Label,
    yes: Yes = False,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Remove a label with its examples and statistics, and all older versions of its task, since they contain it.

    Kept generations that contain it are dropped, too.
    """
    from conpet.commands.generations import holding
    from conpet.report import text

    opened = open_workspace(workspace, backbone, device, to_change=True)
    kept = holding(opened.store, opened.owners.get(label, ""), [label])
    dropped = f" Kept generations that contain it are deleted: {', '.join(map(str, kept))}." if kept else ""
    confirm(f"Retire {label!r} and delete its examples and all older versions of its task?{dropped}", yes)
    report = run_change(label, wait, no_evaluate, partial(opened.retire, label, gate=not no_gate))
    left = f"{text.plural(report.labels, 'label')} of {report.task} {'is' if report.labels == 1 else 'are'} left"
    line(f"{label}: retired; {left} (version {report.version})")
    if kept:
        line(dropped.strip())
    _print_evaluation(report)


@app.command()
def split(
    workspace: WorkspacePath,
    label: Label,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Examples of the finer labels: a file, or a folder as for `learn`.", show_default=False
        ),
    ],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Allow FILE to contain none of the stored examples of the label; all of them are dropped."
        ),
    ] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Replace a label with finer labels; its task is trained again as a new version.

    Stored examples of the label that are not in FILE are dropped.
    """
    from conpet.data import read_examples

    options = reading(
        text=text_column,
        label=label_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    require_path(source, "nothing was changed")
    opened = open_workspace(workspace, backbone, device, to_change=True)
    examples = read_examples(source, **asdict(options), note=line)
    change = partial(opened.split_label, label, examples, replace=replace, gate=not no_gate)
    report = run_change(label, wait, no_evaluate, change)
    for note in report.notes:
        line(f"{report.task}: {note}")
    line(f"{label}: split; {report.task} version {report.version} has {report.labels} labels")
    _print_evaluation(report)


def _print_evaluation(report: LearnReport) -> None:
    if report.evaluation is not None:
        print_accuracy(report.evaluation, report.labels_seen)


def _print_list(rows: list[dict[str, object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("label", "task", "v."):
        table.add_column(name, justify="right" if name == "v." else "left", no_wrap=True)
    for row in rows:
        table.add_row(Text(str(row["label"])), Text(str(row["task"])), str(row["version"]))
    output().print(table)
