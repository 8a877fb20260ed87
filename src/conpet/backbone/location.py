"""Where the folder of a workspace's backbone is, also after both were moved; imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from conpet.backbone.catalog import EMBEDDED

RELATIVE = "relative"
"""Key of the recorded backbone: the path of its folder from the workspace's folder."""


def full_name(name: str) -> str:
    """Return the name of a backbone; the absolute path, if it is an existing folder."""
    folder = Path(name).expanduser()
    # Links are kept: they may be changed to lead to the folder when it is moved.
    return str(folder.absolute()) if name not in EMBEDDED and folder.is_dir() else name


def relative_location(name: str, workspace: Path) -> dict[str, str]:
    """Return what to record with a backbone so that it is found if both were moved: nothing unless it is a folder."""
    return {RELATIVE: os.path.relpath(name, workspace)} if Path(name).is_absolute() else {}


def find_again(name: str, relative: str | None, workspace: Path) -> str:
    """Return the present name of a workspace's backbone.

    Args:
        name: Its name in the settings.
        relative: The path of its folder from the workspace's folder, if it was recorded.
        workspace: The workspace's present folder.
    """
    if name in EMBEDDED or Path(name).expanduser().is_dir():
        return name
    # Earlier workspaces have only the path as it was given, most likely from the folder that holds the workspace.
    candidates = [relative] if relative else [f"../{name}", name] if name.startswith(".") else []
    folders = (Path(os.path.normpath(workspace / candidate)) for candidate in candidates)
    return next((str(folder) for folder in folders if folder.is_dir()), name)
