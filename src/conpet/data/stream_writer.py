"""Write a task stream as a folder for the readers and `conpet learn`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from conpet.data.example import Example
from conpet.data.labelled import SUBSETS
from conpet.data.stream_layout import STREAM_FILE
from conpet.data.task import TaskStream
from conpet.errors import DataError, Problem

_LONGEST_FOLDER = 60


def write_stream(
    stream: TaskStream, folder: str | Path, extra: Mapping[str, bytes] | None = None, about: Sequence[str] = ()
) -> Path:
    """Write a stream as a folder and return its path.

    Each task becomes a subfolder with JSONL files; `stream.yaml` gives their order. A task name that does not suit a
    file system gets a similar folder name. Existing files with the same content, and hidden files, are left alone.

    Args:
        stream: The stream.
        folder: The folder to write.
        extra: Contents of further files, by name.
        about: Lines that describe how the stream was made, written as comments at the top of `stream.yaml`.

    Raises:
        DataError: The path is not a folder, or contains other data; nothing is written.
    """
    return write_folder(folder, _files(stream, extra or {}, about))


def write_folder(folder: str | Path, contents: Mapping[str, bytes]) -> Path:
    """Write files into a folder and return its path; as in `write_stream`, nothing is overwritten.

    Args:
        folder: The folder to write.
        contents: Contents of the files, by name.

    Raises:
        DataError: The path is not a folder, or contains other data; nothing is written.
    """
    root = Path(folder)
    wanted = {root / name: content for name, content in contents.items()}
    _check_place(root, wanted)
    for path, content in wanted.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.part")  # a half-written file would look like a changed one
            aside.write_bytes(content)
            aside.replace(path)
    return root


def json_lines(examples: Iterable[Example]) -> bytes:
    """Return examples as JSON lines for the readers."""
    return "".join(json.dumps(_row(example), ensure_ascii=False) + "\n" for example in examples).encode()


def _row(example: Example) -> dict[str, Any]:
    row = example.to_json()
    del row["kind"]  # follows from the other fields
    return row


def _check_place(root: Path, wanted: Mapping[Path, bytes]) -> None:
    """Refuse a folder with other content, which would look like a part of the stream."""
    place = next(path for path in (root, *root.parents) if path.exists())
    if not place.is_dir():
        raise DataError(f"{root} cannot be a folder: {place} is a file; name another folder")
    if not root.exists():
        return
    changed = [path for path in wanted if path.exists() and not _has_content(path, wanted[path])]
    problems = [Problem(str(path), None, "differs from what would be written") for path in changed]
    folders = {parent for path in wanted for parent in path.parents}
    surplus = _surplus(root, wanted, folders)
    problems += [Problem(str(path), None, "is not part of what would be written") for path in surplus]
    if problems:
        raise DataError(
            f"{root} contains other data; name a new or empty folder, or move that data away",
            problems,
        )


def _has_content(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _surplus(folder: Path, files: Collection[Path], folders: Collection[Path]) -> Iterator[Path]:
    """Yield unwanted paths below a folder, except hidden files; an unwanted folder is yielded as a whole."""
    for path in sorted(folder.iterdir()):
        if path in folders and path.is_dir():
            yield from _surplus(path, files, folders)
        elif path not in files and not path.name.startswith("."):
            yield path


def _files(stream: TaskStream, extra: Mapping[str, bytes], about: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of the stream folder by path, with empty subsets too, so that the reader splits none off."""
    folders = folder_names([task.name for task in stream], {STREAM_FILE, *extra})
    entries = [
        entry_of(folder, task.name, task.template, task.settings) for task, folder in zip(stream, folders, strict=True)
    ]
    listed = yaml.safe_dump({"tasks": entries}, sort_keys=False, allow_unicode=True)
    comments = "".join(f"# {_printable(line)}\n" for line in (*about, "The order in which the tasks are learned."))
    files = {STREAM_FILE: (comments + listed).encode(), **extra}
    for task, folder in zip(stream, folders, strict=True):
        files |= {f"{folder}/{subset}.jsonl": json_lines(getattr(task, subset)) for subset in SUBSETS}
    return files


def _printable(line: str) -> str:
    """Replace characters that a YAML comment cannot hold by blanks."""
    return "".join(character if character.isprintable() else " " for character in line)


def entry_of(path: str, name: str, template: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a task in `stream.yaml`."""
    options = {"name": name if name != path else None, "template": template, "settings": dict(settings) or None}
    return {"path": path} | {key: value for key, value in options.items() if value is not None}


def folder_names(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return a unique folder name for each task, also on file systems that ignore case."""
    used = {name.casefold() for name in taken}
    folders = []
    for name in names:
        plain = re.sub(r"[^\w. -]+", "-", name)[:_LONGEST_FOLDER].strip(" ._-") or "task"
        folder, number = plain, 1
        while folder.casefold() in used:
            number += 1
            folder = f"{plain}-{number}"
        used.add(folder.casefold())
        folders.append(folder)
    return folders
