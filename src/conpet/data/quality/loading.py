"""Load files, folders, streams and tasks to check, and build tasks from what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from conpet.data.checks import Located
from conpet.data.quality.rows import Data, Row, TaskRows
from conpet.data.raw import ReadOptions
from conpet.data.readers import LoadedTask, build_task, load_rows
from conpet.data.stream_layout import TaskSource, find_stream, find_task, subset_of
from conpet.data.task import LABELS, Task
from conpet.errors import Problem


def load_data(
    paths: Sequence[Path],
    *,
    name: str | None = None,
    template: str | None = None,
    options: ReadOptions | None = None,
    owners: Mapping[str, str] | None = None,
    stored: Iterable[Row] = (),
) -> tuple[Data, list[LoadedTask]]:
    """Read all rows of files, of folders of subsets, and of streams.

    Args:
        paths: Files and folders, in the order in which they would be learned. Files named train, validation and test
            in one folder are one task.
        name: Name of the task, if there is one.
        template: Its template.
        options: How to read the files.
        owners: The labels of a workspace with the names of their tasks.
        stored: The rows of the workspace; those of tasks that are checked are left out.
    """
    sources: list[TaskSource] = []
    problems: list[Problem] = []
    for path in _tasks(paths):
        if name is None and template is None:
            found, wrong = find_stream(path, options)
            sources += found
            problems += wrong
        else:
            sources.append(find_task(path, name, template, None, options))
    loaded = [load_rows(source) for source in sources]
    tasks = tuple(map(_rows_of, loaded))
    names = {task.name for task in tasks}
    others = {label: task for label, task in (owners or {}).items() if task not in names}
    data = Data(
        ", ".join(map(str, paths)),
        tasks,
        tuple(row for row in stored if row.task not in names),
        others,
        tuple(problems),
    )
    return data, loaded


def data_of_tasks(tasks: Iterable[Task], owners: Mapping[str, str] | None = None, stored: Iterable[Row] = ()) -> Data:
    """Return the rows of tasks that are in memory; arguments as in `load_data`."""
    given = tuple(
        TaskRows(
            task.name,
            f"task {task.name!r}",
            {
                subset: [
                    Row(task.name, subset, f"task {task.name!r} ({subset})", number, example)
                    for number, example in enumerate(getattr(task, subset), start=1)
                ]
                for subset in ("train", "validation", "test")
                if subset == "train" or getattr(task, subset)
            },
            task.template,
            task.head == LABELS,
        )
        for task in tasks
    )
    names = {task.name for task in given}
    others = {label: task for label, task in (owners or {}).items() if task not in names}
    return Data(", ".join(names), given, tuple(row for row in stored if row.task not in names), others)


def tasks_of(data: Data, loaded: Sequence[LoadedTask], seed: int | None) -> list[Task]:
    """Build tasks from the rows of data that were loaded; without a seed, nothing is split off.

    Raises:
        DataError: The rows have errors.
    """
    return [
        build_task(
            replace(
                one,
                subsets={subset: [row.located for row in rows] for subset, rows in task.subsets.items()},
                problems=[],
            ),
            seed,
        )
        for one, task in zip(loaded, data.tasks, strict=True)
    ]


def _tasks(paths: Sequence[Path]) -> list[Path]:
    """Return the paths with files of subsets that lie in one folder replaced by this folder."""
    subset_files = [path for path in paths if path.is_file() and subset_of(path)]
    folders = {path.parent for path in subset_files} if len(subset_files) > 1 else set()
    joined = [path.parent if path in subset_files and path.parent in folders else path for path in paths]
    return list(dict.fromkeys(joined))


def _rows_of(loaded: LoadedTask) -> TaskRows:
    source = loaded.source
    head = source.settings.get("head", source.settings.get("head.name", LABELS))
    labelled = (head.get("name", LABELS) if isinstance(head, Mapping) else head) == LABELS
    return TaskRows(
        source.name,
        str(source.path),
        {subset: [_row(source.name, subset, one) for one in rows] for subset, rows in loaded.subsets.items()},
        source.template,
        labelled,
        tuple(loaded.problems),
        tuple(loaded.notes),
    )


def _row(task: str, subset: str, located: Located) -> Row:
    return Row(task, subset, located.file, located.row, located.example)
