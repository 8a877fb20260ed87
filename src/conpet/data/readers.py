"""Read tasks, streams and inputs from files. Any wrong row is an error, and all wrong rows are reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from conpet.data.checks import Located, check_example, check_rows, check_stream, check_task_template
from conpet.data.example import Example
from conpet.data.files import RawRow, count_rows, raw_rows
from conpet.data.held_out import TEST_SHARE, VALIDATION_SHARE, split_off
from conpet.data.rows import RowError, parse_row
from conpet.data.stream_layout import TaskSource, find_stream, find_task
from conpet.data.task import Examples, Task, TaskStream
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


def read_inputs(path: str | Path) -> Iterator[Example]:
    """Stream inputs to predict, in constant memory; labels are optional.

    Args:
        path: A JSONL, CSV or Parquet file, or "-" for JSON lines from standard input.

    Raises:
        DataError: A row is wrong; raised when the row is reached.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    for row in _parsed(path):
        if isinstance(row, Problem):
            raise DataError(f"{path}: an input cannot be read; correct or remove it", [row])
        if reasons := check_example(row.example):
            raise DataError(
                f"{path}: an input cannot be read; correct or remove it", [row.problem(reason) for reason in reasons]
            )
        yield row.example


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
    for raw in raw_rows(path):
        if isinstance(raw, RawRow):
            try:
                yield Located(str(path), raw.row, parse_row(raw.fields))
            except RowError as error:
                yield Problem(str(path), raw.row, str(error))
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
        raise DataError(f"{path}: {found}; nothing was learned", problems)
    return tuple(_task(task, seed) for task in loaded)


def _task(loaded: _Loaded, seed: int | None) -> Task:
    source = loaded.source
    notes = list(source.notes)
    subsets = {subset: tuple(row.example for row in rows) for subset, rows in loaded.subsets.items()}
    for subset, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if subset in subsets:
            if not subsets[subset]:
                use = "accuracy is not measured" if subset == "test" else "nothing is calibrated or chosen on it"
                notes.append(f"the {subset} file is empty: {use}; add rows, or remove the file to split some off")
            continue
        if seed is None:
            subsets[subset] = ()
            continue
        subsets["train"], subsets[subset] = split_off(subsets["train"], share, seed)
        few = "" if subsets[subset] else " (too few for one)"
        notes.append(
            f"no {subset} set: {len(subsets[subset])} of {len(subsets['train']) + len(subsets[subset])} training rows "
            f"were split off with seed {seed}{few}"
        )
    return Task(
        source.name,
        subsets["train"],
        subsets["validation"],
        subsets["test"],
        template=source.template,
        settings=source.settings,
        notes=tuple(notes),
    )
