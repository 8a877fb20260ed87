"""Change a workspace from the command line, with progress and results shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from conpet.cli.console import INTERRUPTED, line, messages, output, shows_tables, stages
from conpet.errors import AccuracyBoundError, DataError, WorkspaceBusyError

if TYPE_CHECKING:
    from pathlib import Path

    from conpet.api import ConPET
    from conpet.data import MixedExamples, Task
    from conpet.types import ConsolidationReport, Evaluation, LearnReport

Done = TypeVar("Done")
_LARGE_FALL = 0.05
"""Fall of a task's test accuracy from one version to the next that is worth a warning."""


def teach(
    workspace: ConPET,
    tasks: Sequence[Task],
    *,
    batch: int = 1,
    consolidate: bool = False,
    evaluate: bool = True,
    gate: bool = True,
    needed_since: date | None = None,
    wait: float | None = None,
) -> None:
    """Learn tasks in order, `batch` at a time; after each change print a report.

    On a terminal, the accuracy matrix so far comes with each report, otherwise only with the last.

    Args:
        workspace: The workspace.
        tasks: The tasks.
        batch: Number of tasks in each change.
        consolidate: Whether to consolidate whenever that is due.
        evaluate: Whether to evaluate after each change.
        gate: Whether to refuse a change that makes earlier answers worse.
        needed_since: The day from which the new labels were needed.
        wait: Most seconds to wait for another process; None for no limit.
    """
    from conpet.commands.report import History
    from conpet.report.tables import matrix_table

    history, tried, unshown = History(workspace.store), 0, False
    not_proven: str | None = None
    for start in range(0, len(tasks), batch):
        group = tasks[start : start + batch]
        try:
            title = _title(group, start, len(tasks))
            reports = _learn(workspace, group, title, evaluate, gate, needed_since, wait)
        except KeyboardInterrupt:
            _print_interrupted(group, start, len(tasks))
            raise typer.Exit(INTERRUPTED) from None
        measured = (report.evaluation for report in reports)
        unshown = unshown or any(one and one.whole_accuracy is not None for one in measured)
        if unshown and (shows_tables() or start + batch >= len(tasks)):
            unshown = False
            output().print()
            output().print(matrix_table(history.events()))
        for task, report in zip(group, reports, strict=True):
            # The notes of the reader are already printed.
            for note in () if report.skipped else report.notes[len(task.notes) :]:
                line(f"{task.name}: {note}")
            line(str(report))
            _warn_of_falls(workspace, task.name, report)
            not_proven = report.gate.note if report.gate else not_proven
        if consolidate and workspace.consolidation_due(tried):
            tried = workspace.learned_examples
            _consolidate(workspace, evaluate, gate, wait)
    if not_proven:
        line(not_proven, messages(), "dim")


def _warn_of_falls(workspace: ConPET, task: str, report: LearnReport) -> None:
    """Say what the gate did not compare, and that the test accuracy of a task is much lower than it was before."""
    if report.gate is not None and report.gate.remark is not None:
        line(report.gate.remark, messages(), "yellow")
    if report.skipped or report.evaluation is None:
        return
    from conpet.heads.labels import ACCURACY

    measured = [one.value for one in workspace.store.measured(task, ACCURACY).values()][-2:]
    if len(measured) == 2 and measured[0] - measured[1] > _LARGE_FALL:
        before, after = (f"{100 * value:.1f}%" for value in measured)
        line(
            f"warning: the test accuracy of task {task!r} fell from {before} to {after}: check the labels of its new "
            "data, or go back to the version before (`conpet rollback`)",
            messages(),
            "yellow",
        )


def print_next(workspace: ConPET, path: Path, *, may_consolidate: bool = True) -> None:
    """Print whether a consolidation is due, and the commands to go on with.

    Args:
        workspace: The workspace.
        path: Its folder, as the user gave it.
        may_consolidate: Whether to advise a consolidation if one is due and there are validation examples to judge it
            by.
    """
    from conpet.commands.checks import consolidation_blocker
    from conpet.commands.consolidate import due as consolidation_due
    from conpet.data import Kind

    texts = any(task.active.description["kind"] == Kind.TEXT for task in workspace.tasks)
    asked = '"some text"' if texts else "-i FILE"
    commands = [f"conpet predict {path} {asked}", f"conpet report {path}"]
    due = consolidation_due(workspace.store, workspace.store.snapshot()) if may_consolidate else None
    if due is not None and due.judged:
        line(f"a consolidation is due: {due}")
        commands.append(f"conpet consolidate {path}")
        top = workspace.settings.changed({"consolidation": {"layers": "top"}})
        if top != workspace.settings and consolidation_blocker(top) is None:
            commands.append(f"conpet consolidate {path} --set layers=top")
    line(f"next: {'   or: '.join(commands)}", style="dim")


def consolidate_learned(
    workspace: ConPET, *, evaluate: bool = True, gate: bool = True, wait: float | None = None
) -> ConsolidationReport:
    """Consolidate a workspace after its tasks were learned, with progress; an interruption ends the program.

    Raises:
        AccuracyBoundError: The result is worse on validation examples, so it is not made active.
        DataError: It is not possible with the stored examples.
    """
    try:
        return run_change("consolidate", wait, not evaluate, partial(workspace.consolidate, gate=gate))
    except KeyboardInterrupt:
        line("stopped: all tasks so far are learned and stored. Run the same command to resume.", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None


def _consolidate(workspace: ConPET, evaluate: bool, gate: bool, wait: float | None) -> None:
    """Consolidate a workspace, or print why that is not possible or the result is not kept."""
    try:
        report = consolidate_learned(workspace, evaluate=evaluate, gate=gate, wait=wait)
    except (AccuracyBoundError, DataError) as error:
        line(str(error))
        return
    line(str(report))
    if report.evaluation is not None:
        print_accuracy(report.evaluation, len(workspace.labels))


def _title(group: Sequence[Task], start: int, total: int) -> str:
    """Return the title of the progress bar while a group of tasks is learned."""
    if len(group) == 1:
        return f"[{start + 1}/{total}] {group[0].name}"
    return f"[{start + 1} to {start + len(group)} of {total}] {group[0].name}, ..., {group[-1].name}"


def extend_tasks(
    workspace: ConPET,
    parts: Sequence[MixedExamples],
    *,
    evaluate: bool = True,
    gate: bool = True,
    needed_since: date | None = None,
    wait: float | None = None,
) -> None:
    """Learn more examples of known labels, and print a report for each task."""
    for part in parts:
        extend = partial(workspace.extend, part.examples, gate=gate, needed_since=needed_since)
        _print_reports(run_change(part.name, wait, not evaluate, extend))


def learn_mixed_parts(
    workspace: ConPET,
    parts: Sequence[MixedExamples],
    *,
    evaluate: bool = True,
    gate: bool = True,
    needed_since: date | None = None,
    wait: float | None = None,
    **options: Any,
) -> None:
    """Learn examples of known and new labels, part by part; print what each task gets, and then a report for each.

    Args:
        workspace: The workspace.
        parts: The parts.
        evaluate: Whether to evaluate after each change.
        gate: Whether to refuse a change that makes earlier answers worse.
        needed_since: The day from which the new labels were needed.
        wait: Most seconds to wait for another process; None for no limit.
        options: Further arguments of `ConPET.learn_mixed`.
    """
    for number, part in enumerate(parts, start=1):
        for addition in workspace.plan_mixed(part, **options):
            line(str(addition))
        learn = partial(workspace.learn_mixed, part, gate=gate, needed_since=needed_since, **options)
        try:
            reports = run_change(f"[{number}/{len(parts)}] {part.name}", wait, not evaluate, learn)
        except KeyboardInterrupt:
            line("stopped. What is learned so far is stored; run the same command to resume.", messages(), "yellow")
            raise typer.Exit(INTERRUPTED) from None
        _print_reports(reports)


def _print_reports(reports: Sequence[LearnReport]) -> None:
    for report in reports:
        for note in report.notes:
            line(f"{report.task}: {note}")
        line(str(report))


def _learn(
    workspace: ConPET,
    tasks: Sequence[Task],
    title: str,
    evaluate: bool,
    gate: bool,
    needed_since: date | None,
    wait: float | None,
) -> list[LearnReport]:
    with stages(title) as progress:
        return with_wait(
            wait,
            lambda seconds: workspace.learn_batch(
                tasks,
                evaluate=evaluate,
                gate=gate,
                needed_since=needed_since,
                wait_seconds=seconds,
                progress=progress,
            ),
        )


def run_change(title: str, wait: float | None, no_evaluate: bool, change: Callable[..., Done]) -> Done:
    """Make a change and show the progress of each of its stages.

    Args:
        title: Shown before the name of each stage.
        wait: Most seconds to wait for another process; None for no limit.
        no_evaluate: Whether to skip the evaluation after the change.
        change: Takes `evaluate`, `wait_seconds` and `progress`, as `ConPET.learn` does.
    """
    with stages(title) as progress:
        return with_wait(
            wait, lambda seconds: change(evaluate=not no_evaluate, wait_seconds=seconds, progress=progress)
        )


def confirm(question: str, yes: bool) -> None:
    """Ask before deleting something, unless `yes`; end the program if the answer is no."""
    if not yes:
        typer.confirm(f"{question} This cannot be undone (--yes skips this question).", abort=True, err=True)


def with_wait(wait: float | None, change: Callable[[float | None], Done]) -> Done:
    """Make a change; print a message if it has to wait for another process.

    Args:
        wait: Most seconds to wait; None for no limit.
        change: Makes the change; its argument is the most seconds to wait, or None.
    """
    try:
        return change(0)
    except WorkspaceBusyError as busy:
        if wait == 0:
            raise
        line(f"waiting: {str(busy).partition(';')[0]}", messages())
        return change(wait)


def print_accuracy(evaluation: Evaluation, labels: int) -> None:
    """Print the whole accuracy after a change, beside the references."""
    line(evaluation.in_words(labels))


def _print_interrupted(tasks: Sequence[Task], before: int, total: int) -> None:
    stored = f"{before} of {total} tasks are learned and stored" if total > 1 else "the workspace is unchanged"
    names = ", ".join(repr(task.name) for task in tasks[:3]) + (", ..." if len(tasks) > 3 else "")
    resumes = "continues from its last checkpoint" if len(tasks) == 1 else "continue from their last checkpoints"
    line(f"stopped: {stored}. Run the same command to resume: {names} {resumes}.", messages(), "yellow")
