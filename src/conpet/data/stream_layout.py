"""Find the tasks of a stream: data files, task folders, `stream.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from conpet.config import Settings
from conpet.config.base import worded
from conpet.config.unique_keys import load_yaml
from conpet.data.files import NO_SUCH_PATH, data_suffix, is_data, is_data_folder, readable_endings, unknown_format
from conpet.data.formats.columnar import saved_subsets
from conpet.data.raw import SUBSET_NAMES, ReadOptions
from conpet.data.source import is_stdin
from conpet.errors import ConfigError, Problem, Scope, reason_of

STREAM_FILE = "stream.yaml"
_SHARD = re.compile(r"-\d+-of-\d+$")
"""How the names of the files end in a data set of the Hugging Face Hub: train-00000-of-00001.parquet."""
# Probably data files: ignoring them silently would lose a task.
_FOREIGN = (".xls", ".ods", ".feather", ".gz", ".bz2", ".xz", ".zst", ".zip", ".pkl", ".xml")


@dataclass(frozen=True, slots=True)
class TaskSource:
    """The files and options of a task on disk.

    Attributes:
        name: The task's name.
        path: Its file or folder.
        files: Data files by subset; if "train" is missing, `problems` says why.
        template: The task's own template, or None.
        settings: The task's own settings.
        notes: What was ignored.
        problems: Errors of the file or folder itself.
        options: How to read the files.
    """

    name: str
    path: Path
    files: Mapping[str, Path]
    template: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    options: ReadOptions = field(default_factory=ReadOptions)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    name: str | None = None
    template: str | None = None
    settings: dict[str, JsonValue] = {}
    columns: dict[str, str | int] = {}
    encoding: str | None = None
    format: str | None = None
    inclusive_ends: bool = False
    sheet: str | int | None = None


class _StreamFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tasks: list[_Entry]


def find_task(
    path: Path,
    name: str | None = None,
    template: str | None = None,
    settings: Mapping[str, Any] | None = None,
    options: ReadOptions | None = None,
) -> TaskSource:
    """Find the files of a task in a file or folder; "-" is standard input."""
    files: dict[str, Path] = {}
    notes: list[str] = []
    problems = _check_settings(path, settings or {})
    options = options or ReadOptions()
    if is_stdin(path):
        files["train"] = path
    elif not path.exists():
        problems.append(Problem(str(path), None, NO_SUCH_PATH))
    elif not path.is_dir() or is_data_folder(path):
        files["train"] = path
    else:
        _fill_from_folder(path, options, files, notes, problems)
    return TaskSource(
        name or _name(path), path, files, template, dict(settings or {}), tuple(notes), tuple(problems), options
    )


def find_stream(path: Path, options: ReadOptions | None = None) -> tuple[list[TaskSource], list[Problem]]:
    """Find the tasks of a stream: a folder, in natural order or in the order of its `stream.yaml`, or a single task."""
    options = options or ReadOptions()
    if is_stdin(path):
        return [find_task(path, options=options)], []
    if (path / STREAM_FILE).is_file():
        return _read_stream_file(path / STREAM_FILE, options)
    if not path.is_dir() or is_data_folder(path) or _contains_subset(path):
        return [find_task(path, options=options)], []
    sources, problems = [], []
    for entry in sorted(path.iterdir(), key=lambda entry: _natural(entry.name)):
        if _is_hidden(entry):
            continue
        if entry.is_dir() or _is_data(entry, options):
            sources.append(find_task(entry, options=options))
        elif entry.suffix.lower() in _FOREIGN:
            problems.append(Problem(str(entry), None, unknown_format(entry)))
    if not sources and not problems:
        endings = readable_endings()
        problems.append(Problem(str(path), None, f"contains no tasks: no folders, and no files in {endings}"))
    return sources, problems


def _fill_from_folder(
    folder: Path, options: ReadOptions, files: dict[str, Path], notes: list[str], problems: list[Problem]
) -> None:
    saved = saved_subsets(folder)
    entries = sorted(folder.iterdir(), key=_plain_lines_last) if saved is None else [folder / name for name in saved]
    for file in filterfalse(_is_hidden, entries):
        subset = subset_of(file)
        if not (is_data_folder(file) if file.is_dir() else _is_data(file, options) or (subset and data_suffix(file))):
            continue
        if subset in files and not _is_data(file, options):  # plain lines beside data
            continue
        if subset is None:
            notes.append(f"{file.name} was ignored: it is not named train, validation or test")
        elif subset in files:
            problems.append(
                Problem(str(file), None, f"is a second {subset} file, next to {files[subset].name}; keep one")
            )
        else:
            files[subset] = file
    if "train" not in files:
        problems.append(Problem(str(folder), None, "contains no train file (train.jsonl, train.csv, train.tsv, ...)"))


def _is_hidden(entry: Path) -> bool:
    """Return whether an entry of a folder belongs to another program: .DS_Store, ._train.csv, ~$lock.xlsx."""
    return entry.name.startswith((".", "__", "~$"))


def _plain_lines_last(file: Path) -> tuple[bool, Path]:
    return data_suffix(file) == ".txt", file


def _is_data(file: Path, options: ReadOptions) -> bool:
    """Return whether a file holds data; any file that can be read does if the user names its format."""
    return is_data(file) or (options.format is not None and file.suffix.lower() in (".txt", f".{options.format}"))


def subset_of(file: Path) -> str | None:
    """Return the subset that a file or folder is named after (train, validation, dev, test, ...), or None."""
    return SUBSET_NAMES.get(_SHARD.sub("", file.name if file.is_dir() else _stem(file)).lower())


def _contains_subset(folder: Path) -> bool:
    """Return whether a folder is a task: it holds a subset, or a dictionary of saved data sets."""
    return saved_subsets(folder) is not None or any(
        subset_of(file) and (is_data_folder(file) if file.is_dir() else data_suffix(file)) for file in folder.iterdir()
    )


def _read_stream_file(file: Path, options: ReadOptions) -> tuple[list[TaskSource], list[Problem]]:
    try:
        stream = _StreamFile.model_validate(load_yaml(file.read_text(encoding="utf-8-sig")) or {})
    except yaml.MarkedYAMLError as error:
        row = error.problem_mark.line + 1 if error.problem_mark else None
        return [], [Problem(str(file), row, f"not valid YAML: {error.problem}", scope=Scope.PARSING)]
    except ValidationError as error:
        return [], [
            Problem(str(file), None, _explain(item["loc"], item["type"], item["msg"])) for item in error.errors()
        ]
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        return [], [Problem(str(file), None, f"cannot be read: {reason_of(error, file).splitlines()[0]}")]
    if not stream.tasks:
        return [], [Problem(str(file), None, "tasks: the list is empty")]
    return [
        find_task(file.parent / entry.path, entry.name, entry.template, entry.settings, _options(entry, options))
        for entry in stream.tasks
    ], []


def _options(entry: _Entry, given: ReadOptions) -> ReadOptions:
    """Return how to read the files of an entry; what it leaves out is as given for the stream."""
    columns = {field: str(column) for field, column in entry.columns.items()}
    return ReadOptions(
        columns or given.columns,
        entry.encoding or given.encoding,
        entry.format or given.format,
        entry.inclusive_ends or given.inclusive_ends,
        given.sheet if entry.sheet is None else entry.sheet,
    )


def _explain(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(str(part) for part in loc) or "the file"
    if kind == "extra_forbidden":
        known = _StreamFile if len(loc) == 1 else _Entry
        return f"{where}: unknown key; known: {', '.join(known.model_fields)}"
    return f"{where}{worded(message)}"


def _check_settings(path: Path, settings: Mapping[str, Any]) -> list[Problem]:
    try:
        if settings:  # avoids importing the classes of modules and heads
            Settings().for_task(settings)
    except ConfigError as error:
        return [Problem(str(path), None, str(error))]
    return []


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(data_suffix(path) or "")]


def _name(path: Path) -> str:
    if is_stdin(path):
        return "stdin"
    return path.resolve().name if path.is_dir() else _stem(path)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name
