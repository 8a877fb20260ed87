"""Comma- and tab-separated values, also with other delimiters."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from conpet.data.columns import LIKELY
from conpet.data.raw import BrokenRow, Header, Note, RawItem, RawRow
from conpet.data.rows import FIELDS
from conpet.data.source import Source
from conpet.errors import Scope, plural

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_KNOWN = {*FIELDS, *(name for names in LIKELY.values() for name in names)}
_SAMPLED_ROWS = 200
_LARGEST_CELL = 1 << 27
csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))


class Dialect(NamedTuple):
    """How the cells of a file are written.

    Attributes:
        delimiter: What separates them.
        quoted: Whether quotes enclose cells; otherwise they belong to the text.
        skipped: Number of lines before the header.
    """

    delimiter: str
    quoted: bool
    skipped: int = 0


def read_csv(source: Source) -> Iterator[RawItem]:
    """Read a table whose cells are separated by commas, or by what is found instead of them."""
    yield from _table(source, _csv_dialect(source), ",")


def read_tsv(source: Source) -> Iterator[RawItem]:
    """Read a table whose cells are separated by tabs; quotes enclose cells only if they do so everywhere."""
    yield from _table(source, _tsv_dialect(source), "\t")


def count_csv(source: Source) -> int:
    """Count the rows after the header."""
    return _count(source, _csv_dialect(source))


def count_tsv(source: Source) -> int:
    """Count the rows after the header."""
    return _count(source, _tsv_dialect(source))


def is_header(line: str) -> bool:
    """Return whether a line is probably the header of a table: several names, two of them those of fields."""
    return _fit([line], _best([line]))[0] > 1


def _table(source: Source, dialect: Dialect, expected: str) -> Iterator[RawItem]:
    if dialect.delimiter != expected:
        yield Note(source.file, f"cells are separated by {_DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))}")
    header: list[str] | None = None
    row = 0
    try:
        with source.text(newline="") as text:
            for row, cells in enumerate(_records(text, dialect), start=dialect.skipped + 1):
                if _is_blank(cells) or (header is None and not any(map(str.strip, cells))):
                    continue
                if header is None:
                    if problem := source.undecodable("".join(cells), row):
                        yield replace(problem, scope=Scope.REST)
                        return
                    header = _header(cells, source)
                    yield Header(None if source.options.positions else row, header)
                    if not source.options.positions:
                        continue
                yield _row(cells, header, source, row)
    except csv.Error as error:
        hint = ": a quote inside a quoted cell must be doubled" if "expected after" in str(error) else ""
        yield source.stopped(row + 1, f"not valid CSV: {error}{hint}")


def _row(cells: list[str], header: list[str], source: Source, row: int) -> RawItem:
    if problem := source.undecodable("".join(cells), row):
        return problem
    if len(cells) > len(header):
        # Spreadsheets end rows with empty cells.
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
    if len(cells) != len(header):
        reason = f"has {plural(len(cells), 'cell')} where the header has {len(header)}"
        return BrokenRow(source.problem(row, reason), cells)
    return RawRow(row, dict(zip(header, cells, strict=True)))


def _header(cells: list[str], source: Source) -> list[str]:
    if source.options.positions:
        return [str(position) for position in range(1, len(cells) + 1)]
    return [cell.strip() for cell in cells]


def _records(text: Iterable[str], dialect: Dialect) -> Iterator[list[str]]:
    lines = islice(text, dialect.skipped, None)
    if dialect.quoted:
        return csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    return (line.rstrip("\r\n").split(dialect.delimiter) for line in lines)


def _count(source: Source, dialect: Dialect) -> int:
    with source.text(newline="") as text:
        rows = sum(1 for cells in _records(text, dialect) if not _is_blank(cells))
    return rows if source.options.positions else max(0, rows - 1)


def _csv_dialect(source: Source) -> Dialect:
    """Find the delimiter: that of a `sep=` line, else the one with which header and rows fit best."""
    with source.text(newline="") as text:
        sample = list(islice(text, _SAMPLED_ROWS))
    first = sample[0].strip().strip('"') if sample else ""
    if first.lower().startswith("sep=") and len(first) == len("sep=?"):
        return Dialect(first[-1], quoted=True, skipped=1)
    return _best(sample)


def _best(sample: Sequence[str]) -> Dialect:
    return max(
        (Dialect(delimiter, quoted=True) for delimiter in _DELIMITERS), key=lambda dialect: _fit(sample, dialect)
    )


def _fit(sample: Sequence[str], dialect: Dialect) -> tuple[int, float, int]:
    """Return how well a delimiter fits: known names in the header, share of rows as long as it, its number of cells."""
    records: list[list[str]] = []
    with suppress(csv.Error):
        records += (cells for cells in _records(sample, dialect) if not _is_blank(cells))
    if not records:
        return 0, 0.0, 0
    header = [cell.strip().casefold() for cell in records[0]]
    known = len(_KNOWN.intersection(header))
    regular = sum(len(cells) == len(header) for cells in records) / len(records)
    return (known, regular, len(header)) if len(header) > 1 else (known, 0.0, 1)


def _tsv_dialect(source: Source) -> Dialect:
    """Find whether quotes enclose cells: the file is read both ways, and the one with fewer wrong rows counts."""
    quotes = loose = False
    lines: list[str] = []
    with source.text(newline="") as text:
        for line in text:
            if len(lines) < _SAMPLED_ROWS:
                lines.append(line)
            quotes = quotes or '"' in line
            if '"' in line and not loose:
                loose = any(_is_loose(cell) for cell in line.rstrip("\r\n").split("\t"))
    if lines and "\t" not in lines[0] and _fit(lines, best := _best(lines))[0] > 1:
        return best  # the name is wrong, and another delimiter fits
    unquoted, quoted = Dialect("\t", quoted=False), Dialect("\t", quoted=True)
    if not quotes:
        return unquoted
    if all(map(_is_enclosed, lines[0].rstrip("\r\n").split("\t"))):  # so are the names in the header
        return quoted
    return unquoted if loose and _wrong_rows(source, unquoted) <= _wrong_rows(source, quoted) else quoted


def _is_blank(cells: list[str]) -> bool:
    return not cells or cells == [""]


def _is_enclosed(cell: str) -> bool:
    return len(cell) > 1 and cell.startswith('"') and cell.endswith('"')


def _is_loose(cell: str) -> bool:
    """Return whether a cell has quotes that no program writes that encloses cells in quotes."""
    if '"' not in cell:
        return False
    if not _is_enclosed(cell):
        return True
    inner = cell[1:-1]
    return '"' in inner.replace('""', "") or not set(inner) & set('",;\t')


def _wrong_rows(source: Source, dialect: Dialect) -> float:
    """Return the number of rows that are not as long as the first; infinite if the file cannot be read like this."""
    wrong, length = 0, None
    try:
        with source.text(newline="") as text:
            for cells in _records(text, dialect):
                if not _is_blank(cells):
                    length = length or len(cells)
                    wrong += len(cells) != length
    except csv.Error:
        return float("inf")
    return wrong
