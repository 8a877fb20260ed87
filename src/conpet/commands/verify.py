"""Check the integrity of a workspace: every byte it stores, and its backbone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from conpet.backbone.catalog import EMBEDDED
from conpet.backbone.embedded import status
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.location import RELATIVE, find_again
from conpet.errors import BackboneMismatchError, ConpetError
from conpet.store import Store


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a check.

    Attributes:
        problems: An error for each damaged object or file; empty if everything is intact.
        backbone_checked: Whether the files of the backbone were found on this machine and checked.
    """

    problems: tuple[ConpetError, ...]
    backbone_checked: bool


def verify(store: Store, backbone: str | None = None) -> Verification:
    """Hash every object of the workspace and, if they are on this machine, the files of its backbone.

    Args:
        store: The workspace's store.
        backbone: Folder of the backbone, if it differs from the settings.
    """
    problem, checked = backbone_problem(store, backbone)
    return Verification((*store.verify(), *([problem] if problem else [])), checked)


def backbone_problem(store: Store, backbone: str | None = None) -> tuple[BackboneMismatchError | None, bool]:
    """Hash the files of a workspace's backbone, if they are on this machine; arguments as in `verify`.

    Returns:
        What is wrong with them, and whether they were found.
    """
    header = store.header()
    name = str(header.settings["backbone"].get("name", ""))
    folder = backbone_folder(backbone or find_again(name, header.backbone.get(RELATIVE), store.path))
    if folder is None or "fingerprint" not in header.backbone:
        return None, False
    stored = Fingerprint(**header.backbone["fingerprint"])
    with tempfile.TemporaryDirectory() as empty:  # without cached hashes, so that every byte is read
        present = Fingerprint.of_folder(folder, Path(empty) / "hashes.json")
    if present == stored:
        return None, True
    parts = ", ".join(stored.differences(present))
    problem = BackboneMismatchError(
        f"{folder}: the backbone's {parts} differ from those the workspace was made with; fetch the backbone again "
        "(`conpet backbones pull --verify` for an embedded one), or name its folder"
    )
    return problem, True


def backbone_folder(name: str) -> Path | None:
    """Return the folder of a backbone, by name or path, or None if it is not on this machine; fetches nothing."""
    if name in EMBEDDED:
        model = status(name)
        return model.path if model.present else None
    folder = Path(name).expanduser()
    return folder if (folder / "config.json").is_file() else None
