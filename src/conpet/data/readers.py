"""Read tasks, streams and inputs from files. Any wrong row is an error, and all wrong rows are reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

from conpet.data.checks import (
    Located,
    check_example,
    check_new_labels,
    check_rows,
    check_stream,
    check_task_template,
    next_step,
)
from conpet.data.example import Example
from conpet.data.files import STDIN, RawRow, count_rows, raw_rows
from conpet.data.held_out import with_held_out
from conpet.data.rows import RowError, parse_row
from conpet.data.stream_layout import TaskSource, find_stream, find_task
from conpet.data.task import Examples, MixedExamples, Task, TaskStream
from conpet.errors import DataError, Problem, plural


def read_task(
    path: str | Path,
    *,
    name: str | None = None,
    seed: int = 0,
    template: str | None = None,
    settings: Mapping[str, object] | None = None,
    owned: Mapping[str, str] | None = None,
    all_rows: bool = False,
) -> Task:
    """Read a task.

    Args:
        path: A JSONL, CSV or Parquet file (JSONL and CSV also gzipped), or a folder with a train file and, if there
            are any, validation (dev, valid) and test files. See `conpet.data.rows.parse_row` for the fields.
        name: The task's name; by default the name of the file or folder.
        seed: Seed for splitting missing validation and test sets off the training set (see `Task.notes`).
        template: A template instead of the default of the kind (see `conpet.data.templates.render`).
        settings: Overrides of the workspace's task-level settings.
        owned: Maps known labels to the names of their tasks; the labels of this task must be new.
        all_rows: Whether to learn from every row: nothing is split off, and missing sets stay empty.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    source = find_task(Path(path), name, template, settings)
    return _build([source], [], path, None if all_rows else seed, owned or {})[0]


def read_stream(
    path: str | Path, *, seed: int = 0, owned: Mapping[str, str] | None = None, all_rows: bool = False
) -> TaskStream:
    """Read a folder of tasks, or one task as a stream of one.

    The tasks are the files and subfolders in natural order ("task-2" before "task-10"), or those in `stream.yaml`:
    `tasks: [{path: ..., name: ..., template: ..., settings: {...}}]`. Paths are relative to the folder; only `path` is
    required.

    Args:
        path: The folder or file.
        seed: As in `read_task`.
        owned: As in `read_task`.
        all_rows: As in `read_task`.

    Raises:
        DataError: The data has errors; `problems` lists all of them, over all tasks.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    sources, problems = find_stream(Path(path))
    return TaskStream(_build(sources, problems, path, None if all_rows else seed, owned or {}))


def read_examples(path: str | Path) -> Examples:
    """Read further examples for known tasks; files as in `read_task`, but nothing is split off.

    Args:
        path: A file of training examples, or a folder with a train file and, if there are any, other sets.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    loaded = _load(find_task(Path(path), None, None, None), whole=False)
    if loaded.problems:
        raise DataError(f"{path}: {plural(len(loaded.problems), 'problem')}; nothing was learned", loaded.problems)
    return Examples(**{subset: tuple(row.example for row in rows) for subset, rows in loaded.subsets.items()})


def read_mixed(
    path: str | Path,
    *,
    name: str | None = None,
    template: str | None = None,
    owned: Mapping[str, str] | None = None,
    into: str | None = None,
) -> list[MixedExamples]:
    """Read examples of known and new labels, for `ConPET.learn_mixed`; files as in `read_stream`.

    Args:
        path: A file, a folder with a train file and, if there are any, other sets, or a stream of these.
        name: Name of the task for the new labels; by default that of the file or folder. Only for a single task.
        template: Template of that task; only for a single task.
        owned: Maps known labels to the names of their tasks, for the checks (`ConPET.owners`).
        into: The known task that the new labels will be added to, instead of a new task.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    if name is None and template is None:
        sources, problems = find_stream(Path(path))
    else:
        sources, problems = [find_task(Path(path), name, template)], []
    loaded = [_load(source, whole=False) for source in sources]
    owners = dict(owned or {})
    for task in loaded:
        source = task.source
        new = {
            subset: [row for row in rows if row.example.label is not None and row.example.label not in owners]
            for subset, rows in task.subsets.items()
        }
        problems += task.problems
        problems += check_new_labels(str(source.files.get("train", source.path)), new, source.name, owners, into)
        owners |= {str(row.example.label): into or source.name for rows in new.values() for row in rows}
    if problems:
        raise DataError(f"{path}: {plural(len(problems), 'problem')}; nothing was learned", problems)
    return [
        MixedExamples(
            task.source.name,
            Examples(**{subset: tuple(row.example for row in rows) for subset, rows in task.subsets.items()}),
            task.source.template,
            task.source.settings,
        )
        for task in loaded
    ]


@overload
def read_inputs(path: str | Path, *, on_error: Literal["fail"] = ...) -> Iterator[Example]: ...


@overload
def read_inputs(path: str | Path, *, on_error: Literal["fail", "report"]) -> Iterator[Example | Problem]: ...


def read_inputs(path: str | Path, *, on_error: Literal["fail", "report"] = "fail") -> Iterator[Example | Problem]:
    """Stream inputs to predict, in constant memory; labels are optional.

    Args:
        path: A JSONL, CSV or Parquet file, or "-" for JSON lines from standard input.
        on_error: "report" yields a `conpet.errors.Problem` in place of each wrong row. `ConPET.predict_stream` takes it
            as an input that cannot be predicted.

    Raises:
        DataError: A row is wrong and `on_error` is "fail", or the rest of the file cannot be read; raised when the row
            is reached.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    for row in read_input_rows(path):
        if isinstance(row, Located):
            yield row.example
        elif on_error == "fail" or row.ends_reading:
            raise DataError(f"{path}: an input cannot be read; correct or remove it", [row])
        else:
            yield row


def read_input_rows(path: str | Path) -> Iterator[Located | Problem]:
    """Stream the rows of a file as `read_inputs` does, with a `Problem` in place of each wrong row."""
    for row in _parsed(path):
        if isinstance(row, Located) and (reasons := check_example(row.example)):
            yield row.problem("; ".join(reasons))
        else:
            yield row


def count_inputs(path: str | Path) -> int | None:
    """Count the rows that `read_inputs` will read, or return None if that is not known beforehand."""
    return count_rows(path)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The data of a task; `subsets` holds the rows that could be parsed."""

    source: TaskSource
    subsets: dict[str, list[Located]]
    problems: list[Problem]


def _parsed(path: str | Path) -> Iterator[Located | Problem]:
    file = "standard input" if str(path) == STDIN else str(path)
    for raw in raw_rows(path):
        if isinstance(raw, RawRow):
            try:
                yield Located(file, raw.row, parse_row(raw.fields))
            except RowError as error:
                yield Problem(file, raw.row, str(error), raw.fields.get("id"))
        else:
            yield raw


def _load(source: TaskSource, *, whole: bool = True) -> _Loaded:
    subsets: dict[str, list[Located]] = {}
    problems = list(source.problems)
    for subset, path in source.files.items():
        rows = list(_parsed(path))
        subsets[subset] = [row for row in rows if isinstance(row, Located)]
        problems += [row for row in rows if isinstance(row, Problem)]
    if "train" in subsets:
        problems += check_rows(str(source.files["train"]), subsets, whole=whole)
        if subsets["train"]:
            kind = subsets["train"][0].example.kind
            problems += check_task_template(str(source.path), source.template, kind)
    return _Loaded(source, subsets, problems)


def _build(
    sources: list[TaskSource],
    source_problems: list[Problem],
    path: str | Path,
    seed: int | None,
    owned: Mapping[str, str],
) -> tuple[Task, ...]:
    """Check all sources and build their tasks; without a seed, nothing is split off."""
    loaded = [_load(source) for source in sources]
    problems = source_problems + [problem for task in loaded for problem in task.problems]
    problems += check_stream(((task.source.name, task.subsets.get("train", ())) for task in loaded), owned)
    if problems:
        files = len({problem.file for problem in problems})
        found = f"{plural(len(problems), 'problem')} in {plural(files, 'file')}"
        raise DataError(f"{path}: {found}; nothing was learned{_next_step(loaded, owned)}", problems)
    return tuple(_task(task, seed) for task in loaded)


def _next_step(loaded: Iterable[_Loaded], owned: Mapping[str, str]) -> str:
    """Return how to learn tasks of which some have labels of others, as the end of a message."""
    labels: set[str | None] = set()
    for task in loaded:
        own = {row.example.label for row in task.subsets.get("train", ())}
        if any(owned.get(label, task.source.name) != task.source.name for label in own if label is not None):
            labels |= own
    return next_step(labels, owned)


def _task(loaded: _Loaded, seed: int | None) -> Task:
    source = loaded.source
    subsets, notes = with_held_out(
        {subset: [row.example for row in rows] for subset, rows in loaded.subsets.items()}, seed
    )
    return Task(
        source.name,
        subsets["train"],
        subsets["validation"],
        subsets["test"],
        template=source.template,
        settings=source.settings,
        notes=(*source.notes, *notes),
    )
