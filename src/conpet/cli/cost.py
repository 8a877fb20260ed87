"""`conpet cost`: what a workspace has cost, and what its answers cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line, messages, output, print_json, print_table
from conpet.cli.options import AsJson, WorkspacePath

if TYPE_CHECKING:
    from rich.table import Table

    from conpet.evaluation.cost_report import CostLine, CostReport


def cost(
    workspace: WorkspacePath,
    by_version: Annotated[
        bool,
        typer.Option("--by-version", help="Show each version with its composite score: money for 1,000 answers."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what learning, changes, answers and people's work have cost, by task and for 1,000 answers.

    Set prices with `conpet costs set`. Every operation is entered into the ledger of the workspace as it ends.
    What learning everything anew, and a module per task without sharing, would have cost, are estimates.
    """
    from conpet.commands.cost import cost_report
    from conpet.store import Store

    report = cost_report(Store.open(workspace))
    if as_json:
        print_json(report.to_json())
        return
    _print_versions(report) if by_version else _print(report)
    for note in report.notes:
        line(f"note: {note}", messages(), "yellow")


def _print(report: CostReport) -> None:
    out = output()
    print_table(_kinds(report.kinds, report))
    if sum(bool(row.operations or row.examples) for row in report.sources) > 1:
        out.print()
        print_table(_kinds(report.sources, report, storage=False))
    if report.tasks:
        out.print()
        print_table(_tasks(report))
    if report.alternatives:
        out.print()
        print_table(_alternatives(report))
    out.print()
    line(str(report), out)
    if report.score is not None:
        score = _money(report.score.total)
        line(f"composite score: {score} {report.currency} for 1,000 answers (the mean over all versions)", out)
    line(f"energy: {report.kwh:.3g} kWh (an estimate: power times time)", out)


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _money(amount: float | None) -> str:
    from conpet.evaluation.composite import shown_money
    from conpet.report.text import NONE

    return NONE if amount is None else shown_money(amount)


def _kinds(rows: Sequence[CostLine], report: CostReport, *, storage: bool = True) -> Table:
    from conpet.report import text

    currency = report.currency
    names = ("operations", "examples", "processor", "wall time", "people", "tokens", "cached", "written")
    table = _table("", *names, currency)
    for row in rows:
        if not (row.operations or row.examples):
            continue
        used = row.resources
        work = text.duration(60 * used.minutes) if used.minutes else ""
        table.add_row(
            row.name,
            text.count(row.operations) if row.operations else "",
            text.count(row.examples) if row.examples else "",
            text.duration(used.cpu_seconds) if used.cpu_seconds else "",
            text.duration(used.seconds) if used.seconds else "",
            work,
            text.short_count(used.frozen_tokens + used.module_tokens),
            text.short_count(used.cached_tokens),
            text.size(used.bytes_added) if used.bytes_added else "",
            _money(row.money),
        )
    if storage:
        stored = f"{report.storage_gb_months:.2g} GB months"
        table.add_row("storage", *[""] * 7, stored, _money(report.storage_money))
    return table


def _tasks(report: CostReport) -> Table:
    from rich.text import Text

    from conpet.report import text

    table = _table("task", "updates", "answering", "review", report.currency, "answers", "for 1,000")
    for task in report.tasks:
        name = text.shorten(task.task, 30) if task.task else "all tasks"
        amounts = (task.updates, task.running, task.review, task.money)
        table.add_row(
            Text(name if task.present or not task.task else f"{name} (removed)"),
            *map(_money, amounts),
            text.count(task.answers),
            _money(task.per_thousand),
        )
    return table


def _alternatives(report: CostReport) -> Table:
    from conpet.report import text

    table = _table(
        "estimate, against this workspace", "learning", "tokens", report.currency, "answering", "tokens", "stored", ""
    )
    for one in report.alternatives:
        table.add_row(
            one.name,
            text.times(one.learning_times),
            text.short_count(one.learning),
            _money(one.learning_money),
            text.times(one.answering_times),
            text.short_count(one.answering),
            text.times(one.storage_times),
            text.size(one.bytes_stored),
        )
    return table


def _print_versions(report: CostReport) -> None:
    from rich.text import Text

    from conpet.report import text

    names = ("accuracy", "updates", "answers", "errors", "freshness", "update", "running", "review", "score")
    table = _table("version", "made on", "change", *names)
    for one in report.versions:
        score = one.score
        parts = (
            [score.errors, score.freshness, score.updates, score.running, score.review, score.total]
            if score
            else [None] * 6
        )
        cells = [_money(part) for part in parts]
        cells[3] += "*" if score and one.estimated else ""
        table.add_row(
            str(one.generation),
            one.time.isoformat()[:10],
            Text(text.shorten(" ".join([one.verb, ", ".join(one.tasks)]), 30)),
            text.percent(one.accuracy),
            _money(one.updates),
            text.count(one.answers),
            *cells,
        )
    print_table(table)
    line(f"errors to score: {report.currency} for 1,000 answers; lower is better")
    if any(one.score and one.estimated for one in report.versions):
        line("* an estimate from evaluations or other versions, because this one gave no answers")
