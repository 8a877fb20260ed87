"""Rows of data files in any format, streamed one at a time, with their problems and notes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from conpet.data.columns import ColumnError, Columns, assign_columns, check_columns, id_in
from conpet.data.formats.brat import is_brat, read_brat
from conpet.data.formats.columnar import count_parquet, is_saved_dataset, read_saved_dataset
from conpet.data.formats.delimited import count_csv, count_tsv
from conpet.data.formats.entities import with_entities
from conpet.data.formats.jsonl import count_jsonl
from conpet.data.formats.plain_text import count_lines
from conpet.data.formats.rasa import looks_like_rasa
from conpet.data.raw import BrokenRow, Header, Note, RawItem, RawRow, ReadOptions
from conpet.data.source import (
    COMPRESSED,
    GIT_LFS,
    NOT_UTF8,
    READ_ERRORS,
    Source,
    check_encoding,
    decoding_problem,
    foreign_content,
)
from conpet.errors import ConpetError, PluginError, Problem, Scope, check_memory, reason_of
from conpet.registry import Registry

NO_SUCH_PATH = "no such file or folder"
_KEY_SETS = 256
_HEAD = 1 << 14
"""Number of characters looked at to recognise a format by its content."""

_BUILTIN = {
    "jsonl": "conpet.data.formats.jsonl:read_jsonl",
    "ndjson": "conpet.data.formats.jsonl:read_jsonl",
    "json": "conpet.data.formats.json_file:read_json",
    "csv": "conpet.data.formats.delimited:read_csv",
    "tsv": "conpet.data.formats.delimited:read_tsv",
    "tab": "conpet.data.formats.delimited:read_tsv",
    "parquet": "conpet.data.formats.columnar:read_parquet",
    "arrow": "conpet.data.formats.columnar:read_arrow",
    "xlsx": "conpet.data.formats.excel:read_excel",
    "xlsm": "conpet.data.formats.excel:read_excel",
    "yml": "conpet.data.formats.rasa:read_rasa_yaml",
    "yaml": "conpet.data.formats.rasa:read_rasa_yaml",
    "md": "conpet.data.formats.rasa:read_rasa_markdown",
    "lu": "conpet.data.formats.luis:read_lu",
    "conll": "conpet.data.formats.conll:read_conll",
    "iob": "conpet.data.formats.conll:read_conll",
    "iob2": "conpet.data.formats.conll:read_conll",
    "bio": "conpet.data.formats.conll:read_conll",
    "ann": "conpet.data.formats.brat:read_brat",
    "brat-mentions": "conpet.data.formats.brat:read_brat_mentions",
    "brat-relations": "conpet.data.formats.brat:read_brat_relations",
    "txt": "conpet.data.formats.plain_text:read_lines",
}
FORMATS = Registry(
    "file format",
    "conpet.readers",
    _BUILTIN,
    key=lambda name: name.removeprefix(".").lower(),
)
"""Maps a file name suffix, without the first dot, to its reader. Those of other packages take the path and yield a
`RawRow` for each row, a `Problem` for each row, or rest of a file, that cannot be read, and a `Note` for what the user
should know; conpet's own take a `Source`."""

TEXT_FORMATS = frozenset(_BUILTIN) - {"parquet", "arrow", "xlsx", "xlsm", "ann", "brat-mentions", "brat-relations"}
"""Formats whose files may also be compressed: `.gz`, `.zst`."""

_STREAMED = frozenset({"jsonl", "ndjson"})
"""Formats that are read only once, from the first row to the last."""

_COUNTERS: Mapping[str, Callable[[Source], int | None]] = {
    "jsonl": count_jsonl,
    "ndjson": count_jsonl,
    "csv": count_csv,
    "tsv": count_tsv,
    "tab": count_tsv,
    "parquet": count_parquet,
    "txt": count_lines,
}
"""Formats whose rows can be counted faster than they can be read."""


def data_suffix(path: Path) -> str | None:
    """Return the suffix of a file name that is in `FORMATS` (".csv.gz"), or None."""
    compressed = (f".{name}{suffix}" for name in TEXT_FORMATS for suffix in COMPRESSED)
    matching = [end for end in chain((f".{name}" for name in FORMATS), compressed) if path.name.lower().endswith(end)]
    return max(matching, key=len, default=None)


def readable_endings() -> str:
    """List the readable endings of file names, for messages."""
    listed = ", ".join(f".{name}" for name in FORMATS if not name.startswith("brat-"))
    return f"{listed}; text files also with {' or '.join(COMPRESSED)}"


_INSTEAD: Mapping[str, str] = {
    ".xls": "save it as .xlsx or CSV",
    ".ods": "save it as .xlsx or CSV",
    ".feather": "read it with --input-format arrow",
    ".zip": "unpack it",
    ".bz2": "decompress it: bunzip2",
    ".xz": "decompress it: unxz",
    ".pkl": "save its rows as JSON lines or CSV",
    ".xml": "save its rows as JSON lines or CSV",
}


def unknown_format(path: Path) -> str:
    """Return the problem of a file whose name does not tell its format, with what to do."""
    how = _INSTEAD.get(path.suffix.lower(), "a file with another name: --input-format (csv, tsv, jsonl, ...)")
    return f"unknown file format; readable: {readable_endings()}; {how}"


def is_data(path: Path) -> bool:
    """Return whether a file is probably data: not a README.md or a settings.yml that lies next to data."""
    suffix = data_suffix(path)
    if suffix is None:
        return False
    kind = _plain_suffix(suffix)
    if kind == ".txt":
        return False
    return kind not in (".md", ".yml", ".yaml") or looks_like_rasa(_head(path), kind)


def is_data_folder(path: Path) -> bool:
    """Return whether a folder is read like a file: a saved data set, or annotations of brat."""
    return path.is_dir() and (is_saved_dataset(path) or is_brat(path))


def raw_rows(
    path: str | Path, options: ReadOptions | None = None, *, labelled: bool = False, optional: bool = False
) -> Iterator[RawRow | Problem | Note]:
    """Stream the rows of a file, with a `Problem` for each row or rest that cannot be read, and with notes.

    The fields of a row have the names in `conpet.data.rows.FIELDS`, whatever the columns are called in the file.

    Args:
        path: A file in one of `FORMATS`, a data folder (see `is_data_folder`), or "-" for standard input: JSON lines,
            or text in the format that `options` names.
        options: How to read it.
        labelled: Whether labels are needed: a table without a column of labels is then a problem.
        optional: With `labelled`: whether a file without labels is read, too.

    Raises:
        ConfigError: An option is wrong, or a package that reads the format is not installed.
        PluginError: The reader of another package cannot be imported or fails.
    """
    options = options or ReadOptions()
    check_options(options)
    source = Source(Path(path), options, labelled, optional)
    yield from _assigned(_readable(source), source)


def count_rows(path: str | Path, options: ReadOptions | None = None) -> int | None:
    """Count the rows of a file, or return None if that is not possible."""
    source = Source(Path(path), options or ReadOptions())
    name = _format(source)
    if source.from_stdin or (name is None and not is_data_folder(source.path)):
        return None
    try:
        if counter := _COUNTERS.get(name or ""):
            return counter(source)
        items = list(filter(_counted, _items(source)))
    except (ValueError, csv.Error, *READ_ERRORS):
        return None
    return None if any(isinstance(item, (Problem, BrokenRow)) for item in items) else len(items)


def check_options(options: ReadOptions) -> None:
    """Check the options of a user.

    Raises:
        ConfigError: The encoding is unknown, or a column is given for something that is no field.
        UnknownNameError: There is no such format.
    """
    check_encoding(options.encoding)
    check_columns(options.columns)
    if options.format is not None:
        FORMATS.require(options.format.removeprefix(".").lower())


def _format(source: Source) -> str | None:
    """Return the name of a file's format, without the suffix of its compression."""
    if source.options.format is not None:
        return source.options.format.removeprefix(".").lower()
    suffix = data_suffix(source.path)
    return _plain_suffix(suffix).removeprefix(".") if suffix else None


def _plain_suffix(suffix: str) -> str:
    if suffix.removeprefix(".") in FORMATS:
        return suffix
    return suffix.removesuffix(next((end for end in COMPRESSED if suffix.endswith(end)), ""))


def _head(path: Path) -> str:
    try:
        with Source(path, ReadOptions()).text() as text:
            return text.read(_HEAD)
    except (ValueError, *READ_ERRORS):
        return ""


def _readable(source: Source) -> Iterator[RawItem]:
    """Yield the items of a file; that it cannot be opened, decompressed or decoded is a problem."""
    try:
        yield from _items(source)
    except FileNotFoundError:
        yield source.problem(None, NO_SUCH_PATH)
    except UnicodeDecodeError as error:
        yield decoding_problem(source, error)
    except READ_ERRORS as error:
        yield source.problem(None, f"cannot be read: {reason_of(error, source.path)}")


def _items(source: Source) -> Iterator[RawItem]:
    if source.path.is_dir():
        yield from _folder(source)
        return
    name = _format(source)
    yield from with_entities(_items_of(source, name), source)


def _items_of(source: Source, name: str | None) -> Iterator[RawItem]:
    if source.from_stdin:
        yield from _standard_input(source, name or "jsonl")
    elif name is None:
        yield source.problem(None, unknown_format(source.path))
    elif name not in TEXT_FORMATS and _stands_for_another(source.path):
        yield source.problem(None, f"cannot be read: {foreign_content(GIT_LFS)}")
    else:
        yield from FORMATS[name](source) if FORMATS.is_builtin(name) else _added_reader(name, source.path)


def _stands_for_another(path: Path) -> bool:
    """Return whether a file stands for one in Git LFS."""
    with path.open("rb") as stream:
        return stream.read(len(GIT_LFS)) == GIT_LFS


def _folder(source: Source) -> Iterator[RawItem]:
    if is_saved_dataset(source.path):
        yield from read_saved_dataset(source)
    elif is_brat(source.path):
        yield from read_brat(source)
    else:
        yield source.problem(
            None, "is a folder; name a file in it, or a folder of brat annotations or a saved data set"
        )


def _standard_input(source: Source, name: str) -> Iterator[RawItem]:
    """Yield the items of standard input: JSON lines as they come, other text from a copy."""
    if name in _STREAMED:
        yield from FORMATS[name](source)
    elif name in TEXT_FORMATS and FORMATS.is_builtin(name):
        with source.copied() as copy:
            yield from FORMATS[name](copy)
    else:
        yield source.problem(None, f"cannot be read as {name} from standard input; save it to a file")


def _assigned(items: Iterable[RawItem], source: Source) -> Iterator[RawRow | Problem | Note]:
    """Rename the columns of rows to the fields they hold."""
    needed = source.labelled and not source.optional

    def assign(names: tuple[str, ...], table: bool) -> Columns:
        return assign_columns(names, source.options.columns, labelled=needed, table=table)

    assigned = lru_cache(_KEY_SETS)(assign)
    columns: Columns | None = None
    told: set[str] = set()
    for item in items:
        try:
            if isinstance(item, Header):
                columns = assign(tuple(item.names), table=True)
                yield from (Note(source.file, note) for note in columns.notes)
            elif isinstance(item, BrokenRow):
                yield replace(item.problem, id=columns.id_of(item.cells) if columns else None)
            elif isinstance(item, RawRow):
                found = columns or assigned(tuple(filter(_is_name, item.fields)), table=False)
                for note in () if columns else set(found.notes) - told:
                    told.add(note)
                    yield Note(source.file, note)
                yield item._replace(fields=found.renamed(item.fields))
            else:
                yield item
        except ColumnError as error:
            if isinstance(item, Header):
                looks = "; it looks like JSON: --input-format jsonl or json" if _is_json(item.names) else ""
                yield source.problem(item.row, f"{error}{looks}", Scope.REST)
                return
            if isinstance(item, RawRow):
                yield replace(source.problem(item.row, str(error)), id=id_in(item.fields, source.options.columns))
            else:
                yield source.problem(None, str(error))


def _is_json(names: Sequence[str]) -> bool:
    return bool(names) and names[0].startswith(("{", "[{"))


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _counted(item: RawItem) -> bool:
    return isinstance(item, (RawRow, BrokenRow, Problem))


def _added_reader(name: str, path: Path) -> Iterator[RawItem]:
    """Read a file with the reader of another package, and check each row."""
    reader = FORMATS[name]
    try:
        for row in reader(path):
            yield _checked_row(row, name, path)
    except UnicodeDecodeError as error:
        reason = NOT_UTF8 if error.encoding in ("utf-8", "utf8") else f"is not {error.encoding} text"
        yield Problem(str(path), None, f"{reason} (byte {error.start + 1})")
    except (ConpetError, *READ_ERRORS):
        raise
    except Exception as error:
        check_memory(error, f"reading {path}")
        raise PluginError(
            f"{path}: {FORMATS.describe(name)} failed: {type(error).__name__}: {error}. Report it to the authors of "
            "the reader, or save the file in a format conpet reads."
        ) from error


def _checked_row(row: Any, name: str, path: Path) -> RawItem:
    if isinstance(row, (Problem, Note, Header)) or (isinstance(row, RawRow) and isinstance(row.fields, dict)):
        return row
    if isinstance(row, RawRow):
        what = f"RawRow with fields of type {type(row.fields).__name__}, not dict"
    else:
        what = f"{type(row).__name__}, not RawRow, Problem or Note"
    raise PluginError(f"{path}: reader {name!r} yielded {what}: {FORMATS.describe(name)}.")
