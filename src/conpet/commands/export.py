"""Export a module in the format of Hugging Face PEFT."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conpet.artifact import Artifact, ObjectReader, write_artifact
from conpet.errors import ConfigError, WorkspaceExistsError
from conpet.files import require_new_files_in
from conpet.heads.base import HEAD
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS
from conpet.modules.folded_info import FOLDED
from conpet.state.slots import MODULE, module_of
from conpet.store import VersionRecord

FOLDED_FOLDER = "backbone"
"""Subfolder of an exported module for the module folded into the backbone, which must be merged into it first."""


def export_version(version: VersionRecord, shared: Mapping[str, ObjectReader], folder: Path) -> Path:
    """Write the adapter and head of a version into a new folder, all or nothing.

    Args:
        version: The version.
        shared: Readers of the shared objects, by slot.
        folder: The new folder.

    Raises:
        WorkspaceExistsError: `folder` exists.
        ConfigError: The folder that is to hold it is missing or cannot be written; or the workspace's method has no PET
            modules; or the version's module was learned over a backbone that a consolidation replaced.
    """
    if folder.exists():
        raise WorkspaceExistsError(f"{folder} exists; name a new folder for the module")
    require_new_files_in(folder)
    if MODULE not in version.objects:
        raise ConfigError(
            f"version {version.number} of task {version.task!r} has no module: it was learned before a consolidation "
            "changed the backbone, and is learned again when you roll back to it. Export another version"
        )
    reader = module_of(version.objects, shared)
    if not reader.has(ADAPTER_CONFIG):
        raise ConfigError(f"task {version.task!r} has no PET module to export: its method trains none")
    about = {"name": version.task, "version": version.number, "labels": list(version.labels)}
    artifact = _adapter(reader, task=about | dict(version.description))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        write_artifact(Path(temporary) / "module", artifact)
        if FOLDED in shared:
            write_artifact(Path(temporary) / "module" / FOLDED_FOLDER, _adapter(shared[FOLDED]))
        shutil.move(Path(temporary) / "module", folder)
    return folder


def _adapter(reader: ObjectReader, **documents: Any) -> Artifact:
    return Artifact(
        tensors={stem: reader.tensors(stem) for stem in (ADAPTER_TENSORS, HEAD) if reader.has(stem)},
        documents={stem: reader.document(stem) for stem in (ADAPTER_CONFIG, HEAD) if reader.has(stem)} | documents,
    )
