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
    """Read a sheet; its first row that is not empty is the header. Numbers become text.

    It is the sheet that the options name, else the first that is not empty; if that lacks the columns needed and
    exactly one other has them, that one.
    """
    try:
        import openpyxl
    except ImportError:
        raise ConfigError(f"{source.path}: reading Excel needs openpyxl: pip install 'conpet[excel]'") from None
    try:
        with warnings.catch_warnings(action="ignore"), source.binary() as stream:
            workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            yield from _rows(workbook, source)
    except BadZipFile:
        yield source.problem(None, _not_excel(source))
    except _ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        yield source.problem(None, f"not a readable Excel workbook (.xlsx): {reason}")


def _rows(workbook: Any, source: Source) -> Iterator[RawItem]:
    for sheet in workbook.worksheets:
        sheet.reset_dimensions()  # some programs state too few cells
    if source.options.sheet is None:
        read, why = _likeliest(workbook, source)
        if others := [repr(sheet.title) for sheet in workbook.worksheets if sheet is not read]:
            told = f"only the sheet {read.title!r} is read{why}; not read: {', '.join(others)} (--sheet names another)"
            yield Note(source.file, told)
    elif (read := _named(workbook, source.options.sheet)) is None:
        names = ", ".join(repr(sheet.title) for sheet in workbook.worksheets)
        yield source.problem(None, f"has no sheet {source.options.sheet!r}; sheets: {names}")
        return
    yield from _rows_of(read, source)


def _rows_of(read: Any, source: Source) -> Iterator[RawItem]:
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


def _named(workbook: Any, wanted: str | int) -> Any | None:
    """Return a sheet by its title, else by its number; None if there is none."""
    number = int(wanted) if str(wanted).isdecimal() else 0
    by_number = workbook.worksheets[number - 1 : number] if number else []
    return next((sheet for sheet in workbook.worksheets if sheet.title == str(wanted)), next(iter(by_number), None))


def _likeliest(workbook: Any, source: Source) -> tuple[Any, str]:
    """Return the sheet to read and why: the first that is not empty, or the only one with the columns needed."""
    sheets = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"] or workbook.worksheets
    filled = [sheet for sheet in sheets if _has_cells(sheet)]
    if not filled:
        return sheets[0], ""
    fitting = [sheet for sheet in filled if _fits(sheet, source)] if len(filled) > 1 else filled
    if filled[0] not in fitting and len(fitting) == 1:
        return fitting[0], ", the only one with the columns needed"
    return filled[0], "" if filled[0] is sheets[0] else ", the first that is not empty"


def _fits(sheet: Any, source: Source) -> bool:
    """Return whether the first row that is not empty names the columns that are needed."""
    rows = ([_cell(value) for value in values] for values in sheet.iter_rows(values_only=True))
    header = next(cells for cells in rows if any(cell.strip() for cell in cells))
    names = [name for _, name in _columns(header, source)]
    try:
        assign_columns(names, source.options.columns, labelled=source.labelled and not source.optional)
    except ColumnError:
        return False
    return True


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
