"""Open the workspace that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conpet.api import ConPET


def open_workspace(
    path: Path,
    backbone: str | None = None,
    device: str | None = None,
    *,
    to_change: bool = False,
    deterministic: bool | None = None,
    log_to: Path | None = None,
) -> ConPET:
    """Open a workspace; other arguments as in `ConPET.open`.

    Args:
        path: The workspace's folder.
        backbone: Present location of the backbone, if it was moved.
        device: A torch device that overrides the workspace's setting.
        to_change: Whether the command will change the workspace.
        deterministic: As in `ConPET.open`.
        log_to: As in `ConPET.open`.

    Raises:
        ReadOnlyError: The command will change the workspace, but this process may not write it.
    """
    from conpet.store import Store

    store = Store.open(path)  # imports no torch, so a wrong path is reported at once
    if to_change:
        store.require_writable()
    from conpet.api import ConPET

    return ConPET.open(path, backbone=backbone, device=device, deterministic=deterministic, log_to=log_to)
