"""Stand-off annotations of brat: an `.ann` file beside each `.txt` file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from conpet.data.example import Span
from conpet.data.raw import Note, RawItem, RawRow
from conpet.data.rows import lines_around
from conpet.data.source import Source
from conpet.errors import Problem, plural

_RELATION = re.compile(r"(?P<type>\S+)\s+\w+:(?P<head>[TE]\S*)\s+\w+:(?P<tail>[TE]\S*)\s*")
_SPAN = re.compile(r"(?P<type>\S+)\s+(?P<offsets>\d+\s+\d+(?:\s*;\s*\d+\s+\d+)*)\s*")
_KINDS = {"E": "event", "A": "attribute", "M": "attribute", "N": "normalization", "#": "comment", "*": "equivalence"}
MENTIONS, RELATIONS = "brat-mentions", "brat-relations"


class _Bound(NamedTuple):
    """A text-bound annotation: its type and its span of characters."""

    row: int
    type: str
    start: int
    end: int


def is_brat(folder: Path) -> bool:
    """Return whether a folder holds annotations of brat."""
    return any(folder.glob("*.ann"))


def read_brat(source: Source) -> Iterator[RawItem]:
    """Read a document, or a folder of documents.

    Relations become relation examples. Without relations, text-bound annotations become mentions; the format
    "brat-mentions" or "brat-relations" reads either. An example's text is the lines of its annotations.
    """
    folder = source.path.is_dir()
    files = sorted(source.path.glob("*.ann")) if folder else [source.path]
    form = source.options.format
    if form not in (MENTIONS, RELATIONS):
        form = RELATIONS if any(_has_relations(source.sibling(file)) for file in files) else MENTIONS
        if form == RELATIONS:
            yield Note(source.file, f"relations are read; to read the types of entities: --input-format {MENTIONS}")
    left_out: Counter[str] = Counter()
    for file in files:
        for item in _document(source.sibling(file), form, left_out):
            yield item._replace(file=str(file)) if isinstance(item, RawRow) and folder else item
    if left_out:
        parts = ", ".join(plural(count, kind) for kind, count in sorted(left_out.items()))
        yield Note(source.file, f"left out: {parts}")


def read_brat_mentions(source: Source) -> Iterator[RawItem]:
    """Read text-bound annotations as mentions."""
    yield from read_brat(source)


def read_brat_relations(source: Source) -> Iterator[RawItem]:
    """Read relations."""
    yield from read_brat(source)


def _has_relations(source: Source) -> bool:
    return any(line.startswith("R") for _, line in source.lines())


def _document(source: Source, form: str, left_out: Counter[str]) -> Iterator[RawItem]:
    text = _text(source)
    if isinstance(text, Problem):
        yield text
        return
    bounds: dict[str, _Bound] = {}
    relations: list[tuple[int, str]] = []
    for row, line in source.lines():
        name, _, rest = line.partition("\t")
        if name.startswith("T"):
            bound = _bound(row, rest, text, source)
            if isinstance(bound, Problem):
                yield bound
            elif bound is None:
                left_out["discontinuous annotation"] += 1
            else:
                bounds[name] = bound
        elif name.startswith("R"):
            relations.append((row, rest))
        elif line.strip():
            left_out[_KINDS.get(name[:1], "other line")] += 1
    if form == MENTIONS:
        for bound in bounds.values():
            yield _example(text, bound.row, {"mention": bound}, bound.type)
    else:
        yield from _relations(relations, bounds, text, source, left_out)


def _text(source: Source) -> str | Problem:
    beside = source.sibling(source.path.with_suffix(".txt"))
    if not beside.path.is_file():
        return source.problem(None, f"has no text: {beside.path.name} is missing")
    with beside.text(newline="") as stream:
        text = stream.read()
    return beside.undecodable(text) or text


def _bound(row: int, rest: str, text: str, source: Source) -> _Bound | Problem | None:
    """Return a text-bound annotation; None if it is in several pieces."""
    found = _SPAN.fullmatch(rest.partition("\t")[0])
    if found is None:
        return source.problem(row, f"expected 'TYPE START END', found {rest!r:.60}")
    offsets = [int(number) for number in re.findall(r"\d+", found["offsets"])]
    if len(offsets) > 2:
        return None
    start, end = offsets
    if start >= end or end > len(text) or not text[start:end].strip():
        return source.problem(row, f"span {start}:{end} is empty or outside the {len(text)} characters of the text")
    stated = rest.partition("\t")[2].strip()
    if stated and "".join(stated.split()) != "".join(text[start:end].split()):
        return source.problem(row, f"span {start}:{end} is {text[start:end]!r:.60} in the text, not {stated!r:.60}")
    return _Bound(row, found["type"], start, end)


def _relations(
    relations: Sequence[tuple[int, str]],
    bounds: Mapping[str, _Bound],
    text: str,
    source: Source,
    left_out: Counter[str],
) -> Iterator[RawItem]:
    for row, rest in relations:
        found = _RELATION.fullmatch(rest)
        if found is None:
            yield source.problem(row, f"expected 'TYPE Arg1:T1 Arg2:T2', found {rest!r:.60}")
        elif found["head"] in bounds and found["tail"] in bounds:
            yield _example(text, row, {"head": bounds[found["head"]], "tail": bounds[found["tail"]]}, found["type"])
        else:
            left_out["incomplete relation"] += 1


def _example(text: str, row: int, spans: Mapping[str, _Bound], label: str) -> RawRow:
    """Return an example with the lines of the text that hold its spans."""
    bounds = [bound for span in spans.values() for bound in (span.start, span.end)]
    start, end = lines_around(text, min(bounds), max(bounds))
    fields = {name: Span(span.start - start, span.end - start) for name, span in spans.items()}
    return RawRow(row, {"text": text[start:end], "label": label, **fields})
