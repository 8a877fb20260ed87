"""Plain lines: one text a line, without labels."""

from __future__ import annotations

from collections.abc import Iterator

from conpet.data.formats.conll import looks_like_conll
from conpet.data.raw import Note, RawItem, RawRow
from conpet.data.source import Source

_HEAD = 1 << 14


def read_lines(source: Source) -> Iterator[RawItem]:
    """Read each line that is not blank as a text."""
    with source.text() as text:
        tagged = looks_like_conll(text.read(_HEAD))
    hint = "; if its lines are tokens with tags: --input-format conll" if tagged else ""
    if source.labelled:
        yield source.problem(None, f"plain lines have no labels; save texts with labels as CSV (text,label){hint}")
        return
    if hint:
        yield Note(source.file, f"each line is read as a text{hint}")
    for row, line in source.lines():
        if problem := source.undecodable(line, row):
            yield problem
        elif line.strip():
            yield RawRow(row, {"text": line.strip()})


def count_lines(source: Source) -> int:
    """Count the lines that are not blank."""
    return sum(1 for _, line in source.lines() if line.strip())
