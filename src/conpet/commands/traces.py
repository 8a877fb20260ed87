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
from typing import NamedTuple

import torch
from torch import Tensor

from conpet.artifact import row_json
from conpet.backbone.backbone import Backbone
from conpet.commands.stored_rows import FoundRows
from conpet.data import Example
from conpet.data.rows import FIELDS
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import stored_examples
from conpet.state.reading import task_state
from conpet.state.statistics import features_of
from conpet.store import Snapshot, VersionRecord

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
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as raw:
        raw.text_factory = bytes
        names = [name.decode() for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in raw.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - a name of the file's own
                yield from (cell for cell in row if isinstance(cell, bytes))


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield from sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]


def traces_of(found: Sequence[FoundRows], snapshot: Snapshot, backbone: Backbone) -> Traces:
    """Return the traces of rows that are about to be forgotten.

    Args:
        found: The rows, in active versions.
        snapshot: The workspace.
        backbone: Its backbone.
    """
    gone = {(each.version.task, each.version.number): each for each in found}
    texts = tuple(
        example.content
        for each in found
        for subset in Subset
        for example in _examples(each, subset, each.stored[subset])
    )
    kept = _kept(snapshot, gone)
    joined, names = "\n".join(kept), {name for version in snapshot.versions for name in (version.task, *version.labels)}
    names |= {*FIELDS, "kind", *map(str, Subset)}
    folded = {_folded(content) for content in kept}
    needles: dict[bytes, str] = {}
    rows = 0
    total = sum(each.count for each in found)
    for each in found:
        most = max(1, MOST_ROWS * each.count // max(1, total))
        rows += _add(needles, each, backbone, most, joined, folded, names)
    return Traces(texts, rows, total, needles)


def _add(
    needles: dict[bytes, str],
    found: FoundRows,
    backbone: Backbone,
    most: int,
    joined: str,
    folded: set[str],
    names: set[str],
) -> int:
    """Add the traces of some rows of a version; return the number of rows."""
    memory = stored_examples(found.version)
    rows = 0
    for subset in Subset:
        chosen = _some(sorted(found.stored[subset]), most)
        if memory.latent:
            rows += _add_latent(needles, memory, subset, chosen)
            continue
        examples = [one for one in _examples(found, subset, chosen) if _folded(one.content) not in folded]
        rows += len(examples)
        for example in examples:
            _add_text(needles, example.content, joined, names)
        if examples:
            states = backbone.states(examples, memory.template)
            for number, encoded in enumerate(states.encoded):
                _add_ids(needles, encoded.ids)
                _add_numbers(needles, states.features[number], "features")
                if states.hidden is not None:
                    _add_numbers(needles, states.hidden[number][-1], "prefix states")
    features = features_of(task_state(found.version))
    same = {index for index, row in enumerate(memory.indices) if row not in found.learned}
    for index in _some(sorted(found.learned), most) if not same or memory.latent else ():
        _add_numbers(needles, features[index], "features")
    return rows


def _add_text(needles: dict[bytes, str], text: str, joined: str, names: set[str]) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    forms = {json.dumps(text), json.dumps(text, ensure_ascii=False)}
    whole = len(text) < SHORT or text in joined
    if not whole:
        forms = {form[1:-1] for form in forms} | {text, html.escape(text)}
    if not whole or text not in names:
        needles.update({form.encode("utf-8", "surrogatepass"): "text" for form in forms})
    for digest in (hashlib.sha256(raw), hashlib.blake2b(raw, digest_size=32)):
        needles[digest.digest()] = needles[digest.hexdigest().encode()] = "hash"


def _add_ids(needles: dict[bytes, str], ids: Sequence[int]) -> None:
    if len(ids) < _FEWEST_TOKENS:
        return
    for form in ("q", "i"):
        needles[struct.pack(f"<{len(ids)}{form}", *ids)] = "token ids"
    for separators in ((", ", ": "), (",", ":")):
        needles[json.dumps(list(ids), separators=separators)[1:-1].encode()] = "token ids"


def _add_numbers(needles: dict[bytes, str], values: Tensor, what: str) -> None:
    """Add the first bytes of a vector, as it may be stored."""
    for dtype in _DTYPES:
        content = values.detach().to("cpu", dtype).contiguous().view(torch.uint8).numpy().tobytes()[:_FEATURE_BYTES]
        if len(set(content)) > _FEATURE_BYTES // 8:  # zeros and the like are everywhere
            needles[content] = what


def _add_latent(needles: dict[bytes, str], memory: StoredExamples, subset: Subset, rows: Sequence[int]) -> int:
    features = memory.latent_features(subset)
    tensors = memory.reader.tensors(subset)
    hidden = tensors["hidden"].split(tensors["lengths"].tolist())
    for row in rows:
        _add_numbers(needles, features[row], "features")
        _add_numbers(needles, hidden[row][-1], "prefix states")
    return len(rows)


def _examples(found: FoundRows, subset: Subset, rows: Iterable[int]) -> list[Example]:
    memory = stored_examples(found.version)
    return [] if memory.latent else memory.chosen(subset, sorted(rows))


def _kept(snapshot: Snapshot, gone: Mapping[tuple[str, int], FoundRows]) -> list[str]:
    """Return the texts that stay."""
    kept = []
    for task in snapshot.tasks:
        version: VersionRecord = task.active
        memory = stored_examples(version)
        lost = gone.get((version.task, version.number))
        for subset in Subset if not memory.latent else ():
            rows = enumerate(memory.reader.rows(subset))
            without = lost.stored[subset] if lost else ()
            kept += [Example.from_json(row_json(row)).content for number, row in rows if number not in without]
    return kept


def _folded(text: str) -> str:
    """Return what different texts of the same tokens may have in common."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _some(rows: Sequence[int], most: int) -> list[int]:
    return [rows[number * len(rows) // most] for number in range(most)] if len(rows) > most else list(rows)
