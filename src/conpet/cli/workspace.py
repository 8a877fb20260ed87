"""Open the workspace that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conpet.api import ConPET


def open_workspace(
    path: Path, backbone: str | None = None, device: str | None = None, *, deterministic: bool | None = None
) -> ConPET:
    """Open a workspace; arguments as in `ConPET.open`."""
    from conpet.store import Store

    Store.open(path)  # imports no torch, so a wrong path is reported at once
    from conpet.api import ConPET

    return ConPET.open(path, backbone=backbone, device=device, deterministic=deterministic)
