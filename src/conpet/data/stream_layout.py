"""Find the tasks of a stream: data files, task folders, `stream.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from conpet.config import Settings
from conpet.config.base import worded
from conpet.data.files import FORMATS, data_suffix
from conpet.errors import ConfigError, Problem

STREAM_FILE = "stream.yaml"
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# Probably data files: ignoring them silently would lose a task.
_FOREIGN = (".json", ".ndjson", ".tsv", ".xls", ".xlsx", ".arrow", ".feather", ".gz", ".bz2", ".xz", ".zst", ".zip")


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
    """

    name: str
    path: Path
    files: Mapping[str, Path]
    template: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    name: str | None = None
    template: str | None = None
    settings: dict[str, JsonValue] = {}


class _StreamFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tasks: list[_Entry]


def find_task(
    path: Path, name: str | None = None, template: str | None = None, settings: Mapping[str, Any] | None = None
) -> TaskSource:
    """Find the files of a task in a file or folder."""
    files: dict[str, Path] = {}
    notes: list[str] = []
    problems = _check_settings(path, settings or {})
    if path.is_dir():
        _fill_from_folder(path, files, notes, problems)
    elif not path.exists():
        problems.append(Problem(str(path), None, "no such file or folder"))
    else:
        files["train"] = path
    return TaskSource(name or _name(path), path, files, template, dict(settings or {}), tuple(notes), tuple(problems))


def find_stream(path: Path) -> tuple[list[TaskSource], list[Problem]]:
    """Find the tasks of a stream: a folder, in natural order or in the order of its `stream.yaml`, or a single task."""
    if (path / STREAM_FILE).is_file():
        return _read_stream_file(path / STREAM_FILE)
    if not path.is_dir() or _contains_subset(path):
        return [find_task(path)], []
    sources, problems = [], []
    for entry in sorted(path.iterdir(), key=lambda entry: _natural(entry.name)):
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir() or data_suffix(entry):
            sources.append(find_task(entry))
        elif entry.suffix.lower() in _FOREIGN:
            problems.append(Problem(str(entry), None, f"unknown file format; readable: {_endings()}"))
    if not sources and not problems:
        problems.append(Problem(str(path), None, f"contains no tasks: no folders, and no files in {_endings()}"))
    return sources, problems


def _fill_from_folder(folder: Path, files: dict[str, Path], notes: list[str], problems: list[Problem]) -> None:
    for file in sorted(folder.iterdir()):
        if file.is_dir() or not data_suffix(file):
            continue
        subset = _SPLIT_NAMES.get(_stem(file).lower())
        if subset is None:
            notes.append(f"{file.name} was ignored: it is not named train, validation or test")
        elif subset in files:
            problems.append(
                Problem(str(file), None, f"is a second {subset} file, next to {files[subset].name}; keep one")
            )
        else:
            files[subset] = file
    if "train" not in files:
        problems.append(Problem(str(folder), None, "contains no train file (train.jsonl, train.csv or train.parquet)"))


def _contains_subset(folder: Path) -> bool:
    return any(
        data_suffix(file) and _stem(file).lower() in _SPLIT_NAMES for file in folder.iterdir() if not file.is_dir()
    )


def _read_stream_file(file: Path) -> tuple[list[TaskSource], list[Problem]]:
    try:
        stream = _StreamFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8-sig")) or {})
    except yaml.MarkedYAMLError as error:
        row = error.problem_mark.line + 1 if error.problem_mark else None
        return [], [Problem(str(file), row, f"not valid YAML: {error.problem}")]
    except ValidationError as error:
        return [], [
            Problem(str(file), None, _explain(item["loc"], item["type"], item["msg"])) for item in error.errors()
        ]
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        return [], [Problem(str(file), None, f"cannot be read: {str(error).splitlines()[0]}")]
    if not stream.tasks:
        return [], [Problem(str(file), None, "tasks: the list is empty")]
    return [
        find_task(file.parent / entry.path, entry.name, entry.template, entry.settings) for entry in stream.tasks
    ], []


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


def _endings() -> str:
    return ", ".join(f".{name}" for name in FORMATS)


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(data_suffix(path) or "")]


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else _stem(path)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name
