"""`conpet keys`: the API keys of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import line, messages, output, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson, KeysFile, LogFolder, WorkspacePath
from conpet.errors import ConfigError

if TYPE_CHECKING:
    from conpet.serve.keys import KeyRecord, KeyStore

app = App(help="Make, list and revoke the API keys of a server.", no_args_is_help=True)


@app.command()
def create(
    workspace: WorkspacePath,
    role: Annotated[
        str,
        typer.Option(
            metavar="predict|learn|operate",
            help="What the key may do: answer; also learn tasks; also remove tasks and activate versions.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="A name by which you will recognise the key.", show_default=False)] = "",
    keys_file: KeysFile = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; only a hash of it is stored.

    Once a workspace has a key, its server answers no request without one.
    """
    from conpet.serve.keys import Role

    if role not in list(Role):
        raise typer.BadParameter(f"{role!r} is not a role; available: {', '.join(Role)}", param_hint="--role")
    key, record = _store(workspace, keys_file, log_to).create(Role(role), name)
    if as_json:
        print_json({"key": key, **_row(record)})
        return
    line(key)
    line(f"key {record.id} may {record.role}. Keep it now: it cannot be shown again", messages())


@app.command("list")
def list_keys(workspace: WorkspacePath, keys_file: KeysFile = None, as_json: AsJson = False) -> None:
    """List all keys, with their roles and when they were last used."""
    records = _store(workspace, keys_file).list()
    if as_json:
        print_json([_row(record) for record in records])
    elif not records:
        line("no keys; make one with `conpet keys create`")
    else:
        _print_list(records)


@app.command()
def revoke(
    workspace: WorkspacePath,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, see `conpet keys list`.")],
    keys_file: KeysFile = None,
    log_to: LogFolder = None,
) -> None:
    """Revoke a key; running servers refuse it from now on."""
    record = _store(workspace, keys_file, log_to).revoke(key_id)
    line(f"key {record.id} is revoked")


def _store(workspace: Path, keys_file: Path | None, log_to: Path | None = None) -> KeyStore:
    from conpet.serve.keys import KEYS, KeyStore
    from conpet.store import ActionLog, Store

    if keys_file is not None and keys_file.is_dir():
        raise ConfigError(f"{keys_file} is a folder; name a file")
    folder = Store.open(workspace).path
    return KeyStore(keys_file or folder / KEYS, ActionLog(folder, log_to))


def _row(record: KeyRecord) -> dict[str, Any]:
    times = {"created": record.created, "last_used": record.last_used, "revoked": record.revoked}
    return {
        "id": record.id,
        "name": record.name,
        "role": str(record.role),
        **{name: time.isoformat() if time else None for name, time in times.items()},
    }


def _print_list(records: list[KeyRecord]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("id", "role", "name", "made", "last used", ""):
        table.add_column(column, overflow="fold")
    for record in records:
        used = record.last_used.strftime("%Y-%m-%d %H:%M") if record.last_used else "never"
        table.add_row(
            record.id,
            str(record.role),
            Text(record.name),
            record.created.strftime("%Y-%m-%d"),
            used,
            "revoked" if record.revoked else "",
        )
    output().print(table)
