"""Check every byte a workspace depends on: what it stores, and its backbone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from conpet.backbone.catalog import EMBEDDED
from conpet.backbone.embedded import status
from conpet.backbone.fingerprint import Fingerprint
from conpet.errors import BackboneMismatchError, ConpetError
from conpet.store import Store


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        problems: What is damaged; nothing where all is well.
        backbone_checked: Whether the backbone lies on this machine, so that its files were read too.
    """

    problems: tuple[ConpetError, ...]
    backbone_checked: bool


def verify(store: Store, backbone: str | None = None) -> Verification:
    """Hash every object of the workspace and, where they lie on this machine, the files of its backbone.

    Args:
        store: The workspace's store.
        backbone: Folder of the backbone, where it is not the one in the settings.
    """
    header = store.header()
    problems: list[ConpetError] = [*store.verify()]
    folder = backbone_folder(backbone or str(header.settings["backbone"]["name"]))
    if folder is not None:
        stored = Fingerprint(**header.backbone["fingerprint"])
        with tempfile.TemporaryDirectory() as forgotten:  # no remembered hashes: every byte is read
            found = Fingerprint.of_folder(folder, Path(forgotten) / "hashes.json")
        if found != stored:
            parts = ", ".join(stored.differences(found))
            problems.append(
                BackboneMismatchError(
                    f"{folder}: the backbone's {parts} are not those the workspace was made with; "
                    "fetch it anew (`conpet backbones pull --verify` for an embedded one), or name its folder"
                )
            )
    return Verification(tuple(problems), folder is not None)


def backbone_folder(name: str) -> Path | None:
    """Return the folder of a backbone that lies on this machine by name or path; fetch and write nothing."""
    if name in EMBEDDED:
        found = status(name)
        return found.path if found.present else None
    folder = Path(name).expanduser()
    return folder if (folder / "config.json").is_file() else None
