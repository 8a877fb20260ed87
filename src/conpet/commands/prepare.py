"""Read the tasks to learn, check them against a workspace, and clean them if wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conpet.backbone.backbone import Backbone
from conpet.commands.check_data import backbone_reading, stored_rows, with_recognised
from conpet.data import Examples, MixedExamples, Task
from conpet.data.checks import NEW_LABELS, Located
from conpet.data.labelled import SUBSETS
from conpet.data.quality.characters import cleaned
from conpet.data.quality.examination import Examination, examine
from conpet.data.quality.finding import Finding
from conpet.data.quality.loading import Known, data_of_tasks, load_data, tasks_of
from conpet.data.quality.rows import TRAIN, Data, Mode, Row, TaskRows, input_identity
from conpet.data.raw import ReadOptions
from conpet.data.readers import LoadedTask, next_step_of
from conpet.data.source import source_name
from conpet.errors import DataError, Problem, plural
from conpet.report.data_check import LeftOutRow
from conpet.store import Snapshot

MOST_CHANGED = 1000
"""Most changed rows that are listed with a task; rows that are left out are all listed."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How the tasks to learn are read.

    Attributes:
        name: Name of the task, if there is only one.
        template: Its template.
        seed: Seed for splitting off missing held-out sets; None to split nothing off.
        reading: How to read the files.
        fix: Whether to leave out and change rows as `conpet data check --fix` does.
        dry_run: Whether nothing will be learned: the notes then say which inputs would be cut.
        mode: How labels are learned.
        into: The known task that new labels are added to, or None.
    """

    name: str | None = None
    template: str | None = None
    seed: int | None = 0
    reading: ReadOptions | None = None
    fix: bool = False
    dry_run: bool = False
    mode: Mode = Mode.NEW
    into: str | None = None


def prepare_tasks(path: Path, snapshot: Snapshot, backbone: Backbone, options: TaskOptions) -> list[Task]:
    """Read tasks and check them, also against the stored examples of a workspace.

    Args:
        path: A file, a folder of subsets, or a stream.
        snapshot: The workspace.
        backbone: Its backbone.
        options: How to read the tasks.

    Returns:
        The tasks. Their notes say what the fix did.

    Raises:
        DataError: The data has errors that a fix would mend, or did not; `problems` lists all of them.
    """
    done, loaded = _checked(path, snapshot, backbone, options)
    read = done.fixed if options.fix else done.data
    changed = done.left_out if options.fix else []
    return [
        _with_notes(task, done, rows, _of_task(changed, rows), options)
        for task, rows in zip(tasks_of(read, loaded, options.seed), done.data.tasks, strict=True)
    ]


def prepare_examples(
    path: Path, snapshot: Snapshot, backbone: Backbone, options: TaskOptions
) -> tuple[list[MixedExamples], list[str]]:
    """Read and check examples of which some have known labels; arguments and errors as in `prepare_tasks`.

    Returns:
        The examples of each file or folder that has any left after a fix, in one part if no label may be new; and notes
        for the user.
    """
    done, loaded = _checked(path, snapshot, backbone, options)
    read = done.fixed if options.fix else done.data
    notes, parts = [], []
    changed = done.left_out if options.fix else []
    for task, one, rows in zip(read.tasks, loaded, done.data.tasks, strict=True):
        left_out = _of_task(changed, rows)
        notes += [f"{task.name}: {note}" for note in (*task.notes, *_notes(done, rows, left_out, options))]
        if not task.subsets.get(TRAIN):
            notes.append(f"{task.name}: nothing new: no training row is left")
            continue
        located = {subset: [row.located for row in of_subset] for subset, of_subset in task.subsets.items()}
        examples = Examples.of_rows(located, _listed(left_out))
        parts.append(MixedExamples(task.name, examples, one.source.template, one.source.settings))
    return ([_joined(parts, path)] if options.mode is Mode.EXTEND and parts else parts), notes


def _joined(parts: Sequence[MixedExamples], path: Path) -> MixedExamples:
    """Return the examples of all files as one part."""
    if len(parts) == 1:
        return parts[0]
    subsets: dict[str, list[Located]] = {}
    for part in parts:
        for subset in SUBSETS:
            subsets.setdefault(subset, []).extend(part.examples.located(subset))
    left_out = [row for part in parts for row in part.examples.left_out]
    return MixedExamples(path.name, Examples.of_rows(subsets, left_out))


def _checked(
    path: Path, snapshot: Snapshot, backbone: Backbone, options: TaskOptions
) -> tuple[Examination, list[LoadedTask]]:
    """Read and examine data; raise `DataError` if it cannot be learned."""
    known = Known(snapshot.owners, mode=options.mode, into=options.into)
    data, loaded = load_data([path], name=options.name, template=options.template, options=options.reading, known=known)
    done = _examined(data, snapshot, backbone, thorough=options.fix)
    if wrong := done.remaining if options.fix else done.errors:
        problems = _problems(wrong)
        files = plural(len({problem.file for problem in problems}), "file")
        raise DataError(
            f"{source_name(path)}: {plural(len(problems), 'problem')} in {files}; nothing was learned"
            f"{_next_step(done, loaded, options) or _hint(done, options)}",
            problems,
        )
    return done, loaded


def _next_step(done: Examination, loaded: Sequence[LoadedTask], options: TaskOptions) -> str:
    """Return how to learn labels that `options.mode` does not take, as the end of a message; empty if there are none.

    A label that the fix turns into a known one is none.
    """
    if options.mode is Mode.NEW:
        return next_step_of(loaded, done.data.owners)
    if options.mode is Mode.EXTEND and any(any(task.of_new_labels.rows) for task in done.fixed.tasks):
        return NEW_LABELS
    return ""


def check_tasks(tasks: Iterable[Task], snapshot: Snapshot, backbone: Backbone) -> None:
    """Check tasks in memory as `prepare_tasks` does, without a fix.

    Args:
        tasks: The tasks.
        snapshot: The workspace.
        backbone: Its backbone.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
    """
    done = _examined(data_of_tasks(tasks, Known(snapshot.owners)), snapshot, backbone, thorough=False)
    if done.errors:
        problems = _problems(done.errors)
        raise DataError(f"{plural(len(problems), 'problem')} in the data; nothing was learned", problems)


def _examined(data: Data, snapshot: Snapshot, backbone: Backbone, *, thorough: bool) -> Examination:
    """Examine data, also against the stored examples of a workspace."""
    stored = stored_rows(snapshot, {task.name for task in data.tasks if task.mode is Mode.NEW})
    data = replace(data, stored=tuple(stored if thorough else _copies(stored, data)))
    data = with_recognised(data, snapshot, backbone)
    reading = replace(backbone_reading(backbone), features=None)
    return examine(data, reading, thorough=thorough)


def _problems(findings: Iterable[Finding]) -> list[Problem]:
    return [Problem(*finding.place, finding.message) for finding in findings]


def _copies(stored: Iterable[Row], data: Data) -> Iterator[Row]:
    """Yield the stored rows with the same input as one of the data, as they are or cleaned; the others take memory."""
    examples = [row.example for row in data.rows]
    wanted = {input_identity(example) for example in (*examples, *map(cleaned, examples))}
    return (row for row in stored if input_identity(row.example) in wanted)


def _hint(done: Examination, options: TaskOptions) -> str:
    """Return how to go on, as the end of a message."""
    if options.fix:
        return ". --fix cannot mend these; correct the data"
    if done.remaining:
        return ""
    left = sum(row.action == "left out" for row in done.left_out)
    return f". next: --fix learns without the wrong rows ({plural(left, 'row')} left out)"


def _of_task(changed: Sequence[LeftOutRow], task: TaskRows) -> list[LeftOutRow]:
    """Return those of the rows left out or changed that are in the files of a task."""
    files = {row.file for row in task.rows} | {problem.file for problem in task.problems}
    return [row for row in changed if row.file in files]


def _with_notes(
    task: Task, done: Examination, rows: TaskRows, left_out: Sequence[LeftOutRow], options: TaskOptions
) -> Task:
    notes = _notes(done, rows, left_out, options)
    return replace(task, notes=(*task.notes, *notes), left_out=_listed(left_out))


def _notes(done: Examination, task: TaskRows, left_out: Sequence[LeftOutRow], options: TaskOptions) -> Iterator[str]:
    """Yield what the user should know about a task, besides the notes of the readers."""
    if options.dry_run:
        yield from done.notes.get(task.name, ())
    if left_out:
        gone = sum(row.action == "left out" for row in left_out)
        changed = len(left_out) - gone
        counts = f"left out {plural(gone, 'row')} and changed {plural(changed, 'row')}"
        listed = f" (the first {MOST_CHANGED:,} of the changed rows)" if changed > MOST_CHANGED else ""
        yield f"--fix {counts}: `conpet modules show` lists them{listed}"
    elif forms := _forms(task, done):
        yield f"labels that are probably the same: {forms}; --fix uses the most frequent form"


def _listed(left_out: Sequence[LeftOutRow]) -> tuple[Mapping[str, Any], ...]:
    """Return the rows to store with a task."""
    kept = [row for row in left_out if row.action == "left out"]
    kept += [row for row in left_out if row.action != "left out"][:MOST_CHANGED]
    return tuple(row.model_dump() for row in kept)


def _forms(task: TaskRows, done: Examination) -> str:
    """Return the labels of a task that are probably other forms of another one, as text."""
    rows = set(task.rows)
    pairs = {
        (finding.row.label, finding.becomes.label): None
        for finding in done.findings
        if finding.code == "label-forms" and finding.becomes and finding.row in rows
    }
    shown = ", ".join(f"{label!r} and {usual!r}" for label, usual in list(pairs)[:_SHOWN])
    return f"{shown} and {len(pairs) - _SHOWN:,} more" if len(pairs) > _SHOWN else shown
