"""Write a cleaned copy of data, with a list of the rows that were left out or changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from conpet.data.quality.examination import Examination
from conpet.data.quality.rows import TRAIN, Row
from conpet.data.readers import LoadedTask
from conpet.data.stream_layout import STREAM_FILE
from conpet.data.stream_writer import entry_of, folder_names, json_lines
from conpet.errors import ConfigError
from conpet.files import require_new_files_in, written_aside

LEFT_OUT = "left-out.jsonl"
"""The list of rows that were left out or changed, in the folder of a cleaned copy."""


def require_empty(folder: Path) -> None:
    """Check that a cleaned copy can be written to a folder: it must be empty, or new in a folder that exists.

    Raises:
        ConfigError: It is a file, contains something, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder; name a new one for the cleaned copy. Nothing was written")
    require_new_files_in(folder)


def write_cleaned(done: Examination, loaded: Sequence[LoadedTask], folder: Path) -> Path:
    """Write the fixed data as a stream of JSONL files, and `left-out.jsonl`; the original files stay as they are.

    Each task becomes a subfolder with the subsets that it has, or one file if it was a file; `stream.yaml` lists them
    in order, with names, templates and settings. Rows have the fields of the readers; other columns are not copied.

    Args:
        done: The examination.
        loaded: The tasks as they were read.
        folder: A new or empty folder.

    Raises:
        ConfigError: The folder is not empty, or cannot be written.
    """
    require_empty(folder)
    names = folder_names([task.name for task in done.fixed.tasks], {STREAM_FILE, LEFT_OUT})
    entries = []
    for task, one, name in zip(done.fixed.tasks, loaded, names, strict=True):
        single = not one.source.path.is_dir() and list(task.subsets) == [TRAIN]
        for subset, rows in task.subsets.items():
            path = folder / (f"{name}.jsonl" if single else f"{name}/{subset}.jsonl")
            _write(path, json_lines(row.example for row in rows).decode())
        path_in_stream = f"{name}.jsonl" if single else name
        entries.append(entry_of(path_in_stream, task.name, one.source.template, one.source.settings))
    stream = yaml.safe_dump({"tasks": entries}, sort_keys=False, allow_unicode=True)
    _write(folder / STREAM_FILE, f"# The order in which the tasks are learned.\n{stream}")
    _write(folder / LEFT_OUT, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _left_out(done)))
    return folder


def _left_out(done: Examination) -> list[dict[str, Any]]:
    """Return the rows left out or changed, with their fields as they were and what they have become."""
    listed = []
    for one, row, new in done.outcomes:
        content = {} if row is None else {"was": _fields(row)}
        content |= {} if new is None else {"is": _fields(new)}
        listed.append({**one.model_dump(), **content})
    return listed


def _fields(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.example.to_json().items() if key != "kind"}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as stream:
        stream.write(text)
