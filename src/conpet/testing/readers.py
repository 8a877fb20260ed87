"""The contract of readers of file formats."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conpet.data.files import FORMATS, data_suffix, raw_rows
from conpet.data.raw import Note, RawRow
from conpet.data.rows import RowError, parse_row
from conpet.errors import PluginError, Problem
from conpet.testing.checks import ContractError, require

_DAMAGED = b"\xff\x00damaged\xfe\n" * 3


def check_reader_contract(reader: str | Callable[[Path], Iterator[Any]], sample: Path, rows: int) -> None:
    """Check a reader of a file format on a sample file.

    Args:
        reader: The registered end of the file's name ("psv"), or the function.
        sample: A correct file, whose name ends as those of the format do.
        rows: Number of examples in it.

    Raises:
        ContractError: It breaks a promise; the message says which.
    """
    with _registered(reader, sample) as name, tempfile.TemporaryDirectory() as folder:
        found = _read(sample)
        wrong = [str(row) for row in found if isinstance(row, Problem)]
        require(not wrong, f"the sample has problems: {wrong[:3]}")
        numbers = [row.row for row in found if isinstance(row, RawRow)]
        require(len(numbers) == rows, f"the sample has {rows} rows, and the reader yields {len(numbers)}")
        rising = all(one < other for one, other in zip([0, *numbers], numbers, strict=False))
        require(rising, f"the numbers of rows must rise, from 1 on: {numbers[:10]}")
        for row in found:
            if isinstance(row, RawRow):
                _check_fields(row)
        require(_read(sample) == found, "the sample read again has other rows")
        damaged = Path(folder) / f"damaged.{name}"
        damaged.write_bytes(_DAMAGED)
        _read(damaged)  # problems or rows, but no error


def _read(path: Path) -> list[RawRow | Problem | Note]:
    try:
        return list(raw_rows(path))
    except PluginError as error:
        raise ContractError(str(error)) from error


def _check_fields(row: RawRow) -> None:
    try:
        parse_row(row.fields)
    except RowError as error:
        raise ContractError(f"row {row.row} of the sample is no example: {error}") from error


@contextmanager
def _registered(reader: str | Callable[[Path], Iterator[Any]], sample: Path) -> Iterator[str]:
    """Register a function for the end of the sample's name while the block runs; yield that end without the dot."""
    if isinstance(reader, str):
        name = reader.removeprefix(".").lower()
        FORMATS.require(name)
        require(data_suffix(sample) == f".{name}", f"the sample must be named *.{name}, not {sample.name!r}")
        yield name
        return
    name = sample.suffix.removeprefix(".").lower()
    require(bool(name), f"the name of the sample {sample.name!r} needs the end of the format's files, such as .psv")
    if name in FORMATS and FORMATS[name] is reader:
        yield name
        return
    FORMATS.register(name, reader)
    try:
        yield name
    finally:
        FORMATS.unregister(name)
