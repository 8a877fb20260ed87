"""CoNLL-style columns: a token a line with its tag, blank lines between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from conpet.data.example import Span
from conpet.data.raw import RawItem, RawRow
from conpet.data.source import Source

_PREFIXED = re.compile(r"(?P<prefix>[BIESLUM])[-_](?P<type>.+)")
_TAG = re.compile(r"O|_|\*|[BIESLUM][-_].+")
_OUTSIDE = ("O", "_", "-", "*")
_DOCUMENT = "-DOCSTART-"

Line = tuple[int, list[str]]


def read_conll(source: Source) -> Iterator[RawItem]:
    """Read mentions from columns, the token in the first and the tag in the last; each mention is a row at its line.

    Tags are IOB1, IOB2, IOBES or BILOU, or types without a prefix. If the first column numbers the tokens, they are in
    the second; if it holds the tags, they are in the last.
    """
    sentence: list[Line] = []
    for row, raw in source.lines():
        if problem := source.undecodable(raw, row):
            yield problem
            continue
        line = raw.rstrip()
        if not line.strip():
            yield from _rows(sentence)
            sentence = []
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        if cells[0].strip() == _DOCUMENT or _is_comment(line, cells, sentence):
            continue
        if len(cells) < 2:
            yield source.problem(row, f"expected a token and a tag, found {line!r:.60}")
            continue
        sentence.append((row, [cell.strip() for cell in cells]))
    yield from _rows(sentence)


def looks_like_conll(head: str) -> bool:
    """Return whether most lines at the beginning of a file end in a tag."""
    lines = [line.split() for line in head.splitlines() if line.strip()]
    return bool(lines) and sum(len(cells) > 1 and bool(_TAG.fullmatch(cells[-1])) for cells in lines) > 0.9 * len(lines)


def mentions(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end (exclusive) and type of each mention that tags of any scheme mark."""
    start, kind = 0, ""
    for at, tag in enumerate([*tags, "O"]):
        prefix, found = _parsed(tag)
        if kind and (found != kind or prefix in "BSU"):
            yield start, at, kind
            kind = ""
        if found and not kind:
            start, kind = at, found
        if kind and prefix in ("E", "L", "S", "U"):
            yield start, at + 1, kind
            kind = ""


def _parsed(tag: str) -> tuple[str, str]:
    """Return the prefix of a tag and its type, empty outside of mentions; a type without a prefix counts as I."""
    if tag in _OUTSIDE:
        return "I", ""
    prefixed = _PREFIXED.fullmatch(tag)
    return (prefixed["prefix"], prefixed["type"]) if prefixed else ("I", tag)


def _is_comment(line: str, cells: Sequence[str], sentence: Sequence[Line]) -> bool:
    return not sentence and line.startswith("#") and (len(cells) < 2 or not _TAG.fullmatch(cells[-1].strip()))


def _are_tags(cells: Sequence[str]) -> bool:
    return all(map(_TAG.fullmatch, cells))


def _rows(sentence: Sequence[Line]) -> Iterator[RawRow]:
    numbered = [cells[0] for _, cells in sentence] == [str(at) for at in range(1, len(sentence) + 1)]
    word = 1 if numbered and len(sentence) and len(sentence[0][1]) > 2 else 0
    first, last = ([cells[at] for _, cells in sentence] for at in (word, -1))
    tokens, tags = (last, first) if _are_tags(first) and not _are_tags(last) else (first, last)
    for start, end, kind in mentions(tags):
        yield RawRow(sentence[start][0], {"tokens": tokens, "mention": Span(start, end), "label": kind})
