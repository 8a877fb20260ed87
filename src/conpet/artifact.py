"""Artifacts: named tensors, JSON documents and tables, in memory or in a folder, with one interface to read them."""

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
"""Documents up to this size are parsed once for all readers of a stored object."""

INDENTED_CHARACTERS = 4096
"""Documents up to this length are indented, which takes some twenty times as long as writing them in one line."""

READ_BYTES = 2**19
"""Tensor files of at least this size are memory-mapped; smaller ones are read, which is faster."""

_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_POINTER = "checkpoint.json"


class JsonRow(Protocol):
    """A row that is converted to JSON only when written, such as `conpet.Example`."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""


Row = Mapping[str, Any] | JsonRow


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """Content to write into a folder; each key is a file stem.

    The stems `adapter_model` (tensors) and `adapter_config` (document) make a folder that Hugging Face PEFT loads.

    Attributes:
        tensors: Named tensors by stem, written as `<stem>.safetensors`.
        documents: JSON-ready values by stem (no NaN, no infinity), written as `<stem>.json`.
        tables: Rows by stem, written as `<stem>.jsonl`; an iterator can be written only once.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Iterable[Row]] = field(default_factory=dict)

    @property
    def tensor_bytes(self) -> int:
        """Size of the tensors, which make up most of what is written."""
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values())


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
    """Write an artifact into a new folder, and return when everything is on disk.

    Raises:
        FileExistsError: The folder exists.
        ConfigError: A stem is not made of letters, digits, `_`, `.` and `-`.
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
    """Reads an artifact from a folder of the store (`ArtifactReader`) or from memory (`InMemoryObject`)."""

    @property
    def key(self) -> Hashable:
        """Identifies the object: equal keys mean equal content."""

    def has(self, stem: str) -> bool:
        """Return whether there are tensors, a document or a table of this stem."""

    def table_digest(self, stem: str) -> str | None:
        """Return the SHA-256 of the file of the table `stem`; None in memory, and if there is no such table."""

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
        """Return whether there are tensors, a document or a table of this stem."""
        artifact = self.artifact
        return any(stem in part for part in (artifact.tensors, artifact.documents, artifact.tables))

    def table_digest(self, stem: str) -> str | None:
        """Return None: the table has no file."""
        return None

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
    """Lazy access to an artifact folder; files are only opened when read.

    The first reading of a file compares its size and content with the manifest, later ones its size; `verify` compares
    names, sizes and content of all files.

    Attributes:
        folder: The artifact's folder. Never write into it.
        manifest: What the folder must hold.
        lease: Kept alive with the reader, so that the store does not delete the folder.
        documents: Small documents read so far, by stem, shared by all readers of an object.
        memory_key: Key of the artifact in memory before it was stored, or None. Caches continue to use this key.
        checked: Names of the files whose content was compared, shared by all readers of an object.
        remedy: What the artifact belongs to and how to get it back, for messages about damage.
    """

    folder: Path
    manifest: Manifest
    lease: object | None = field(default=None, repr=False)
    documents: dict[str, Any] = field(default_factory=dict, repr=False)
    memory_key: Hashable | None = None
    checked: set[str] = field(default_factory=set, repr=False)
    remedy: str = "restore the folder from a backup"

    @property
    def key(self) -> Hashable:
        """Identifies the object: equal keys mean equal content."""
        return self.folder if self.memory_key is None else self.memory_key

    def _checked(self, path: Path) -> bytes:
        """Read a file; compare its content if this is the first reading."""
        content = path.read_bytes()
        if path.name not in self.checked:
            self._check(path.name, hashlib.sha256(content).hexdigest())
        return content

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return self.manifest.bytes

    def has(self, stem: str) -> bool:
        """Return whether the artifact has tensors, a document or a table of this stem."""
        return any(stem + suffix in self.manifest.files for suffix in (TENSORS_SUFFIX, DOCUMENT_SUFFIX, TABLE_SUFFIX))

    def table_digest(self, stem: str) -> str | None:
        """Return the SHA-256 of the file of the table `stem`, which is not read; None if there is no such table."""
        entry = self.manifest.files.get(stem + TABLE_SUFFIX)
        return entry.sha256 if entry else None

    def tensors(self, stem: str) -> dict[str, torch.Tensor]:
        """Return the tensors of `stem`, on the CPU; changing them does not change the file."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load

        path = self._path(stem, TENSORS_SUFFIX)
        try:
            if self.manifest.files[path.name].size < READ_BYTES:
                return load(self._checked(path))
            if path.name not in self.checked:
                self._check(path.name, hash_file(path))
            with safe_open(path, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, FileNotFoundError) as error:
            check_memory(error, f"{path} was read")
            raise self._damaged(path, f"cannot be read as safetensors ({error})") from error

    def document(self, stem: str) -> Any:
        """Return the JSON document of `stem`; do not change it, because other readers share it."""
        if stem in self.documents:
            return self.documents[stem]
        path = self._path(stem, DOCUMENT_SUFFIX)
        try:
            document = json.loads(self._checked(path))
        except (ValueError, FileNotFoundError) as error:
            raise self._damaged(path, f"cannot be read as JSON ({error})") from error
        if self.manifest.files[path.name].size <= KEPT_BYTES:
            self.documents[stem] = document
        return document

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of the table `stem` (those numbered in `wanted`, from 0), one in memory at a time."""
        return self._read_rows(self._path(stem, TABLE_SUFFIX), wanted)

    def check_sizes(self) -> None:
        """Compare the size of every file, without reading any.

        Raises:
            CorruptionError: A file is missing, or has another size than was written.
        """
        for name in self.manifest.files:
            self._check_size(name)

    def verify(self) -> None:
        """Hash every file.

        Raises:
            CorruptionError: The folder differs from what was written.
        """
        try:
            present = {path.name for path in self.folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            raise self._damaged(self.folder, "is missing") from None
        self.check_sizes()
        if surplus := sorted(present - self.manifest.files.keys()):
            raise self._damaged(self.folder, f"contains unexpected files: {', '.join(surplus)}")
        for name in self.manifest.files:
            self._check(name, hash_file(self.folder / name))

    def _path(self, stem: str, suffix: str) -> Path:
        name = stem + suffix
        if name not in self.manifest.files:
            have = ", ".join(sorted(self.manifest.files)) or "nothing"
            raise UnknownNameError(f"no {name!r} in {self.folder}; available: {have}")
        self._check_size(name)
        return self.folder / name

    def _read_rows(self, path: Path, wanted: Container[int] | None) -> Iterator[dict[str, Any]]:
        try:
            if path.name not in self.checked:
                self._check(path.name, hash_file(path))
            with path.open(encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file):
                    if wanted is None or number in wanted:
                        yield json.loads(line)
        except (ValueError, FileNotFoundError) as error:
            raise self._damaged(path, f"cannot be read as JSON lines ({error})") from error

    def _check(self, name: str, sha256: str) -> None:
        if sha256 != self.manifest.files[name].sha256:
            raise self._damaged(self.folder / name, "is damaged: its content is not what was written")
        self.checked.add(name)

    def _check_size(self, name: str) -> None:
        path, expected = self.folder / name, self.manifest.files[name].size
        try:
            size = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise self._damaged(path, "is missing") from None
        if size != expected:
            raise self._damaged(path, f"has {size} bytes instead of {expected}")

    def _damaged(self, path: Path, what: str) -> CorruptionError:
        return CorruptionError(f"{path} {what}; {self.remedy}")


def save_checkpoint(folder: Path, artifact: Artifact) -> None:
    """Replace the checkpoint in `folder` (created if missing); a crash leaves either the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    former = [path for path in folder.iterdir() if path.name.isdecimal()]
    number = str(1 + max((int(path.name) for path in former), default=0))
    manifest = write_artifact(folder / number, artifact)
    replace_file(folder / _POINTER, to_json_bytes({"folder": number, "manifest": manifest.to_json()}))
    for path in former:
        shutil.rmtree(path, ignore_errors=True)  # the next checkpoint removes the rest


def load_checkpoint(folder: Path) -> ArtifactReader | None:
    """Return the checkpoint in `folder`, or None if it is missing or damaged, because it only saves time."""
    try:
        pointer = json.loads((folder / _POINTER).read_bytes())
        reader = ArtifactReader(folder / pointer["folder"], Manifest.from_json(pointer["manifest"]))
        reader.verify()
    except (FileNotFoundError, CorruptionError, ValueError):
        return None
    return reader


def check_stem(stem: str) -> None:
    """Raise `ConfigError` unless `stem` is valid in file names on all systems."""
    if not _STEM.fullmatch(stem):
        raise ConfigError(f"{stem!r} cannot name a part of an artifact: use letters, digits, '_', '.' and '-'")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Return when the content of a file, or the list of names of a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file, sync it and rename it to `path`; readers see the old or the new content.

    Two processes must not replace the same file at once.
    """
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def to_json_bytes(value: Any) -> bytes:
    """Encode a document with sorted keys, so that equal values give equal bytes; short ones are indented for people."""
    encoded = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if len(encoded) <= INDENTED_CHARACTERS:
        encoded = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{encoded}\n".encode()


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    storable: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        storage = stored.untyped_storage()
        # Views and shared memory are copied, so that each name is written with only its own values.
        if storage.nbytes() != stored.numel() * stored.element_size() or storage.data_ptr() in memory:
            stored = stored.clone()
        memory.add(storage.data_ptr())
        storable[name] = stored
    try:
        save_file(storable, path, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # report a full disk as an OSError
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(path)) from error
    path.chmod(0o644)  # safetensors makes the file readable only by its owner
    return path


def _write_document(path: Path, value: Any) -> Path:
    path.write_bytes(to_json_bytes(value))
    return path


def _write_table(path: Path, rows: Iterable[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row_json(row), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
    return path
