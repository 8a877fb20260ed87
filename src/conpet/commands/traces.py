"""Search every byte under some folders for what could be left of a forgotten row."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from conpet.artifact import row_json
from conpet.backbone.backbone import Backbone
from conpet.commands.stored_rows import FoundRows
from conpet.data import Example
from conpet.data.rows import FIELDS
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.state.reading import task_state
from conpet.state.slots import MODULE
from conpet.state.statistics import features_of
from conpet.store import Snapshot, VersionRecord

Item = TypeVar("Item")

MOST_ROWS = 25
"""Most rows that are looked for: a search reads everything once for each of their traces."""
SHORT = 16
"""Texts of fewer characters are looked for as whole values only, because they may be part of other texts."""
_FEWEST_TOKENS = 4
_FEATURE_BYTES = 64
_SQLITE = b"SQLite format 3\0"
_GZIP = b"\x1f\x8b"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Trace(NamedTuple):
    """Something that is left of a row.

    Attributes:
        path: The file.
        what: "text", "hash", "token ids", "features" or "prefix states".
    """

    path: Path
    what: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What would show that rows are still there.

    Attributes:
        texts: The texts of all rows, as far as they are stored.
        rows: Number of rows that are looked for: at most `MOST_ROWS`, and none whose text is still stored elsewhere.
        of: Number of rows that were forgotten.
        needles: What is looked for, with its kind.
    """

    texts: tuple[str, ...]
    rows: int
    of: int
    needles: Mapping[bytes, str] = field(repr=False)

    def found(self, roots: Iterable[Path]) -> tuple[list[Trace], int, int]:
        """Search files and folders; return what was found, and the number of files and bytes that were read."""
        traces: dict[Trace, None] = {}
        files = size = 0
        for path in _files(roots):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # another process deleted it meanwhile
                continue
            files, size = files + 1, size + len(content)
            for part in decoded(path, content):
                for needle, what in self.needles.items():
                    if needle in part:
                        traces[Trace(path, what)] = None
        return list(traces), files, size


def sha256(text: str) -> str:
    """Return the SHA-256 hash of a text in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def decoded(path: Path, content: bytes) -> Iterator[bytes]:
    """Yield the content of a file as it is, and decompressed or taken from tables if it is of such a kind."""
    yield content
    if content.startswith(_GZIP):
        try:
            yield gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return
    if content.startswith(_SQLITE):
        try:
            yield b"\n".join(_cells(path))
        except sqlite3.Error:
            return


def _cells(path: Path) -> Iterator[bytes]:
    # As if nobody wrote it, so that no other file is made beside it; its log is searched as it is.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as raw:
        raw.text_factory = bytes
        names = [name.decode() for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in raw.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - a name of the file's own
                yield from (cell for cell in row if isinstance(cell, bytes))


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield from sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]


def traces_of(found: Sequence[FoundRows], given: Sequence[Example], snapshot: Snapshot, backbone: Backbone) -> Traces:
    """Return the traces of rows that are about to be forgotten.

    Args:
        found: The rows.
        given: The inputs they were found by, if any.
        snapshot: The workspace.
        backbone: Its backbone.
    """
    stored = [one for each in found for subset in Subset for one in each.examples(subset)]
    search = _Search(found, snapshot, backbone)
    search.add_inputs(_some(given, MOST_ROWS), None)
    groups = [(each, subset) for each in found for subset in Subset if each.stored[subset]]
    shares = _shares([len(each.stored[subset]) for each, subset in groups], MOST_ROWS)
    rows = sum(search.add(*group, share) for group, share in zip(groups, shares, strict=True))
    for each in found:
        search.add_dropped(each, MOST_ROWS)
    total = sum(each.count for each in found)
    texts = dict.fromkeys(example.content for example in (*given, *stored))
    return Traces(tuple(texts), rows, total, search.needles)


class _Search:
    """Collects what is to be looked for.

    Args:
        found: The rows that are about to be forgotten.
        snapshot: The workspace.
        backbone: Its backbone.
    """

    def __init__(self, found: Sequence[FoundRows], snapshot: Snapshot, backbone: Backbone) -> None:
        self.needles: dict[bytes, str] = {}
        self._backbone = backbone
        kept = _kept(snapshot, {(each.version.task, each.version.number): each for each in found})
        self._joined = "\n".join(kept)
        self._folded = {_folded(content) for content in kept}
        named = {name for version in snapshot.versions for name in (version.task, *version.labels)}
        self._names = named | {*FIELDS, "kind", *map(str, Subset)}

    def add(self, found: FoundRows, subset: Subset, most: int) -> int:
        """Add the traces of at most so many stored rows of a subset of a version; return the number of rows."""
        memory = examples_without_test_labels(found.version)
        if memory.latent:
            return self._add_latent(memory, subset, _some(sorted(found.stored[subset]), most))
        return self.add_inputs(_some(found.examples(subset), most), memory.template)

    def add_dropped(self, found: FoundRows, most: int) -> None:
        """Add the traces of at most so many rows of a version that a limited replay memory has dropped."""
        if MODULE not in found.version.objects:
            return
        memory = examples_without_test_labels(found.version)
        stored = {memory.indices[row] for row in found.stored[Subset.TRAIN]}
        features = features_of(task_state(found.version))
        for index in _some(sorted(found.learned - stored), most):
            self._add_numbers(features[index], "features")

    def add_inputs(self, examples: Sequence[Example], template: str | None) -> int:
        """Add the traces of inputs, unless the same tokens are still stored in another row; return their number."""
        chosen = [one for one in examples if _folded(one.content) not in self._folded]
        if not chosen:
            return 0
        states = self._backbone.states(chosen, template)
        for number, (example, encoded) in enumerate(zip(chosen, states.encoded, strict=True)):
            self._add_text(example.content)
            self._add_ids(encoded.ids)
            self._add_numbers(states.features[number], "features")
            if states.hidden is not None:
                self._add_numbers(states.hidden[number][-1], "prefix states")
        return len(chosen)

    def _add_latent(self, memory: StoredExamples, subset: Subset, rows: Sequence[int]) -> int:
        features, tensors = memory.latent_features(subset), memory.reader.tensors(subset)
        hidden = tensors["hidden"].split(tensors["lengths"].tolist())
        for row in rows:
            self._add_numbers(features[row], "features")
            self._add_numbers(hidden[row][-1], "prefix states")
        return len(rows)

    def _add_text(self, text: str) -> None:
        forms = {json.dumps(text), json.dumps(text, ensure_ascii=False)}
        whole = len(text) < SHORT or text in self._joined
        if not whole:
            forms = {form[1:-1] for form in forms} | {text, html.escape(text)}
        if not whole or text not in self._names:
            self.needles.update({form.encode("utf-8", "surrogatepass"): "text" for form in forms})
        digest = sha256(text)
        self.needles[bytes.fromhex(digest)] = self.needles[digest.encode()] = "hash"

    def _add_ids(self, ids: Sequence[int]) -> None:
        if len(ids) < _FEWEST_TOKENS:
            return
        for form in ("q", "i"):
            self.needles[struct.pack(f"<{len(ids)}{form}", *ids)] = "token ids"
        for separators in ((", ", ": "), (",", ":")):
            self.needles[json.dumps(list(ids), separators=separators)[1:-1].encode()] = "token ids"

    def _add_numbers(self, values: Tensor, what: str) -> None:
        """Add the first bytes of a vector, as it may be stored."""
        for dtype in _DTYPES:
            stored = values.detach().to("cpu", dtype).contiguous()
            content = stored.view(torch.uint8).numpy().tobytes()[:_FEATURE_BYTES]
            if len(set(content)) > _FEATURE_BYTES // 8:  # zeros and the like are everywhere
                self.needles[content] = what


def _kept(snapshot: Snapshot, gone: Mapping[tuple[str, int], FoundRows]) -> list[str]:
    """Return the texts that stay."""
    kept = []
    for task in snapshot.tasks:
        version: VersionRecord = task.active
        memory = examples_without_test_labels(version)
        lost = gone.get((version.task, version.number))
        for subset in Subset if not memory.latent else ():
            rows = enumerate(memory.reader.rows(subset))
            without = lost.stored[subset] if lost else ()
            kept += [Example.from_json(row_json(row)).content for number, row in rows if number not in without]
    return kept


def _folded(text: str) -> str:
    """Return what different texts of the same tokens may have in common."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _shares(sizes: Sequence[int], most: int) -> list[int]:
    """Divide a number of rows over groups: one of each, then a second one of each, and so on."""
    shares = [0] * len(sizes)
    left = min(most, sum(sizes))
    while left:
        for at, size in enumerate(sizes):
            if left and shares[at] < size:
                shares[at] += 1
                left -= 1
    return shares


def _some(rows: Sequence[Item], most: int) -> list[Item]:
    return [rows[number * len(rows) // most] for number in range(most)] if len(rows) > most else list(rows)
