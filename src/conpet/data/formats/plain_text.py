"""Plain lines: one text a line, without labels."""

from __future__ import annotations

from collections.abc import Iterator

from conpet.data.formats.conll import looks_like_conll
from conpet.data.formats.delimited import is_header
from conpet.data.raw import Note, RawItem, RawRow
from conpet.data.source import Source

_HEAD = 1 << 14
_LOOKED_AT = 5
"""Number of lines that tell what a file probably is."""


def read_lines(source: Source) -> Iterator[RawItem]:
    """Read each line that is not blank as a text."""
    with source.text() as text:
        hint = _other_format(text.read(_HEAD))
    if source.labelled and not source.optional:
        yield source.problem(None, f"plain lines have no labels; save texts with labels as CSV (text,label){hint}")
        return
    if hint:
        yield Note(source.file, f"each line is read as a text{hint}")
    for row, line in source.lines():
        if problem := source.undecodable(line, row):
            yield problem
        elif line.strip():
            yield RawRow(row, {"text": line.strip()})


def _other_format(head: str) -> str:
    """Return how to read a file whose lines are probably no texts, or ""."""
    lines = [line.strip() for line in head.splitlines()[:_LOOKED_AT] if line.strip()]
    if looks_like_conll(head):
        return "; if its lines are tokens with tags: --input-format conll"
    if lines and all(line.startswith("{") for line in lines):
        return "; if its lines are JSON: --input-format jsonl"
    if lines and ("\t" in lines[0] or is_header(lines[0])) and len({line.count("\t") for line in lines}) == 1:
        form = "tsv" if "\t" in lines[0] else "csv"
        return f"; if it is a table: --input-format {form}"
    return ""


def count_lines(source: Source) -> int:
    """Count the lines that are not blank."""
    return sum(1 for _, line in source.lines() if line.strip())
