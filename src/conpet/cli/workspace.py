"""Open or make a workspace; its backbone loads without bars of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conpet.api import ConPET


def open_workspace(path: Path, backbone: str | None = None, device: str | None = None) -> ConPET:
    """Open the workspace a verb is about; arguments as in `ConPET.open`."""
    from conpet.store import Store

    Store.open(path)  # imports no torch, so a wrong path is told at once
    from conpet.api import ConPET

    return ConPET.open(path, backbone=backbone, device=device)
