"""Paths inside the folder of a workspace."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from conpet.artifact import check_stem

DATABASE = "workspace.sqlite"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside the workspace `root`."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file; a folder with one is a workspace."""
        return self.root / DATABASE

    @property
    def objects(self) -> Path:
        """Immutable artifact folders; a name that starts with a dot is being written."""
        return self.root / "objects"

    @property
    def leases(self) -> Path:
        """One empty file for each generation that readers use."""
        return self.root / "leases"

    @property
    def scratch(self) -> Path:
        """Resumable training checkpoints; not part of the state."""
        return self.root / "scratch"

    @property
    def candidates(self) -> Path:
        """Changes that were computed but not made; missing before the first."""
        return self.root / "candidates"

    @property
    def reserve(self) -> Path:
        """A file without content that keeps room on the disk."""
        return self.root / "reserve"

    @property
    def forgetting(self) -> Path:
        """What is being forgotten; there only until everything of it is deleted."""
        return self.root / "forgetting.json"

    @property
    def forget_started(self) -> Path:
        """When forgetting began; there only until its change is committed or has failed."""
        return self.root / "forget-started.json"

    @property
    def receipts(self) -> Path:
        """Receipts of what was forgotten, one file for each change; missing before the first."""
        return self.root / "receipts"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders every workspace has."""
        return (self.objects, self.leases, self.scratch)

    def scratch_of(self, digest: str) -> Path:
        """Return the scratch folder of a digest."""
        check_stem(digest)
        return self.scratch / digest


def object_folder(number: int, slot: str, task: str | None, version: int | None) -> str:
    """Return a readable name for the folder of an object; `number` makes it unique."""
    return f"shared-{slot}-{number}" if task is None else f"{slot}-{_slug(task)}-v{version}-{number}"


def _slug(name: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only)[:40].strip("-") or "task"
