"""`conpet settings`: every setting with its default and meaning."""

from __future__ import annotations

from typing import Annotated

import typer

from conpet.cli.console import output, print_json
from conpet.cli.options import AsJson


def settings(
    section: Annotated[
        str | None,
        typer.Argument(metavar="SECTION", help="A section (module, training, ...).", show_default="all sections"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all settings by section, with the names for `conpet init --set NAME=VALUE`."""
    from conpet.config.describe import describe_settings

    rows = describe_settings()
    sections = list(dict.fromkeys(row.name.partition(".")[0] for row in rows))
    if section is not None and section not in sections:
        raise typer.BadParameter(f"no section {section!r}; available: {', '.join(sections)}", param_hint="SECTION")
    selected = [row for row in rows if section in (None, row.name.partition(".")[0])]
    if as_json:
        print_json([row._asdict() for row in selected])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for row in selected:
        owner = f"({row.component}) " if row.component else ""
        task = " Can be set per task." if row.per_task else ""
        table.add_row(Text(row.name), Text(row.default), Text(f"{owner}{row.meaning}{task}"))
    output().print(table)
