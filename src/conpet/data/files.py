"""Rows of JSONL, CSV and Parquet files, streamed one at a time, with their problems."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from conpet.data.rows import FIELDS
from conpet.errors import REST_UNREAD, ConfigError, ConpetError, PluginError, Problem, check_memory
from conpet.registry import Registry

FORMATS = Registry(
    "file format",
    "conpet.readers",
    {
        "jsonl": "conpet.data.files:read_jsonl",
        "jsonl.gz": "conpet.data.files:read_jsonl",
        "csv": "conpet.data.files:read_csv",
        "csv.gz": "conpet.data.files:read_csv",
        "parquet": "conpet.data.files:read_parquet",
    },
    key=lambda name: name.removeprefix(".").lower(),
)
"""Maps a file name suffix, without the first dot, to its reader: a function of the path that yields a `RawRow` for each
row, and a `Problem` for each row, or rest of a file, that cannot be read."""

STDIN = "-"
_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = "is not UTF-8 text; save it as UTF-8"
_PARQUET_BATCH = 1024
# pyarrow raises these (or subclasses of them) and OSError for a damaged file.
_PARQUET_ERRORS = (ValueError, NotImplementedError, LookupError, TypeError)


class RawRow(NamedTuple):
    """A row's number, counted from 1 (the header of a CSV is row 1), and its fields."""

    row: int
    fields: dict[str, Any]


def data_suffix(path: Path) -> str | None:
    """Return the suffix of a file name that is in `FORMATS` (".csv.gz"), or None."""
    matching = [f".{name}" for name in FORMATS if path.name.lower().endswith(f".{name}")]
    return max(matching, key=len, default=None)


def raw_rows(path: str | Path) -> Iterator[RawRow | Problem]:
    """Stream the rows of a file in constant memory, with a `Problem` for each row or rest that cannot be read.

    Args:
        path: A file in one of `FORMATS`, or "-" for JSON lines from standard input.

    Raises:
        ConfigError: A Parquet file is read where pyarrow is not installed.
        PluginError: The reader of another package cannot be imported or fails.
    """
    file = str(path)
    suffix = data_suffix(Path(path))
    try:
        if file == STDIN:
            yield from _jsonl(sys.stdin.buffer, "standard input")
        elif suffix is None:
            formats = ", ".join(f".{name}" for name in FORMATS)
            yield Problem(file, None, f"unknown file format; readable: {formats}")
        else:
            name = suffix.removeprefix(".")
            yield from FORMATS[name](Path(path)) if FORMATS.is_builtin(name) else _added_reader(name, Path(path))
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield Problem(file, None, f"cannot be read: {reason or type(error).__name__}")


def _added_reader(name: str, path: Path) -> Iterator[RawRow | Problem]:
    """Read a file with the reader of another package, and check each row."""
    reader = FORMATS[name]
    try:
        for row in reader(path):
            yield _checked_row(row, name, path)
    except UnicodeDecodeError as error:
        reason = _NOT_UTF8 if error.encoding in ("utf-8", "utf8") else f"is not {error.encoding} text"
        yield Problem(str(path), None, f"{reason} (byte {error.start + 1})")
    except (ConpetError, OSError, EOFError, zlib.error):
        raise
    except Exception as error:
        check_memory(error, f"reading {path}")
        raise PluginError(
            f"{path}: {FORMATS.describe(name)} failed: {type(error).__name__}: {error}. Report it to the authors of "
            "the reader, or save the file in a format conpet reads."
        ) from error


def _checked_row(row: Any, name: str, path: Path) -> RawRow | Problem:
    if isinstance(row, Problem) or (isinstance(row, RawRow) and isinstance(row.fields, dict)):
        return row
    if isinstance(row, RawRow):
        what = f"RawRow with fields of type {type(row.fields).__name__}, not dict"
    else:
        what = f"{type(row).__name__}, not RawRow or Problem"
    raise PluginError(f"{path}: reader {name!r} yielded {what}: {FORMATS.describe(name)}.")


def read_jsonl(path: Path) -> Iterator[RawRow | Problem]:
    """Read JSON lines, gzipped or not."""
    with _open(path) as stream:
        yield from _jsonl(stream, str(path))


def read_csv(path: Path) -> Iterator[RawRow | Problem]:
    """Read comma-separated values with a header, gzipped or not."""
    with _open(path) as stream:
        yield from _csv(stream, str(path))


def read_parquet(path: Path) -> Iterator[RawRow | Problem]:
    """Read a Parquet file; needs pyarrow."""
    yield from _parquet(path, str(path))


def count_rows(path: str | Path) -> int | None:
    """Count the rows of a file without parsing them, or return None if that is not possible."""
    suffix = data_suffix(Path(path))
    if str(path) == STDIN or suffix is None:
        return None
    try:
        if suffix == ".parquet":
            with _parquet_file(Path(path)) as table:
                return int(table.metadata.num_rows)
        with _open(Path(path)) as stream:
            if suffix.startswith(".jsonl"):
                return sum(1 for line in stream if line.strip())
            if suffix.startswith(".csv"):
                return max(0, sum(1 for cells in _csv_reader(stream) if cells) - 1)
            return None
    except (OSError, EOFError, zlib.error, csv.Error, *_PARQUET_ERRORS):
        return None


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _jsonl(stream: IO[bytes], file: str) -> Iterator[RawRow | Problem]:
    for row, line in enumerate(stream, start=1):
        text = line.removeprefix(_BOM) if row == 1 else line
        if text.strip():
            yield _json_row(text, file, row)


def _json_row(line: bytes, file: str, row: int) -> RawRow | Problem:
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Problem(file, row, f"{_NOT_UTF8} (byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        return Problem(file, row, f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Problem(file, row, f"not usable JSON: {error}")
    if not isinstance(fields, dict):
        return Problem(file, row, 'not a JSON object such as {"text": "...", "label": "..."}')
    return RawRow(row, fields)


def _csv_reader(stream: IO[bytes]) -> Iterator[list[str]]:
    # Undecodable bytes become lone surrogates, so that the error is reported for their row.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    return csv.reader(text, strict=True)


def _csv(stream: IO[bytes], file: str) -> Iterator[RawRow | Problem]:
    header: list[str] | None = None
    row = 0
    try:
        for row, cells in enumerate(_csv_reader(stream), start=1):
            if header is None:
                header = [name.strip() for name in cells]
                if problem := _check_header(header, file):
                    yield problem
                    return
            elif cells:
                yield _csv_row(cells, header, file, row)
    except csv.Error as error:
        yield Problem(file, row + 1, f"not valid CSV: {error}; {REST_UNREAD}")


def _csv_row(cells: list[str], header: list[str], file: str, row: int) -> RawRow | Problem:
    if _is_escaped(cells):
        return Problem(file, row, _NOT_UTF8)
    if len(cells) != len(header):
        return Problem(file, row, f"has {len(cells)} cells where the header has {len(header)}")
    return RawRow(row, dict(zip(header, cells, strict=True)))


def _is_escaped(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return True
    return False


def _check_header(header: list[str], file: str) -> Problem | None:
    if _is_escaped(header):
        return Problem(file, 1, _NOT_UTF8)
    twice = [name for name in FIELDS if header.count(name) > 1]
    if twice:
        return Problem(file, 1, f"the header names {', '.join(twice)} more than once")
    return _check_columns(header, file, 1)


def _check_columns(columns: list[str], file: str, row: int | None) -> Problem | None:
    if "text" in columns or "tokens" in columns:
        return None
    shown = ", ".join(repr(name) for name in columns[:10]) or "none"
    hint = " (cells must be separated by commas)" if len(columns) == 1 and set(columns[0]) & set(";\t|") else ""
    return Problem(file, row, f"no column named text or tokens; columns: {shown}{hint}")


def _parquet_file(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet needs pyarrow: pip install 'conpet[parquet]'") from None
    return pq.ParquetFile(path)


def _parquet(path: Path, file: str) -> Iterator[RawRow | Problem]:
    try:
        with _parquet_file(path) as table:
            columns = [name for name in table.schema_arrow.names if name in FIELDS]
            if problem := _check_columns(table.schema_arrow.names, file, None):
                yield problem
                return
            rows = (row for batch in table.iter_batches(_PARQUET_BATCH, columns=columns) for row in _batch_rows(batch))
            for number, fields in enumerate(rows, start=1):
                yield RawRow(number, fields) if fields is not None else Problem(file, number, _NOT_UTF8)
    except ConfigError:
        raise
    except _PARQUET_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        yield Problem(file, None, f"not a readable Parquet file: {reason}")


def _batch_rows(batch: Any) -> list[dict[str, Any] | None]:
    """Return the rows of a pyarrow record batch, with None for rows that are not UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for at in range(batch.num_rows) for row in _batch_rows(batch.slice(at, 1))]
