"""Copy a module out of a workspace, in the format of Hugging Face PEFT."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from conpet.artifact import Artifact, write_artifact
from conpet.errors import WorkspaceExistsError
from conpet.learners.base import MODULE
from conpet.pet.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS
from conpet.pet.module import HEAD
from conpet.store import VersionRecord


def export_version(version: VersionRecord, folder: Path) -> Path:
    """Write a version's adapter and head into a new folder, all or nothing.

    Raises:
        WorkspaceExistsError: Something stands at `folder`.
    """
    if folder.exists():
        raise WorkspaceExistsError(f"{folder} exists; name a new folder for the module")
    reader = version.objects[MODULE]
    artifact = Artifact(
        tensors={stem: reader.tensors(stem) for stem in (ADAPTER_TENSORS, HEAD)},
        documents={
            ADAPTER_CONFIG: reader.document(ADAPTER_CONFIG),
            HEAD: reader.document(HEAD),
            "task": {"name": version.task, "version": version.number, "labels": list(version.labels)}
            | dict(version.description),
        },
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
        write_artifact(Path(aside) / "module", artifact)
        shutil.move(Path(aside) / "module", folder)
    return folder
