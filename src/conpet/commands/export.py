"""Copy a module out of a workspace, in the format of Hugging Face PEFT."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conpet.artifact import Artifact, ObjectReader, write_artifact
from conpet.errors import ConfigError, WorkspaceExistsError
from conpet.heads.base import HEAD
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS
from conpet.modules.warmup_info import WARMUP
from conpet.state.state import module_of
from conpet.store import VersionRecord

WARMUP_FOLDER = "warmup"
"""Where, in an exported folder, the warm-up lies that the backbone needs first."""


def export_version(version: VersionRecord, shared: Mapping[str, ObjectReader], folder: Path) -> Path:
    """Write the adapter and head that serve a version into a new folder, all or nothing.

    Args:
        version: The version.
        shared: Slot to reader of the objects that belong to no task.
        folder: The new folder.

    Raises:
        WorkspaceExistsError: Something stands at `folder`.
        ConfigError: The workspace's method has no PET modules.
    """
    if folder.exists():
        raise WorkspaceExistsError(f"{folder} exists; name a new folder for the module")
    reader = module_of(version.objects, shared)
    if not reader.has(ADAPTER_CONFIG):
        raise ConfigError(f"task {version.task!r} has no PET module to export: its method computes, and tunes nothing")
    about = {"name": version.task, "version": version.number, "labels": list(version.labels)}
    artifact = _adapter(reader, task=about | dict(version.description))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
        write_artifact(Path(aside) / "module", artifact)
        if WARMUP in shared:
            write_artifact(Path(aside) / "module" / WARMUP_FOLDER, _adapter(shared[WARMUP]))
        shutil.move(Path(aside) / "module", folder)
    return folder


def _adapter(reader: ObjectReader, **documents: Any) -> Artifact:
    return Artifact(
        tensors={stem: reader.tensors(stem) for stem in (ADAPTER_TENSORS, HEAD)},
        documents={stem: reader.document(stem) for stem in (ADAPTER_CONFIG, HEAD)} | documents,
    )
