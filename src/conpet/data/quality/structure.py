"""What the readers and the checks of tasks refuse: rows that cannot be learned, and tasks that cannot."""

from __future__ import annotations

from collections.abc import Iterator

from conpet.data.checks import (
    Located,
    check_each,
    check_new_labels,
    check_stream,
    check_task_template,
    unknown_label,
)
from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import TRAIN, Data, Mode, Row, TaskRows, by_label
from conpet.errors import Problem, Scope, listed, plural

_SHOWN = 5


def find_unusable(data: Data) -> Iterator[Finding]:
    """Yield a finding for each row and each task that cannot be learned; copies are left to `find_copies`."""
    rows: dict[tuple[str, int], list[Row]] = {}
    for row in data.rows:
        rows.setdefault((row.file, row.number), []).append(row)
    for problem in data.problems:
        yield from _findings(problem, {})
    for task in data.tasks:
        for problem in (*task.problems, *_unusable(task)):
            yield from _findings(problem, rows)
    trained = (
        (task.name, [row.located for row in task.subsets.get(TRAIN, ())] if task.labelled else [])
        for task in data.new_tasks
        if task.into is None
    )
    seen: set[str] = set()
    for problem in check_stream(trained, data.owners):
        if problem.reason not in seen:  # one finding for all rows with the label
            seen.add(problem.reason)
            yield Finding("invalid-task", problem.reason, file=problem.file, number=problem.row)


def _unusable(task: TaskRows) -> list[Problem]:
    subsets = _located(task)
    if TRAIN not in subsets or (task.problems and not subsets[TRAIN]):
        return []  # the reader has said why
    problems = check_each(task.source, subsets, whole=task.mode is Mode.NEW, labels=task.labelled)
    if task.kind is not None:
        problems += check_task_template(task.source, task.template, task.kind)
    new = task.of_new_labels
    if task.mode is Mode.MIXED:
        problems += check_new_labels(task.source, _located(new), task.name, task.owners, task.into)
    elif task.mode is Mode.EXTEND:
        for label, (row, *_) in by_label([*new.rows]).items():
            problems.append(Problem(row.file, row.number, unknown_label(label), scope=Scope.PARSING))
    return [*dict.fromkeys(problems)]


def _located(task: TaskRows) -> dict[str, list[Located]]:
    return {subset: [row.located for row in rows] for subset, rows in task.subsets.items()}


def _findings(problem: Problem, rows: dict[tuple[str, int], list[Row]]) -> Iterator[Finding]:
    """Yield a finding for each example of the row; in some formats a row has several."""
    if problem.row is None or problem.concerns_file:
        yield Finding("invalid-task", problem.reason, file=problem.file, number=problem.row)
        return
    for row in rows.get((problem.file, problem.row), [None]):
        yield Finding("invalid-row", problem.reason, row, problem.file, problem.row, leaves_out=True)


def find_notes(data: Data) -> Iterator[Finding]:
    """Yield the notes of the readers, and how tasks with labels of the workspace are learned."""
    for task in data.tasks:
        if option := learn_option(task):
            yield Finding("known-labels", f"{_known_labels(task)}: learn with {option}", file=task.source)
        for note in task.notes:
            yield Finding("reading", note, file=task.source)


def learn_option(task: TaskRows) -> str | None:
    """Return the option of `conpet learn` that a task needs because of its known labels, or None."""
    if task.mode is Mode.NEW:
        return None
    if task.mode is Mode.EXTEND:
        return "--extend"
    return "--mixed" if task.into is None else f"--mixed --into {task.into}"


def _known_labels(task: TaskRows) -> str:
    owners = task.known_tasks
    named = f"task{'s' * (len(owners) > 1)} {listed([repr(owner) for owner in owners], _SHOWN)}"
    new = by_label([*task.of_new_labels.rows])
    if not new:
        return f"all labels are known ({named})"
    rows = sum(map(len, new.values()))
    into = f"become a new task {task.name!r}" if task.into is None else "be added to a known task"
    return (
        f"{plural(len([*task.rows]) - rows, 'row')} of known labels would be added to {named}, and "
        f"{plural(rows, 'row')} of {plural(len(new), 'new label')} would {into}"
    )
