"""Print what learning tasks would do, for `conpet learn --dry-run`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from conpet.cli.console import line, output

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.commands.plan import Plan
    from conpet.data import Task


def print_plan(workspace: ConPET, tasks: Sequence[Task], *, evaluate: bool) -> None:
    """Print rows, labels, steps, time and memory of learning tasks; nothing is changed.

    Args:
        workspace: The workspace.
        tasks: The tasks.
        evaluate: Whether all tasks would be evaluated after each one.
    """
    from conpet.commands.plan import plan

    if not tasks:
        line(f"{workspace.path}: nothing would be learned", output())
        return
    planned = plan(tasks, workspace.store.snapshot(), workspace.backbone, workspace.settings, evaluate=evaluate)
    _print(planned, workspace)


def _print(planned: Plan, workspace: ConPET) -> None:
    from rich.table import Table
    from rich.text import Text

    from conpet.report import text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("task", "", "labels", "train", "validation", "test", "steps", "about"):
        table.add_column(name, justify="left" if name in ("task", "") else "right", no_wrap=True)
    for one in planned.tasks:
        rows = (len(one.task.labels), len(one.task.train), len(one.task.validation), len(one.task.test))
        table.add_row(
            Text(text.shorten(one.task.name, 24)),
            "skipped: already learned" if one.version is None else f"new version {one.version}",
            *map(text.count, rows),
            text.count(one.steps) if one.version else "",
            text.duration(one.seconds) if one.version else "",
        )
    out = output()
    out.print(table)
    memory = f", with about {text.size(planned.memory)} of memory" if planned.memory else ""
    line(f"estimated from a short trial: {text.duration(planned.seconds)}{memory}", out)
    free = shutil.disk_usage(workspace.path).free
    short = " - not enough: free some space first" if free < planned.disk else ""
    line(f"on the disk: {text.size(planned.disk)} or more, {text.size(free)} are free{short}", out)
    line(f"{workspace.path}: a dry run, nothing was changed", out)
