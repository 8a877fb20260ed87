"""Export a module in the format of Hugging Face PEFT."""

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
from conpet.state.slots import module_of
from conpet.store import VersionRecord

WARMUP_FOLDER = "warmup"
"""Subfolder of an exported module for the warm-up, which must be applied to the backbone first."""


def export_version(version: VersionRecord, shared: Mapping[str, ObjectReader], folder: Path) -> Path:
    """Write the adapter and head of a version into a new folder, all or nothing.

    Args:
        version: The version.
        shared: Readers of the shared objects, by slot.
        folder: The new folder.

    Raises:
        WorkspaceExistsError: `folder` exists.
        ConfigError: The workspace's method has no PET modules.
    """
    if folder.exists():
        raise WorkspaceExistsError(f"{folder} exists; name a new folder for the module")
    reader = module_of(version.objects, shared)
    if not reader.has(ADAPTER_CONFIG):
        raise ConfigError(f"task {version.task!r} has no PET module to export: its method trains none")
    about = {"name": version.task, "version": version.number, "labels": list(version.labels)}
    artifact = _adapter(reader, task=about | dict(version.description))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        write_artifact(Path(temporary) / "module", artifact)
        if WARMUP in shared:
            write_artifact(Path(temporary) / "module" / WARMUP_FOLDER, _adapter(shared[WARMUP]))
        shutil.move(Path(temporary) / "module", folder)
    return folder


def _adapter(reader: ObjectReader, **documents: Any) -> Artifact:
    return Artifact(
        tensors={stem: reader.tensors(stem) for stem in (ADAPTER_TENSORS, HEAD)},
        documents={stem: reader.document(stem) for stem in (ADAPTER_CONFIG, HEAD)} | documents,
    )
