"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conpet.errors import ConfigError


def _existing(folders: list[Path] | None) -> list[Path] | None:
    if missing := [str(folder) for folder in folders or () if not folder.is_dir()]:
        raise ConfigError(f"--data-folder {missing[0]}: no such folder; name a folder that contains data sets")
    return folders


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
