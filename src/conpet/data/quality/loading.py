"""Load files, folders, streams and tasks to check, and build tasks from what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from conpet.data.checks import Located
from conpet.data.quality.rows import ANY_TASK, Data, Mode, Row, TaskRows
from conpet.data.raw import ReadOptions
from conpet.data.readers import LoadedTask, build_task, load_rows
from conpet.data.source import source_name
from conpet.data.stream_layout import TaskSource, find_stream, find_task, subset_of
from conpet.data.task import LABELS, Task
from conpet.errors import Problem


@dataclass(frozen=True, slots=True)
class Known:
    """What a workspace knows, and how the labels of rows are to be learned.

    Attributes:
        owners: Its labels with the names of their tasks.
        stored: Its rows.
        mode: How labels are learned; None for what suits the labels of each task.
        into: The known task that new labels are added to, or None.
    """

    owners: Mapping[str, str] = field(default_factory=dict)
    stored: Iterable[Row] = ()
    mode: Mode | None = Mode.NEW
    into: str | None = None


NOTHING = Known()


def load_data(
    paths: Sequence[Path],
    *,
    name: str | None = None,
    template: str | None = None,
    options: ReadOptions | None = None,
    known: Known = NOTHING,
) -> tuple[Data, list[LoadedTask]]:
    """Read all rows of files, of folders of subsets, and of streams.

    Args:
        paths: Files and folders, in the order in which they would be learned. Files named train, validation and test
            in one folder are one task.
        name: Name of the task, if there is one.
        template: Its template.
        options: How to read the files.
        known: What a workspace knows; its rows of tasks that are learned anew are left out.
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
    return _data(", ".join(map(source_name, paths)), list(map(_rows_of, loaded)), known, tuple(problems)), loaded


def data_of_tasks(tasks: Iterable[Task], known: Known = NOTHING) -> Data:
    """Return the rows of tasks that are in memory; arguments as in `load_data`."""
    given = [
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
    ]
    return _data(", ".join(dict.fromkeys(task.name for task in given)), given, known)


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


def _data(source: str, tasks: Sequence[TaskRows], known: Known, problems: tuple[Problem, ...] = ()) -> Data:
    learned = tuple(_with_modes(tasks, known))
    anew = {task.name for task in learned if task.mode is Mode.NEW}
    others = {label: task for label, task in known.owners.items() if task not in anew}
    return Data(source, learned, tuple(row for row in known.stored if row.task not in anew), others, problems)


def _with_modes(tasks: Iterable[TaskRows], known: Known) -> Iterator[TaskRows]:
    """Yield tasks with how they are learned, and each row with the name of the task that it becomes part of."""
    owners = dict(known.owners)
    for task in tasks:
        mode = _suitable(task, owners) if known.mode is None else known.mode
        if mode is Mode.NEW:
            yield task
            continue
        home = known.into or task.name
        subsets = {
            subset: [replace(row, task=owners.get(row.label, home)) for row in rows]
            for subset, rows in task.subsets.items()
        }
        learned = replace(task, subsets=subsets, mode=mode, owners=dict(owners), into=known.into)
        one_new = known.mode is None and len({row.label for row in learned.of_new_labels.rows}) == 1
        yield replace(learned, into=ANY_TASK) if one_new else learned
        if known.mode is Mode.MIXED:  # the next file may have more examples of the new labels
            owners |= {row.label: home for row in task.rows if row.label and row.label not in owners}


def _suitable(task: TaskRows, owners: Mapping[str, str]) -> Mode:
    """Return how the labels of a task can be learned; a known task may be learned anew from its own labels."""
    labels = {row.label for row in task.rows if row.label} if task.labelled else set()
    if not {owners[label] for label in labels & owners.keys()} - {task.name}:
        return Mode.NEW
    return Mode.EXTEND if labels <= owners.keys() else Mode.MIXED


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
        source_name(source.path),
        {subset: [_row(source.name, subset, one) for one in rows] for subset, rows in loaded.subsets.items()},
        source.template,
        labelled,
        tuple(loaded.problems),
        tuple(loaded.notes),
    )


def _row(task: str, subset: str, located: Located) -> Row:
    return Row(task, subset, located.file, located.row, located.example)
