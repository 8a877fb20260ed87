"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from conpet.errors import ConfigError


def _existing(folders: list[Path] | None) -> list[Path] | None:
    if missing := [str(folder) for folder in folders or () if not folder.is_dir()]:
        raise ConfigError(f"--data-folder {missing[0]}: no such folder; name a folder that contains data sets")
    return folders


def assignments(given: list[str], first_keys: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the values of `--set KEY=VALUE` options, given in YAML.

    Args:
        given: The options.
        first_keys: The setting meant by a section name with a single value (`module=ia3`).
    """
    import yaml

    values: dict[str, Any] = {}
    for assignment in given:
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        name = (first_keys or {}).get(name, name)
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--set")
        if name in values:
            raise typer.BadParameter(f"{name} is given twice, or also by its own option", param_hint="--set")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typer.BadParameter(f"{assignment!r}: the value is not YAML", param_hint="--set") from None
    return values


WorkspacePath = Annotated[
    Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.", show_default=False)
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
NoEvaluate = Annotated[
    bool, typer.Option("--no-evaluate", help="Skip the evaluation on the test examples of all tasks.")
]
Wait = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Most seconds to wait while another process changes the workspace.",
        show_default="no limit",
    ),
]
BackboneMoved = Annotated[
    str | None,
    typer.Option(
        "--backbone", metavar="FOLDER", help="The folder of the backbone, if it was moved.", show_default=False
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Device, instead of the one in the settings (cpu, cuda, cuda:1).", show_default=False)
]
DataFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-folder",
        metavar="FOLDER",
        callback=_existing,
        help="Folder to search first for data sets, each in a subfolder with its name; repeatable (also CONPET_DATA).",
        show_default=False,
    ),
]
