"""The checked data of a job, as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conpet.data import Example, Examples, Task
from conpet.data.labelled import SUBSETS
from conpet.errors import CorruptionError

DATA, SAMPLE = "data.json", "sample.json"
"""Names of the file, and of one with a few examples of each task, in the folder of the job."""


def write_tasks(file: Path, tasks: Iterable[Task]) -> None:
    """Write tasks to a new file."""
    documents = [
        {
            "name": task.name,
            "template": task.template,
            "settings": dict(task.settings),
            "notes": list(task.notes),
            **_examples(task),
        }
        for task in tasks
    ]
    _write(file, {"tasks": documents})


def sample_of(task: Task) -> Task:
    """Return a task with two training examples, of two labels if there are any, to check what is not in the rows."""
    first = task.train[0]
    second = next((one for one in task.train if one.label != first.label), task.train[-1])
    return replace(task, train=(first, second), validation=(), test=())


def write_examples(file: Path, examples: Examples) -> None:
    """Write further examples for known tasks to a new file."""
    _write(file, {"examples": _examples(examples)})


def write_wanted(file: Path, wanted: Mapping[str, Any]) -> None:
    """Write what is to be forgotten (arguments of `ConPET.forget`, JSON-ready) to a new file."""
    _write(file, {"wanted": dict(wanted)})


def read_wanted(file: Path) -> dict[str, Any]:
    """Read what `write_wanted` wrote."""
    wanted: dict[str, Any] = _read(file)["wanted"]
    return wanted


def read_tasks(file: Path) -> list[Task]:
    """Read what `write_tasks` wrote."""
    return [_task(document) for document in _read(file)["tasks"]]


def read_examples(file: Path) -> Examples:
    """Read what `write_examples` wrote."""
    rows = _subsets(_read(file)["examples"])
    return Examples(rows["train"], rows["validation"], rows["test"])


def _task(document: Mapping[str, Any]) -> Task:
    rows = _subsets(document)
    return Task(
        document["name"],
        rows["train"],
        rows["validation"],
        rows["test"],
        template=document["template"],
        settings=document["settings"],
        notes=tuple(document["notes"]),
    )


def _examples(source: Task | Examples) -> dict[str, Any]:
    return {subset: [example.to_json() for example in getattr(source, subset)] for subset in SUBSETS}


def _subsets(document: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, tuple[Example, ...]]:
    return {subset: tuple(Example.from_json(row) for row in document[subset]) for subset in SUBSETS}


def _write(file: Path, document: Mapping[str, Any]) -> None:
    with file.open("x", encoding="utf-8") as stream:
        json.dump(document, stream)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise CorruptionError(f"the data of a job is missing or damaged ({error}); send it again") from error
