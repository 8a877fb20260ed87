"""What the readers and the checks of tasks refuse: rows that cannot be learned, and tasks that cannot."""

from __future__ import annotations

from collections.abc import Iterator

from conpet.data.checks import check_each, check_stream, check_task_template
from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import TRAIN, Data, Row, TaskRows
from conpet.errors import Problem


def find_unusable(data: Data) -> Iterator[Finding]:
    """Yield a finding for each row and each task that cannot be learned; copies are left to `find_copies`."""
    rows: dict[tuple[str, int], list[Row]] = {}
    for row in data.rows:
        rows.setdefault((row.file, row.number), []).append(row)
    for problem in data.problems:
        yield from _findings(problem, {})
    for task in data.tasks:
        for problem in (*task.problems, *_unusable(task, whole=not data.extends(task))):
            yield from _findings(problem, rows)
    trained = (
        (task.name, [row.located for row in task.subsets.get(TRAIN, ())] if task.labelled else [])
        for task in data.new_tasks
    )
    seen: set[str] = set()
    for problem in check_stream(trained, data.owners):
        if problem.reason not in seen:  # one finding for all rows with the label
            seen.add(problem.reason)
            yield Finding("invalid-task", problem.reason, file=problem.file, number=problem.row)


def _unusable(task: TaskRows, *, whole: bool) -> list[Problem]:
    subsets = {subset: [row.located for row in rows] for subset, rows in task.subsets.items()}
    if TRAIN not in subsets or (task.problems and not subsets[TRAIN]):
        return []  # the reader has said why
    problems = check_each(task.source, subsets, whole=whole, labels=task.labelled)
    if task.kind is not None:
        problems += check_task_template(task.source, task.template, task.kind)
    return problems


def _findings(problem: Problem, rows: dict[tuple[str, int], list[Row]]) -> Iterator[Finding]:
    """Yield a finding for each example of the row; in some formats a row has several."""
    if problem.row is None or problem.concerns_file:
        yield Finding("invalid-task", problem.reason, file=problem.file, number=problem.row)
        return
    for row in rows.get((problem.file, problem.row), [None]):
        yield Finding("invalid-row", problem.reason, row, problem.file, problem.row, leaves_out=True)


def find_notes(data: Data) -> Iterator[Finding]:
    """Yield the notes of the readers, and tasks that have labels of the workspace only."""
    for task in data.tasks:
        if data.extends(task):
            owners = sorted({data.owners[row.label] for row in task.subsets[TRAIN]})
            named = ", ".join(map(repr, owners))
            yield Finding("known-labels", f"all labels are known (task {named}): learn with --extend", file=task.source)
        for note in task.notes:
            yield Finding("reading", note, file=task.source)
