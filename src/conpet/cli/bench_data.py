"""`conpet bench data`: the data sets of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conpet.cli.console import line, output, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson, DataFolders

app = App(help="The data sets of the benchmarks.", no_args_is_help=True)


@app.command("list")
def list_(data_folder: DataFolders = None, as_json: AsJson = False) -> None:
    """List the data sets: which are present, and where to get the others."""
    from conpet.data.benchmarks import DATA_SETS

    rows = [_row(name, data_folder or []) for name in DATA_SETS]
    if as_json:
        print_json(rows)
        return
    _print_table(rows)
    line("")
    for row in rows:
        line(f"{row['name']}: {_where(row)}")
    line("")
    line("present: the files exist; their content is checked when they are read", style="dim")


def _row(name: str, folders: list[Path]) -> dict[str, Any]:
    from conpet.data.benchmarks import DATA_SETS, find_data, how_to_get

    data_set, folder = DATA_SETS[name], find_data(name, folders)
    missing = [data_set.files] if folder is None else list(data_set.lacking(folder))
    return {
        "name": name,
        "title": data_set.title,
        "kind": str(data_set.kind),
        "labels": data_set.labels,
        "licence": data_set.licence,
        "source": data_set.source,
        "there": not missing,
        "path": str(folder) if folder else None,
        "missing": missing,
        "get": how_to_get(name, folders) if missing else None,
    }


def _where(row: dict[str, Any]) -> str:
    if row["there"]:
        return str(row["path"])
    return f"{row['path']} lacks {', '.join(row['missing'])}; {row['get']}" if row["path"] else str(row["get"])


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("name", "what", "labels", "licence", ""):
        table.add_column(heading, justify="right" if heading == "labels" else "left")
    for row in rows:
        state = "present" if row["there"] else "incomplete" if row["path"] else "missing"
        table.add_row(row["name"], row["title"], str(row["labels"]), row["licence"], state)
    output().print(table)
