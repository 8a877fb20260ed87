"""Candidates: changes that were computed but not made, in `candidates/NUMBER/`.

A candidate belongs to one generation. When the workspace has changed, only the record that there was a candidate is
kept, for a while: its objects may hold examples that were removed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conpet.artifact import (
    DOCUMENT_SUFFIX,
    TABLE_SUFFIX,
    TENSORS_SUFFIX,
    Artifact,
    ArtifactReader,
    Manifest,
    sync,
    to_json_bytes,
    write_artifact,
)
from conpet.errors import CandidateOutdatedError, CorruptionError, UnknownNameError, listed
from conpet.evaluation.gate import CandidateRecord
from conpet.store.change import Change, NewVersion, SideObject
from conpet.store.layout import Layout
from conpet.store.records import Cost, Metric, Reference

OUTDATED_SECONDS = 30 * 24 * 3600.0
"""Records of candidates for a former generation are deleted after this long."""
_RECORD = "record.json"
_CONTENT = "content.json"
_LEDGERS = {"metrics": Metric, "references": Reference, "costs": Cost}


@dataclass(frozen=True, slots=True, eq=False)
class CandidateChange:
    """A candidate with its contents.

    Attributes:
        record: What is known about it.
        changes: The changes, to be committed together.
        report: Why they were not made (JSON-ready).
    """

    record: CandidateRecord
    changes: tuple[Change, ...]
    report: Mapping[str, Any]


def write_candidate(
    layout: Layout, generation: int, changes: Sequence[Change], report: Mapping[str, Any]
) -> CandidateRecord:
    """Write a candidate in one step, in place of an earlier one of the same change; return its record."""
    layout.candidates.mkdir(exist_ok=True)
    key = [[change.verb, change.task, change.new_version.digest if change.new_version else None] for change in changes]
    former = [number for number in _numbers(layout) if _content(layout, number).get("key") == key]
    number = max(_numbers(layout), default=0) + 1
    aside = layout.candidates / f".{number}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    writer = _ObjectWriter(aside)
    content = {"key": key, "changes": [_to_json(change, writer) for change in changes], "report": dict(report)}
    record = CandidateRecord(number, changes[-1].verb, generation, datetime.now(UTC), writer.bytes)
    _write(aside / _CONTENT, content)
    _write(aside / _RECORD, record.to_json())
    sync(aside)
    aside.replace(layout.candidates / str(number))
    sync(layout.candidates)
    for other in former:
        drop_candidate(layout, other)
    return record


def read_records(layout: Layout, generation: int) -> list[CandidateRecord]:
    """Return the records of all candidates, oldest first.

    Args:
        layout: The paths of the workspace.
        generation: The present generation.
    """
    records = []
    for number in _numbers(layout):
        with suppress(FileNotFoundError):  # dropped meanwhile
            record = _record(layout, number)
            records.append(replace(record, outdated=record.generation != generation))
    return records


def read_candidate(layout: Layout, number: int, generation: int) -> CandidateChange:
    """Return a candidate for the present generation.

    Raises:
        UnknownNameError: There is no such candidate.
        CandidateOutdatedError: The workspace has changed since it was made.
        CorruptionError: It is damaged.
    """
    records = {record.number: record for record in read_records(layout, generation)}
    if number not in records:
        have = listed([one for one, record in records.items() if not record.outdated]) or "none"
        raise UnknownNameError(f"no candidate {number}; have: {have}")
    record, content = records[number], _content(layout, number)
    if record.outdated or not content:
        raise CandidateOutdatedError(
            f"candidate {number} ({record.verb}) was made for generation {record.generation}, and the workspace has "
            f"changed since: it is at generation {generation} now. Make the change again"
        )
    folder = layout.candidates / str(number)
    changes = tuple(_from_json(change, folder) for change in content["changes"])
    return CandidateChange(record, changes, content["report"])


def drop_candidate(layout: Layout, number: int) -> None:
    """Delete a candidate, outdated or not; `UnknownNameError` if there is none of this number."""
    if number not in (known := _numbers(layout)):
        raise UnknownNameError(f"no candidate {number}; have: {listed(known) or 'none'}")
    folder = layout.candidates / str(number)
    (folder / _RECORD).unlink()  # from here on it is not listed
    shutil.rmtree(folder, ignore_errors=True)


def sweep_candidates(layout: Layout, generation: int) -> None:
    """Delete the contents of candidates for a former generation, their old records, and leftovers."""
    for record in read_records(layout, generation):
        folder = layout.candidates / str(record.number)
        if record.outdated:
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name != _RECORD:
                    path.unlink(missing_ok=True)
            if (folder / _RECORD).stat().st_mtime < time.time() - OUTDATED_SECONDS:
                drop_candidate(layout, record.number)
    known = {str(number) for number in _numbers(layout)}
    for path in layout.candidates.iterdir() if layout.candidates.exists() else ():
        if path.name not in known:
            shutil.rmtree(path, ignore_errors=True)


class _ObjectWriter:
    """Writes artifacts into numbered folders, and refers to them by number and manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0
        self.bytes = 0

    def __call__(self, artifact: Artifact | None) -> Any:
        if artifact is None:
            return None
        name = str(self._written)
        self._written += 1
        manifest = write_artifact(self._folder / name, artifact)
        self.bytes += manifest.bytes
        return {"folder": name, "manifest": manifest.to_json()}


def _to_json(change: Change, write: _ObjectWriter) -> dict[str, Any]:
    """Return a change as a document; its artifacts are written."""
    document: dict[str, Any] = {one.name: getattr(change, one.name) for one in fields(Change)}
    new = change.new_version
    document["new_version"] = new and {
        **{one.name: getattr(new, one.name) for one in fields(NewVersion)},
        "objects": {slot: write(artifact) for slot, artifact in new.objects.items()},
    }
    document["side_objects"] = [
        {"task": side.task, "version": side.version, "slot": side.slot, "artifact": write(side.artifact)}
        for side in change.side_objects
    ]
    document["shared"] = {slot: write(artifact) for slot, artifact in change.shared.items()}
    return document | {name: [asdict(row) for row in getattr(change, name)] for name in _LEDGERS}


def _from_json(document: Mapping[str, Any], folder: Path) -> Change:
    """Rebuild a change from `_to_json`."""
    new = document["new_version"]
    values = {
        **document,
        "new_version": new
        and NewVersion(
            **{
                **new,
                "labels": tuple(new["labels"]),
                "objects": {slot: _artifact(folder, stored) for slot, stored in new["objects"].items()},
            }
        ),
        "dropped": tuple((task, number) for task, number in document["dropped"]),
        "side_objects": tuple(
            SideObject(one["task"], one["version"], one["slot"], _artifact(folder, one["artifact"]))
            for one in document["side_objects"]
        ),
        "shared": {slot: _artifact(folder, stored) for slot, stored in document["shared"].items()},
        **{name: tuple(row(**one) for one in document[name]) for name, row in _LEDGERS.items()},
        "clear_scratch": tuple(document["clear_scratch"]),
        "unpinned": tuple(document["unpinned"]),
    }
    return Change(**values)


def _artifact(folder: Path, stored: Mapping[str, Any] | None) -> Artifact | None:
    """Return a written artifact; its tensors and rows are read when it is written again."""
    if stored is None:
        return None
    remedy = "discard the candidate (`conpet candidates WORKSPACE --discard NUMBER`), and make the change again"
    reader = ArtifactReader(folder / stored["folder"], Manifest.from_json(stored["manifest"]), remedy=remedy)
    stems: dict[str, list[str]] = {suffix: [] for suffix in (TENSORS_SUFFIX, DOCUMENT_SUFFIX, TABLE_SUFFIX)}
    for name in reader.manifest.files:
        suffix = next(suffix for suffix in stems if name.endswith(suffix))
        stems[suffix].append(name.removesuffix(suffix))
    return Artifact(
        tensors=_Lazily(stems[TENSORS_SUFFIX], reader.tensors),
        documents=_Lazily(stems[DOCUMENT_SUFFIX], reader.document),
        tables=_Lazily(stems[TABLE_SUFFIX], reader.rows),
    )


class _Lazily(Mapping[str, Any]):
    """Values that are read on each access."""

    __slots__ = ("_read", "_stems")

    def __init__(self, stems: Sequence[str], read: Any) -> None:
        self._stems = stems
        self._read = read

    def __getitem__(self, stem: str) -> Any:
        if stem not in self._stems:
            raise KeyError(stem)
        return self._read(stem)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)


def _numbers(layout: Layout) -> list[int]:
    if not layout.candidates.exists():
        return []
    names = [path.name for path in layout.candidates.iterdir()]
    known = [int(name) for name in names if name.isdecimal() and (layout.candidates / name / _RECORD).exists()]
    return sorted(known)


def _record(layout: Layout, number: int) -> CandidateRecord:
    return CandidateRecord.from_json(_read(layout.candidates / str(number) / _RECORD))


def _content(layout: Layout, number: int) -> dict[str, Any]:
    """Return the content of a candidate; empty if it was deleted."""
    try:
        return _read(layout.candidates / str(number) / _CONTENT)
    except FileNotFoundError:
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptionError(f"{path} is damaged ({error}); delete its folder, and make the change again") from error
    return document


def _write(path: Path, document: Any) -> None:
    path.write_bytes(to_json_bytes(document))
    sync(path)
