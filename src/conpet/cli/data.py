"""`conpet data`: check data before it is learned."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line, output, print_json
from conpet.cli.help import App
from conpet.cli.options import (
    AsJson,
    Device,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    Sheet,
    TextColumn,
    reading,
    reading_arguments,
    require_path,
)
from conpet.files import require_writable_file

if TYPE_CHECKING:
    from conpet.data.raw import ReadOptions
    from conpet.report.data_check import DataCheckReport

app = App(help="Check and clean data.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Make typer treat `check` as a subcommand although it is the only one."""


@app.command()
def check(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES|STREAM",
            help="Data files, folders with train, validation and test files, or a folder of these, in the order in "
            "which they would be learned. - reads standard input: JSON lines, or the format named by --input-format.",
            show_default=False,
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(metavar="WORKSPACE", help="Compare with the stored examples and labels of a workspace."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a cleaned copy to a new folder, with a list of what was left out."),
    ] = None,
    drop_mislabelled: Annotated[
        bool, typer.Option("--drop-mislabelled", help="Leave out rows that are probably mislabelled, too.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Skip everything that needs the backbone.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with all findings, pairs of rows side by side.")
    ] = None,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every finding.")] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Backbone that judges labels and lengths.", show_default="that of the workspace, or the default one"
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Check data for what makes learning wrong, and for what you should know.

    Errors are what `conpet learn` refuses; warnings probably cost accuracy or falsify it; notes are for information.
    Original files are never changed. Personal data is counted and masked, never printed.
    The exit status is 1 if `conpet learn` would refuse the data (with --fix: the cleaned copy), otherwise 0.
    """
    if drop_mislabelled and (fix is None or quick):
        raise typer.BadParameter(
            "it changes what --fix FOLDER writes, and cannot be combined with --quick", param_hint="--drop-mislabelled"
        )
    options = reading(
        text=text_column,
        label=label_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    for source in sources:
        require_path(source, "nothing was checked")
    if html is not None:
        require_writable_file(html)
    from conpet.commands.check_data import check_data

    report = check_data(
        sources,
        against=against,
        fix=fix,
        drop_mislabelled=drop_mislabelled,
        quick=quick,
        backbone=backbone,
        device=device,
        options=options,
    )
    if html is not None:
        _write_page(report, html)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report, sources, options, fix, html, verbose=verbose)
    if report.remaining if fix is not None else report.refused:
        raise typer.Exit(1)


def _write_page(report: DataCheckReport, path: Path) -> None:
    from datetime import datetime

    from conpet.files import written_aside
    from conpet.report.data_check_page import render_data_check

    with written_aside(path) as stream:
        stream.write(render_data_check(report, datetime.now().astimezone()))


def _print(
    report: DataCheckReport,
    sources: list[Path],
    options: ReadOptions,
    fix: Path | None,
    html: Path | None,
    *,
    verbose: bool,
) -> None:
    from conpet.errors import plural
    from conpet.report.data_check_tables import counts_table, finding_lines
    from conpet.report.text import with_short_labels

    out = output()
    line(str(report), out)
    if report.findings:
        out.print(counts_table(report))
        out.print()
    for text, style in finding_lines(report, everything=verbose):
        line(text, out, style or None)
    for text in report.skipped:
        line(f"not checked: {text}", out, "dim")
    if html is not None:
        line(f"{html}: all findings", out)
    if fix is not None:
        left = sum(row.action == "left out" for row in report.left_out)
        changed = len(report.left_out) - left
        line(f"{fix}: the cleaned copy: {plural(left, 'row')} left out, {plural(changed, 'row')} changed", out)
        for text in report.remaining:
            line(f"still wrong: {with_short_labels(text)}", out, "red")
        if not report.remaining:
            line(f"next: {_learn(report, [fix])}", out, "dim")
    elif report.refused and not report.remaining:
        clean = shlex.join(["conpet", "data", "check", *map(str, sources), *reading_arguments(options)])
        line(f"next: {clean} --fix FOLDER   or: {_learn(report, sources, options)} --fix", out, "dim")
    elif report.learn_options:
        line(f"next: {_learn(report, sources, options)}", out, "dim")


def _learn(report: DataCheckReport, sources: list[Path], options: ReadOptions | None = None) -> str:
    """Return the command that learns the data, which takes one file or folder."""
    from conpet.data.source import is_stdin

    source = str(sources[0]) if len(sources) == 1 else "..."
    reading = reading_arguments(options) if options is not None else []
    command = shlex.join(["conpet", "learn", report.workspace or "WORKSPACE", source, *reading])
    needs_name = is_stdin(source) and report.learn_options in (None, "--mixed")
    return " ".join(filter(None, (command, report.learn_options, "--name NAME" if needs_name else None)))
