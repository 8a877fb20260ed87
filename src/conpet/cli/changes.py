"""Teach a workspace task after task, showing how it fares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

from conpet.cli.console import INTERRUPTED, line, messages, output, stages
from conpet.errors import WorkspaceBusyError

if TYPE_CHECKING:
    from pathlib import Path

    from conpet.api import ConPET
    from conpet.data import Task
    from conpet.types import LearnReport

Done = TypeVar("Done")


def teach(
    workspace: ConPET,
    tasks: Sequence[Task],
    *,
    batch: int = 1,
    evaluate: bool = True,
    wait: float | None = None,
) -> None:
    """Learn tasks in order, some together; after each change print the accuracy matrix so far and what it did."""
    from conpet.commands.report import History
    from conpet.report.tables import matrix_table

    history = History(workspace.store)
    for start in range(0, len(tasks), batch):
        some = tasks[start : start + batch]
        try:
            reports = _learn(workspace, some, _title(some, start, len(tasks)), evaluate, wait)
        except KeyboardInterrupt:
            _say_what_is_kept(some, start, len(tasks))
            raise typer.Exit(INTERRUPTED) from None
        if any(report.evaluation is not None for report in reports):
            output().print()
            output().print(matrix_table(history.events()))
        for task, report in zip(some, reports, strict=True):
            # The reader's own notes were told before.
            for note in () if report.skipped else report.notes[len(task.notes) :]:
                line(f"{task.name}: {note}")
            line(str(report))


def _title(some: Sequence[Task], start: int, total: int) -> str:
    """Return what the stages of learning some tasks are shown under."""
    if len(some) == 1:
        return f"[{start + 1}/{total}] {some[0].name}"
    return f"[{start + 1} to {start + len(some)} of {total}] {some[0].name}, ..., {some[-1].name}"


def extend_tasks(workspace: ConPET, source: Path, *, evaluate: bool = True, wait: float | None = None) -> None:
    """Learn more examples of labels that are learned already, and print what became of each task."""
    from conpet.data import read_examples

    examples = read_examples(source)
    with stages(source.name) as progress:
        reports = patiently(
            wait,
            lambda seconds: workspace.extend(examples, evaluate=evaluate, wait_seconds=seconds, progress=progress),
        )
    for report in reports:
        for note in report.notes:
            line(f"{report.task}: {note}")
        line(str(report))


def _learn(
    workspace: ConPET, tasks: Sequence[Task], title: str, evaluate: bool, wait: float | None
) -> list[LearnReport]:
    with stages(title) as progress:
        return patiently(
            wait,
            lambda seconds: workspace.learn_batch(tasks, evaluate=evaluate, wait_seconds=seconds, progress=progress),
        )


def made(title: str, wait: float | None, no_evaluate: bool, change: Callable[..., Done]) -> Done:
    """Make a change and show how far each of its stages is.

    Args:
        title: What the stages are of.
        wait: As in `patiently`.
        no_evaluate: Whether the change ends without an evaluation.
        change: Takes `evaluate`, `wait_seconds` and `progress`, as `ConPET.learn` does.
    """
    with stages(title) as progress:
        return patiently(
            wait, lambda seconds: change(evaluate=not no_evaluate, wait_seconds=seconds, progress=progress)
        )


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost, unless `yes`; end the program where the answer is no."""
    if not yes:
        typer.confirm(f"{question} This cannot be undone (--yes does not ask).", abort=True, err=True)


def patiently(wait: float | None, change: Callable[[float | None], Done]) -> Done:
    """Make a change; say so where another process must be waited for.

    Args:
        wait: Seconds to wait at most, or None.
        change: Makes the change, waiting no longer than the seconds it is given.
    """
    try:
        return change(0)
    except WorkspaceBusyError as busy:
        if wait == 0:
            raise
        line(f"waiting: {str(busy).partition(';')[0]}", messages())
        return change(wait)


def say_accuracy(accuracy: float | None, labels: int) -> None:
    """Say how a workspace stands after a change."""
    from conpet.report import text

    line(f"whole accuracy {text.percent(accuracy)} over {text.plural(labels, 'label')}")


def _say_what_is_kept(tasks: Sequence[Task], before: int, total: int) -> None:
    kept = f"{before} of {total} tasks are learned and kept" if total > 1 else "the workspace is as it was"
    names = ", ".join(repr(task.name) for task in tasks[:3]) + (", ..." if len(tasks) > 3 else "")
    goes_on = "continues from its last checkpoint" if len(tasks) == 1 else "continue from their last checkpoint"
    line(f"stopped: {kept}. Run the same command again to go on: {names} {goes_on}.", messages(), "yellow")
