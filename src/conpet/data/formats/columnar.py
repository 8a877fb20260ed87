"""Parquet and Arrow files, and folders written by `datasets.Dataset.save_to_disk`; all need pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from conpet.data.columns import ColumnError, assign_columns
from conpet.data.formats.entities import ENTITY_LISTS
from conpet.data.raw import Header, Note, RawItem, RawRow
from conpet.data.source import NOT_UTF8, Source
from conpet.errors import ConfigError, Scope

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_BATCH = 1024
# pyarrow raises these (or subclasses of them) and OSError for a damaged file.
_ERRORS = (ValueError, NotImplementedError, LookupError, TypeError)
_NAMES = Mapping[str, list[str]]


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder was written by `Dataset.save_to_disk`."""
    return (folder / STATE).is_file()


def saved_subsets(folder: Path) -> list[str] | None:
    """Return the names of the data sets in a folder written by `DatasetDict.save_to_disk`, or None if it is none."""
    try:
        listed = json.loads((folder / SPLITS).read_text(encoding="utf-8"))["splits"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        listed = []
    present = [name for name in listed if isinstance(name, str) and is_saved_dataset(folder / name)]
    return present or sorted(entry.name for entry in folder.iterdir() if is_saved_dataset(entry))


def read_parquet(source: Source) -> Iterator[RawItem]:
    """Read a Parquet file."""
    try:
        with _parquet_file(source) as table:
            schema = table.schema_arrow
            columns = _needed(schema.names, source)
            yield Header(None, schema.names)
            yield from _rows(table.iter_batches(_BATCH, columns=columns), source, _class_names(schema), 0)
    except ConfigError:
        raise
    except _ERRORS as error:
        yield source.problem(None, f"not a readable Parquet file: {_first_line(error)}")


def count_parquet(source: Source) -> int | None:
    """Return the number of rows stored in the file."""
    try:
        with _parquet_file(source) as table:
            return int(table.metadata.num_rows)
    except ConfigError:
        raise
    except _ERRORS:
        return None


def read_arrow(source: Source) -> Iterator[RawItem]:
    """Read an Arrow file: the stream or the file format."""
    yield from _arrow([source.path], source, {})


def read_saved_dataset(source: Source) -> Iterator[RawItem]:
    """Read a folder written by `Dataset.save_to_disk`; numbers of class labels become their names."""
    try:
        state = json.loads((source.path / STATE).read_text(encoding="utf-8"))
        files = [source.path / entry["filename"] for entry in state["_data_files"]]
        indexed = state.get("_indices_data_files") or state.get("_indices_files")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        yield source.problem(None, f"{STATE} is not that of a saved data set: {_first_line(error)}")
        return
    if indexed:
        yield source.problem(None, "selects rows by an index; call flatten_indices() and save the data set again")
        return
    yield from _arrow(files, source, _saved_names(source.path / INFO))


def _arrow(files: Iterable[Path], source: Source, names: _NAMES) -> Iterator[RawItem]:
    pa = _pyarrow(source)
    number = 0
    for position, path in enumerate(files):
        try:
            with pa.memory_map(str(path)) as stored, _opened(pa, stored) as reader:
                if not position:
                    yield Header(None, reader.schema.names)
                columns = _needed(reader.schema.names, source)
                batches = (batch.select(columns) for batch in _batches(reader))
                for item in _rows(batches, source, names or _class_names(reader.schema), number):
                    number += isinstance(item, RawRow)
                    yield item
        except _ERRORS as error:
            where = f"{path.name}: " if path != source.path else ""
            yield source.problem(None, f"{where}not a readable Arrow file: {_first_line(error)}")
            return


def _opened(pa: Any, stored: Any) -> Any:
    try:
        return pa.ipc.open_stream(stored)
    except pa.ArrowInvalid:
        stored.seek(0)
        return pa.ipc.open_file(stored)


def _batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        whole = (reader.get_batch(at) for at in range(reader.num_record_batches))
    else:
        whole = iter(reader)
    for batch in whole:
        for start in range(0, batch.num_rows, _BATCH):
            yield batch.slice(start, _BATCH)


def _rows(batches: Iterable[Any], source: Source, names: _NAMES, before: int) -> Iterator[RawItem]:
    decode = {column: _decoder(listed) for column, listed in names.items()}
    rows = (row for batch in batches for row in _batch_rows(batch))
    for number, fields in enumerate(rows, start=before + 1):
        if fields is None:
            yield source.problem(number, NOT_UTF8, Scope.PARSING)
            continue
        for column in decode.keys() & fields.keys():
            fields[column] = decode[column](fields[column])
        yield RawRow(number, fields)
    if decode and not before:
        yield Note(source.file, f"the names of class labels are used for the numbers in {', '.join(sorted(decode))}")


def _decoder(names: list[str]) -> Callable[[Any], Any]:
    """Return a function that replaces the numbers of class labels by their names; -1 stands for no label."""

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, int):
            return value
        if value < 0:
            return None
        return names[value] if value < len(names) else value

    return decode


def _batch_rows(batch: Any) -> list[dict[str, Any] | None]:
    """Return the rows of a pyarrow record batch, with None for rows that are not UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for at in range(batch.num_rows) for row in _batch_rows(batch.slice(at, 1))]


def _needed(names: list[str], source: Source) -> list[str]:
    """Return the columns to read: those of fields, and those that other readers look at."""
    try:
        assigned = set(assign_columns(names, source.options.columns).of.values())
    except ColumnError:  # reported when the header is looked at
        assigned = set()
    return [name for name in names if name in assigned or name in ENTITY_LISTS]


def _class_names(schema: Any) -> _NAMES:
    """Return the names of class labels by column, from the features that `datasets` stores with a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (LookupError, ValueError, TypeError):
        return {}
    return _feature_names(features)


def _saved_names(info: Path) -> _NAMES:
    try:
        return _feature_names(json.loads(info.read_text(encoding="utf-8"))["features"])
    except (OSError, LookupError, ValueError, TypeError):
        return {}


def _feature_names(features: Any) -> _NAMES:
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        while isinstance(feature, (dict, list)) and "names" not in feature:
            feature = feature.get("feature") if isinstance(feature, dict) else next(iter(feature), None)
        if isinstance(feature, dict) and isinstance(feature["names"], list):
            found[column] = feature["names"]
    return found


def _parquet_file(source: Source) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise _missing(source, "Parquet") from None
    return pq.ParquetFile(source.path)


def _pyarrow(source: Source) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise _missing(source, "Arrow") from None
    return pa


def _missing(source: Source, what: str) -> ConfigError:
    return ConfigError(f"{source.path}: reading {what} needs pyarrow: pip install 'conpet[parquet]'")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
