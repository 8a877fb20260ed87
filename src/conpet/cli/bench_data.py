"""`conpet bench data`: the data sets of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from conpet.cli.console import line, output, print_json
from conpet.cli.options import AsJson

app = typer.Typer(help="The data sets of the benchmarks.", no_args_is_help=True)
DataFolders = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="A folder that holds data sets, each in a folder of its name; may be given several times. "
        "Those of CONPET_DATA are looked at as well.",
        default_factory=list,
        show_default=False,
    ),
]


@app.callback()
def _data() -> None:
    pass  # with a callback, a single command keeps its name


@app.command("list")
def list_(data: DataFolders, as_json: AsJson = False) -> None:
    """List the data sets: which are there, and where to get the others."""
    from conpet.data.formats import DATA_SETS

    rows = [_row(name, data) for name in DATA_SETS]
    if as_json:
        print_json(rows)
        return
    _print_table(rows)
    for row in rows:
        if row["missing"]:
            line(f"{row['name']}: {row['get']}", style="dim")


def _row(name: str, folders: list[Path]) -> dict[str, Any]:
    from conpet.data.formats import DATA_SETS, find_data, how_to_get

    one, folder = DATA_SETS[name], find_data(name, folders)
    missing = [one.files] if folder is None else list(one.lacking(folder))
    return {
        "name": name,
        "title": one.title,
        "kind": str(one.kind),
        "labels": one.labels,
        "licence": one.licence,
        "source": one.source,
        "there": not missing,
        "path": str(folder) if folder else None,
        "missing": missing,
        "get": how_to_get(name, folders) if missing else None,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "what", "labels", "licence", "where"):
        table.add_column(heading, justify="right" if heading == "labels" else "left", overflow="fold")
    for row in rows:
        if row["path"] is None:
            where = "missing"
        else:
            where = f"{row['path']} lacks {', '.join(row['missing'])}" if row["missing"] else row["path"]
        table.add_row(row["name"], row["title"], str(row["labels"]), row["licence"], where)
    output().print(table)
