"""Artifacts: named tensors, documents and tables, in memory or in a folder, and one way to read them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from conpet.errors import ConfigError, CorruptionError, UnknownNameError, check_memory

if TYPE_CHECKING:
    import torch

TENSORS_SUFFIX = ".safetensors"
DOCUMENT_SUFFIX = ".json"
TABLE_SUFFIX = ".jsonl"

KEPT_BYTES = 512
"""Documents of up to so many bytes are parsed once for all readers of an object in the store."""

READ_BYTES = 2**19
"""Files of tensors are memory-mapped from so many bytes on; smaller ones are read, which takes less time."""

_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_POINTER = "checkpoint.json"


class JsonRow(Protocol):
    """A row that becomes JSON only when it is written (`conpet.Example` is one)."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""


Row = Mapping[str, Any] | JsonRow


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """What a method hands to the store; each key is a file stem.

    The stems `adapter_model` (tensors) and `adapter_config` (document) make a folder that plain PEFT loads.

    Attributes:
        tensors: Stem to named tensors, written as `<stem>.safetensors`.
        documents: Stem to a JSON-ready value (no NaN, no infinity), written as `<stem>.json`.
        tables: Stem to rows, written as `<stem>.jsonl`; a one-shot iterable can be written only once.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Iterable[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: its size in bytes and the SHA-256 of its content in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact folder, by file name."""

    files: Mapping[str, FileEntry]

    @property
    def bytes(self) -> int:
        """Sum of the file sizes."""
        return sum(entry.size for entry in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {name: [entry.size, entry.sha256] for name, entry in self.files.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """Invert `to_json`."""
        return cls({name: FileEntry(int(size), str(sha256)) for name, (size, sha256) in value.items()})


def row_json(row: Row) -> dict[str, Any]:
    """Return a table's row as a JSON-ready dictionary."""
    return dict(row) if isinstance(row, Mapping) else row.to_json()


def write_artifact(folder: Path, artifact: Artifact) -> Manifest:
    """Write `artifact` into the new folder `folder` and return once everything is on the disk.

    Raises:
        FileExistsError: If `folder` exists.
        ConfigError: If a stem is not made of letters, digits, `_`, `.` and `-`.
    """
    for stem in (*artifact.tensors, *artifact.documents, *artifact.tables):
        check_stem(stem)
    folder.mkdir()
    written = [_write_tensors(folder / f"{stem}{TENSORS_SUFFIX}", value) for stem, value in artifact.tensors.items()]
    written += [_write_document(folder / f"{stem}{DOCUMENT_SUFFIX}", v) for stem, v in artifact.documents.items()]
    written += [_write_table(folder / f"{stem}{TABLE_SUFFIX}", rows) for stem, rows in artifact.tables.items()]
    entries = {path.name: FileEntry(path.stat().st_size, hash_file(path)) for path in sorted(written)}
    for path in written:
        sync(path)
    sync(folder)
    return Manifest(entries)


class ObjectReader(Protocol):
    """Reads an artifact, wherever it is: in a folder of the store (`ArtifactReader`) or in memory (`InMemoryObject`)."""

    @property
    def key(self) -> Hashable:
        """Identifies the object: equal keys, equal content."""

    def has(self, stem: str) -> bool:
        """Tell whether there are tensors, a document or a table of this stem."""

    def tensors(self, stem: str) -> Mapping[str, torch.Tensor]:
        """Return the tensors of `stem`; do not change them."""

    def document(self, stem: str) -> Any:
        """Return the document of `stem`; do not change it."""

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[Row]:
        """Iterate over the rows of the table `stem`, or over those numbered in `wanted`, from 0."""


class InMemoryObject:
    """An artifact in memory, read like one in the store.

    Args:
        artifact: The artifact; its tables must be readable more than once.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.key: Hashable = uuid4()

    def has(self, stem: str) -> bool:
        """Tell whether there are tensors, a document or a table of this stem."""
        artifact = self.artifact
        return any(stem in part for part in (artifact.tensors, artifact.documents, artifact.tables))

    def tensors(self, stem: str) -> Mapping[str, torch.Tensor]:
        """Return the tensors of `stem`."""
        return self.artifact.tensors[stem]

    def document(self, stem: str) -> Any:
        """Return the document of `stem`."""
        return self.artifact.documents[stem]

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[Row]:
        """Iterate over the rows of the table `stem`, or over those numbered in `wanted`, from 0."""
        rows = enumerate(self.artifact.tables[stem])
        return (row for number, row in rows if wanted is None or number in wanted)


@dataclass(frozen=True, eq=False)
class ArtifactReader:
    """Lazy access to one artifact folder; nothing is touched before the first read.

    A read compares the size of the one file it is from with the manifest; `verify` compares names, sizes and content
    of all files.

    Attributes:
        folder: The artifact's folder. Never write into it.
        manifest: What the folder must hold.
        lease: Kept alive as long as the reader, so that the store does not delete the folder meanwhile.
        documents: Small documents read so far, by stem; the store gives all readers of an object the same.
        memory_key: Key the artifact had in memory before it was stored, or None. Caches that know it by that key go on
            knowing it.
    """

    folder: Path
    manifest: Manifest
    lease: object | None = field(default=None, repr=False)
    documents: dict[str, Any] = field(default_factory=dict, repr=False)
    memory_key: Hashable | None = None

    @property
    def key(self) -> Hashable:
        """Identifies the object: equal keys, equal content."""
        return self.folder if self.memory_key is None else self.memory_key

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return self.manifest.bytes

    def has(self, stem: str) -> bool:
        """Tell whether the artifact has tensors, a document or a table of this stem."""
        return any(stem + suffix in self.manifest.files for suffix in (TENSORS_SUFFIX, DOCUMENT_SUFFIX, TABLE_SUFFIX))

    def tensors(self, stem: str) -> dict[str, torch.Tensor]:
        """Return the tensors of `stem`, on the CPU; changing them does not change the file."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load

        path = self._path(stem, TENSORS_SUFFIX)
        try:
            if self.manifest.files[path.name].size < READ_BYTES:
                return load(path.read_bytes())
            with safe_open(path, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, FileNotFoundError) as error:
            check_memory(error, f"{path} was read")
            raise _corrupt(path, f"cannot be read as safetensors ({error})") from error

    def document(self, stem: str) -> Any:
        """Return the JSON document of `stem`; do not change it, for others may read the same."""
        if stem in self.documents:
            return self.documents[stem]
        path = self._path(stem, DOCUMENT_SUFFIX)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, FileNotFoundError) as error:
            raise _corrupt(path, f"cannot be read as JSON ({error})") from error
        if self.manifest.files[path.name].size <= KEPT_BYTES:
            self.documents[stem] = document
        return document

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of the table `stem` (those numbered in `wanted`, from 0), one in memory at a time."""
        return self._read_rows(self._path(stem, TABLE_SUFFIX), wanted)

    def verify(self) -> None:
        """Hash every file.

        Raises:
            CorruptionError: If the folder is not byte for byte what was written.
        """
        _check_sizes(self.folder, self.manifest)
        for name, entry in self.manifest.files.items():
            if hash_file(self.folder / name) != entry.sha256:
                raise _corrupt(self.folder / name, "has another content than was written")

    def _path(self, stem: str, suffix: str) -> Path:
        name = stem + suffix
        if name not in self.manifest.files:
            have = ", ".join(sorted(self.manifest.files)) or "nothing"
            raise UnknownNameError(f"no {name!r} in {self.folder}; have: {have}")
        path = self.folder / name
        _check_size(path, self.manifest.files[name])
        return path

    def _read_rows(self, path: Path, wanted: Container[int] | None) -> Iterator[dict[str, Any]]:
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file):
                    if wanted is None or number in wanted:
                        yield json.loads(line)
        except (ValueError, FileNotFoundError) as error:
            raise _corrupt(path, f"cannot be read as JSON lines ({error})") from error


def save_checkpoint(folder: Path, artifact: Artifact) -> None:
    """Replace the checkpoint in `folder` (made if missing) by `artifact`; a crash leaves the former or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    former = [path for path in folder.iterdir() if path.name.isdecimal()]
    number = str(1 + max((int(path.name) for path in former), default=0))
    manifest = write_artifact(folder / number, artifact)
    replace_file(folder / _POINTER, to_json_bytes({"folder": number, "manifest": manifest.to_json()}))
    for path in former:
        shutil.rmtree(path, ignore_errors=True)  # what stays is taken away by the next checkpoint


def load_checkpoint(folder: Path) -> ArtifactReader | None:
    """Return the checkpoint in `folder`, or None where there is none or it is damaged: it only saves work."""
    try:
        pointer = json.loads((folder / _POINTER).read_bytes())
        reader = ArtifactReader(folder / pointer["folder"], Manifest.from_json(pointer["manifest"]))
        reader.verify()
    except (FileNotFoundError, CorruptionError, ValueError):
        return None
    return reader


def check_stem(stem: str) -> None:
    """Raise `ConfigError` unless `stem` can be part of a file name everywhere."""
    if not _STEM.fullmatch(stem):
        raise ConfigError(f"{stem!r} cannot name a part of an artifact: use letters, digits, '_', '.' and '-'")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Return once the file's content, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` aside, sync and rename it to `path`: a reader sees the former content or all of the new.

    Two processes must not replace the same file at once.
    """
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def to_json_bytes(value: Any) -> bytes:
    """Encode a document with keys in sorted order, so that equal values are equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    storable: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        storage = stored.untyped_storage()
        # A view, or the second name of the same memory, is copied: each name is written with its own values only.
        if storage.nbytes() != stored.numel() * stored.element_size() or storage.data_ptr() in memory:
            stored = stored.clone()
        memory.add(storage.data_ptr())
        storable[name] = stored
    try:
        save_file(storable, path, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # a full disk is an OSError, whoever writes
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(path)) from error
    path.chmod(0o644)  # safetensors lets only the owner read; the files beside it have no such limit
    return path


def _write_document(path: Path, value: Any) -> Path:
    path.write_bytes(to_json_bytes(value))
    return path


def _write_table(path: Path, rows: Iterable[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row_json(row), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    try:
        found = {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        raise _corrupt(folder, "is missing") from None
    for name, entry in manifest.files.items():
        _check_size(folder / name, entry)
    surplus = sorted(found - manifest.files.keys())
    if surplus:
        raise _corrupt(folder, f"holds what was never written: {', '.join(surplus)}")


def _check_size(path: Path, entry: FileEntry) -> None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise _corrupt(path, "is missing") from None
    if size != entry.size:
        raise _corrupt(path, f"has {size} bytes where {entry.size} were written")


def _corrupt(path: Path, what: str) -> CorruptionError:
    remedy = "restore the folder from a backup, or remove what it belongs to and learn it again"
    return CorruptionError(f"{path} {what}; {remedy}")
