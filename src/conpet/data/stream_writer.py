"""A task stream as a folder that the readers, and `conpet learn`, understand."""

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
from conpet.data.task import Task, TaskStream
from conpet.errors import DataError, Problem

_LONGEST_FOLDER = 60


def write_stream(
    stream: TaskStream, folder: str | Path, extra: Mapping[str, bytes] | None = None, about: Sequence[str] = ()
) -> Path:
    """Write a stream as a folder to look at, change and learn from; return the folder.

    It holds a folder a task with its JSONL files, and the `stream.yaml` that orders them. A task whose name is no good
    name for a folder lies in one of a similar name. Files that are there already with the same content are left
    alone, and so are hidden ones.

    Args:
        stream: The stream.
        folder: Where to write it.
        extra: Name to content of more files beside the tasks.
        about: Lines that say how the stream was made, written as comments at the top of `stream.yaml`.

    Raises:
        DataError: It is no folder, or something else than what is to be written stands there; nothing was written.
    """
    root = Path(folder)
    wanted = {root / name: content for name, content in _files(stream, extra or {}, about).items()}
    _check_place(root, wanted)
    for path, content in wanted.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.part")  # a half-written file would be taken for a changed one
            aside.write_bytes(content)
            aside.replace(path)
    return root


def json_lines(examples: Iterable[Example]) -> bytes:
    """Write examples as the JSON lines that the readers understand."""
    return "".join(json.dumps(_row(example), ensure_ascii=False) + "\n" for example in examples).encode()


def _row(example: Example) -> dict[str, Any]:
    row = example.to_json()
    del row["kind"]  # follows from the other fields
    return row


def _check_place(root: Path, wanted: Mapping[Path, bytes]) -> None:
    """Refuse a folder that holds anything else than what is to be written, for it would be taken for a part of that."""
    place = next(path for path in (root, *root.parents) if path.exists())
    if not place.is_dir():
        raise DataError(f"{root} cannot be a folder: {place} is a file; name another folder")
    if not root.exists():
        return
    changed = [path for path in wanted if path.exists() and not _holds(path, wanted[path])]
    problems = [Problem(str(path), None, "differs from what would be written") for path in changed]
    folders = {parent for path in wanted for parent in path.parents}
    surplus = _surplus(root, wanted, folders)
    problems += [Problem(str(path), None, "is no part of what would be written") for path in surplus]
    if problems:
        raise DataError(
            f"{root} holds other data than what is to be written; name a new or empty folder, or move that data away",
            problems,
        )


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _surplus(folder: Path, files: Collection[Path], folders: Collection[Path]) -> Iterator[Path]:
    """Yield what stands below a folder and is not wanted, hidden files aside; of a folder not wanted, itself alone."""
    for path in sorted(folder.iterdir()):
        if path in folders and path.is_dir():
            yield from _surplus(path, files, folders)
        elif path not in files and not path.name.startswith("."):
            yield path


def _files(stream: TaskStream, extra: Mapping[str, bytes], about: Iterable[str]) -> dict[str, bytes]:
    """Return the files of the stream folder, path to content; an empty split too, lest the reader splits one off."""
    folders = _folders([task.name for task in stream], {STREAM_FILE, *extra})
    entries = [_entry(task, folder) for task, folder in zip(stream, folders, strict=True)]
    listed = yaml.safe_dump({"tasks": entries}, sort_keys=False, allow_unicode=True)
    comments = "".join(f"# {_printable(line)}\n" for line in (*about, "The order in which the tasks are learned."))
    files = {STREAM_FILE: (comments + listed).encode(), **extra}
    for task, folder in zip(stream, folders, strict=True):
        files |= {f"{folder}/{subset}.jsonl": json_lines(getattr(task, subset)) for subset in SUBSETS}
    return files


def _printable(line: str) -> str:
    """Write a blank for what would end a comment, or could not be read again."""
    return "".join(character if character.isprintable() else " " for character in line)


def _entry(task: Task, folder: str) -> dict[str, Any]:
    given = {
        "name": task.name if task.name != folder else None,
        "template": task.template,
        "settings": dict(task.settings) or None,
    }
    return {"path": folder} | {key: value for key, value in given.items() if value is not None}


def _folders(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return a folder name for each task, none of them taken, for file systems that ignore case too."""
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
