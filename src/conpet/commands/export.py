"""Export a module with everything needed to use it without conpet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as package_version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from conpet.artifact import Artifact, ObjectReader, write_artifact
from conpet.data import Example, Kind, PieceRole, Style, default_template, render
from conpet.data.templates import template_parts
from conpet.errors import ConfigError, WorkspaceExistsError
from conpet.files import require_new_files_in
from conpet.heads.base import HEAD
from conpet.heads.labels import LABELS
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS
from conpet.modules.folded_info import FOLDED, FoldedNote
from conpet.modules.kinds import kind_of_document
from conpet.state.slots import ASSIGNMENT, MODULE, NAMES, module_of
from conpet.store import Snapshot, VersionRecord

FOLDED_FOLDER = "backbone"
"""Subfolder of an exported module for the module folded into the backbone, which must be merged into it first."""
INFERENCE = "inference"
"""Stem of the document that says how an input becomes logits."""
README = "README.md"
SCRIPT = "logits.py"
_SCRIPTS = {True: "logits.py.txt", False: "logits_spans.py.txt"}
"""The script for texts, and the one for relations and mentions."""


def export_version(version: VersionRecord, snapshot: Snapshot, folder: Path) -> Path:
    """Write the adapter and head of a version into a new folder, with a README and, if possible, a script.

    All or nothing.

    Args:
        version: The version.
        snapshot: The snapshot that it belongs to.
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
    shared = snapshot.shared
    reader = module_of(version.objects, shared)
    if not reader.has(ADAPTER_CONFIG):
        raise ConfigError(
            f"task {version.task!r} has no PET module to export: its method trains none. Modules are trained in "
            "workspaces of method 'dynamic' or of a static method (`conpet init --method`)"
        )
    task = {"name": version.task, "version": version.number, "labels": list(version.labels)}
    about = inference(version, snapshot)
    artifact = _adapter(reader, **{"task": task | dict(version.description), INFERENCE: about})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "module"
        write_artifact(made, artifact)
        if FOLDED in shared:
            write_artifact(made / FOLDED_FOLDER, _adapter(shared[FOLDED]))
        (made / README).write_text(_readme(version, reader, about), encoding="utf-8")
        if not _why_no_script(reader, about):
            (made / SCRIPT).write_text(_resource(_SCRIPTS[about["kind"] == Kind.TEXT]), encoding="utf-8")
        shutil.move(made, folder)
    return folder


def inference(version: VersionRecord, snapshot: Snapshot) -> dict[str, Any]:
    """Return how an input becomes logits, JSON-ready.

    `labels` and `rows` are the version's labels and their rows in the head (None for another head). `parts` are the
    texts and fields of the template. For texts, `pieces` are what is tokenized, in order: `text` (the input after the
    given characters), `slot`, or `keep`.
    """
    backbone, description = snapshot.header.backbone, version.description
    style, kind = Style(backbone["style"]), Kind(description["kind"])
    template = description["template"] or default_template(kind, style)
    folded = FoldedNote.among(snapshot.shared)
    head = module_of(version.objects, snapshot.shared).document(HEAD)
    names = version.objects[ASSIGNMENT].document(ASSIGNMENT)[NAMES] if ASSIGNMENT in version.objects else {}
    rows = [head[LABELS].index(names.get(label, label)) for label in version.labels] if LABELS in head else None
    return {
        "kind": str(kind),
        "template": template,
        "parts": [part._asdict() for part in template_parts(template, kind, style)],
        "pieces": _pieces(template, style) if kind is Kind.TEXT else None,
        "causal": style is Style.CAUSAL,
        "max_tokens": snapshot.header.settings["backbone"]["max_tokens"],
        "pooling": backbone["pooling"],
        "labels": list(version.labels) if rows is not None else None,
        "rows": rows,
        "backbone": {
            "name": backbone["name"],
            "architecture": backbone["architecture"],
            "dtype": backbone["dtype"],
            "fingerprint": backbone["fingerprint"],
            "tuned": folded and {"by": str(folded.producer), "tasks": list(folded.tasks), "examples": folded.examples},
        },
    }


def _pieces(template: str, style: Style) -> list[dict[str, str]]:
    """Return the parts of a template for a text; the text itself is left out."""
    sample = "x"
    return [
        {"role": "text", "text": piece.text.removesuffix(sample)}
        if piece.role is PieceRole.CUT_END
        else {"role": str(piece.role), "text": piece.text}
        for piece in render(Example.of_text(sample), template, style)
    ]


def _why_no_script(reader: ObjectReader, about: Mapping[str, Any]) -> str | None:
    """Return why plain PEFT cannot give the logits of a module, or None if it can."""
    kind = kind_of_document(reader.document(ADAPTER_CONFIG))
    if not kind.in_peft:
        return f"plain PEFT cannot load modules of kind {kind.name}; conpet's source has them (`conpet.modules.kinds`)"
    if about["labels"] is None:
        return "its head is not the head over labels"
    return None


def _readme(version: VersionRecord, reader: ObjectReader, about: Mapping[str, Any]) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - Markdown
    kind, no_script = kind_of_document(reader.document(ADAPTER_CONFIG)), _why_no_script(reader, about)
    return environment.from_string(_resource(f"{README}.j2")).render(
        task=version.task,
        version=version.number,
        kind=kind.name,
        in_peft=kind.in_peft,
        head=version.description["head"],
        about=about,
        script=no_script is None,
        no_script=no_script,
        conpet_version=package_version("conpet"),
    )


def _resource(name: str) -> str:
    return files("conpet.commands").joinpath("exported", name).read_text(encoding="utf-8")


def _adapter(reader: ObjectReader, **documents: Any) -> Artifact:
    return Artifact(
        tensors={stem: reader.tensors(stem) for stem in (ADAPTER_TENSORS, HEAD) if reader.has(stem)},
        documents={stem: reader.document(stem) for stem in (ADAPTER_CONFIG, HEAD) if reader.has(stem)} | documents,
    )
