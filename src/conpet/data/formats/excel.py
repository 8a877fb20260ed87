"""Excel workbooks (.xlsx); need openpyxl."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any
from zipfile import BadZipFile

from conpet.data.columns import ColumnError, assign_columns
from conpet.data.raw import Header, Note, RawItem, RawRow
from conpet.data.source import Source
from conpet.errors import ConfigError

_EXPECTED = "expected a header such as text, label, and a row for each example"
_OLD_EXCEL = bytes.fromhex("d0cf11e0a1b11ae1")
_ERRORS = (ValueError, LookupError, TypeError, AttributeError, BadZipFile, SyntaxError)


def read_excel(source: Source) -> Iterator[RawItem]:
    """Read the first sheet that is not empty; its first row that is not empty is the header. Numbers become text."""
    try:
        import openpyxl
    except ImportError:
        raise ConfigError(f"{source.path}: reading Excel needs openpyxl: pip install 'conpet[excel]'") from None
    try:
        with warnings.catch_warnings(action="ignore"), source.binary() as stream:
            workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            yield from _sheet(workbook, source)
    except BadZipFile:
        yield source.problem(None, _not_excel(source))
    except _ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        yield source.problem(None, f"not a readable Excel workbook (.xlsx): {reason}")


def _sheet(workbook: Any, source: Source) -> Iterator[RawItem]:
    sheets = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"] or workbook.worksheets
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs state too few cells
    read = next((sheet for sheet in sheets if _has_cells(sheet)), sheets[0])
    if len(workbook.worksheets) > 1:
        others = ", ".join(repr(sheet.title) for sheet in workbook.worksheets if sheet is not read)
        first = "" if read is sheets[0] else ", the first that is not empty"
        yield Note(source.file, f"only the sheet {read.title!r} is read{first}; not read: {others}")
    header: list[tuple[int, str]] | None = None
    for row, values in enumerate(read.iter_rows(values_only=True), start=1):
        cells = [_cell(value) for value in values]
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _columns(cells, source)
            names = [name for _, name in header]
            yield Header(None if source.options.positions else row, names)
            identifier = _identifier(names, source)
            if not source.options.positions:
                continue
        fields: dict[str, Any] = {name: cells[at] if at < len(cells) else "" for at, name in header}
        if identifier is not None:
            at = header[names.index(identifier)][0]
            fields[identifier] = (
                values[at] if at < len(values) and isinstance(values[at], int | float) else fields[identifier]
            )
        yield RawRow(row, fields)
    if header is None:
        yield source.problem(None, f"the sheet {read.title!r} is empty; {_EXPECTED}")


def _has_cells(sheet: Any) -> bool:
    return any(_cell(value).strip() for values in sheet.iter_rows(values_only=True) for value in values)


def _not_excel(source: Source) -> str:
    with source.binary() as stream:
        head = stream.read(len(_OLD_EXCEL))
    if not head:
        return f"is empty; {_EXPECTED}"
    if head == _OLD_EXCEL:
        return "is an old Excel workbook (.xls), or has a password; save it as .xlsx without one"
    return "is no Excel workbook (.xlsx); if it is a text file, name its format (--input-format csv)"


def _columns(cells: Sequence[str], source: Source) -> list[tuple[int, str]]:
    """Return the named columns with their positions."""
    if source.options.positions:
        return [(at, str(at + 1)) for at in range(len(cells))]
    return [(at, cell.strip()) for at, cell in enumerate(cells) if cell.strip()]


def _identifier(names: Sequence[str], source: Source) -> str | None:
    """Return the column of ids, whose numbers stay numbers."""
    try:
        return assign_columns(names, source.options.columns).of.get("id")
    except ColumnError:  # reported when the header is looked at
        return None


def _cell(value: Any) -> str:
    """Return a cell as text, as Excel shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)
