"""Read the tasks to learn, check them against a workspace, and clean them if wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conpet.backbone.backbone import Backbone
from conpet.commands.check_data import backbone_reading, stored_rows, with_recognised
from conpet.data import Task
from conpet.data.quality.characters import cleaned
from conpet.data.quality.examination import Examination, examine
from conpet.data.quality.finding import Finding
from conpet.data.quality.loading import data_of_tasks, load_data, tasks_of
from conpet.data.quality.rows import Data, Row, input_identity
from conpet.data.raw import ReadOptions
from conpet.data.readers import next_step_of
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
    """

    name: str | None = None
    template: str | None = None
    seed: int | None = 0
    reading: ReadOptions | None = None
    fix: bool = False
    dry_run: bool = False


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
    owners = snapshot.owners
    data, loaded = load_data(
        [path], name=options.name, template=options.template, options=options.reading, owners=owners
    )
    done = _examined(data, snapshot, backbone, thorough=options.fix)
    wrong = done.remaining if options.fix else done.errors
    if wrong:
        problems = _problems(wrong)
        files = plural(len({problem.file for problem in problems}), "file")
        raise DataError(
            f"{path}: {plural(len(problems), 'problem')} in {files}; nothing was learned"
            f"{next_step_of(loaded, owners) or _hint(done, options)}",
            problems,
        )
    tasks = tasks_of(done.fixed if options.fix else done.data, loaded, options.seed)
    left_out = done.left_out if options.fix else []
    cut = done.notes if options.dry_run else {}
    return [_with_notes(task, done, _of_task(left_out, done, task.name), cut.get(task.name, ())) for task in tasks]


def check_tasks(tasks: Iterable[Task], snapshot: Snapshot, backbone: Backbone) -> None:
    """Check tasks in memory as `prepare_tasks` does, without a fix.

    Args:
        tasks: The tasks.
        snapshot: The workspace.
        backbone: Its backbone.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
    """
    done = _examined(data_of_tasks(tasks, snapshot.owners), snapshot, backbone, thorough=False)
    if done.errors:
        problems = _problems(done.errors)
        raise DataError(f"{plural(len(problems), 'problem')} in the data; nothing was learned", problems)


def _examined(data: Data, snapshot: Snapshot, backbone: Backbone, *, thorough: bool) -> Examination:
    """Examine data, also against the stored examples of a workspace."""
    stored = stored_rows(snapshot, {task.name for task in data.tasks})
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


def _of_task(rows: Sequence[LeftOutRow], done: Examination, name: str) -> list[LeftOutRow]:
    files = {row.file for task in done.data.tasks if task.name == name for row in task.rows}
    files |= {problem.file for task in done.data.tasks if task.name == name for problem in task.problems}
    return [row for row in rows if row.file in files]


def _with_notes(task: Task, done: Examination, left_out: Sequence[LeftOutRow], cut: Sequence[str]) -> Task:
    notes = [*task.notes, *cut]
    if left_out:
        gone = sum(row.action == "left out" for row in left_out)
        changed = len(left_out) - gone
        counts = f"left out {plural(gone, 'row')} and changed {plural(changed, 'row')}"
        listed = f" (the first {MOST_CHANGED:,} of the changed rows)" if changed > MOST_CHANGED else ""
        notes.append(f"--fix {counts}: `conpet modules show` lists them{listed}")
    elif forms := _forms(done, task.name):
        notes.append(f"labels that are probably the same: {forms}; --fix uses the most frequent form")
    kept = [row for row in left_out if row.action == "left out"]
    kept += [row for row in left_out if row.action != "left out"][:MOST_CHANGED]
    return replace(task, notes=tuple(notes), left_out=tuple(row.model_dump() for row in kept))


def _forms(done: Examination, name: str) -> str:
    """Return the labels of a task that are probably other forms of another one, as text."""
    pairs = {
        (finding.row.label, finding.becomes.label): None
        for finding in done.findings
        if finding.code == "label-forms" and finding.row and finding.becomes and finding.row.task == name
    }
    shown = ", ".join(f"{label!r} and {usual!r}" for label, usual in list(pairs)[:_SHOWN])
    return f"{shown} and {len(pairs) - _SHOWN:,} more" if len(pairs) > _SHOWN else shown
