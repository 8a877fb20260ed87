"""`conpet watch`: have the inputs, or what is made of them, changed?"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line, messages, print_json, print_table
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    InputFormat,
    LabelColumn,
    LogFolder,
    Sheet,
    TextColumn,
    WorkspacePath,
    reading,
    require_path,
)
from conpet.cli.workspace import open_workspace
from conpet.errors import DataError, Problem, listed, plural

if TYPE_CHECKING:
    from datetime import datetime

    from conpet.commands.watch import Feedback
    from conpet.data import Located
    from conpet.data.raw import ReadOptions
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog
    from conpet.watching.feedback import Accuracy, Share
    from conpet.watching.report import WatchReport

ALARM = 3
"""Exit status if there is an alarm."""
_MANY = ("task ", "label ", "accuracy ")
"""How the names of signals of tasks and labels begin."""
_SHOWN = 10
"""Most signals of tasks and labels without an alarm that are listed."""


def watch(
    workspace: WorkspacePath,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="Watch the inputs in this file, in their order, instead of recorded predictions.",
            show_default=False,
        ),
    ] = None,
    feedback: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Inputs with their right labels: report the accuracy of their answers, and watch it from now on.",
            show_default=False,
        ),
    ] = None,
    request_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of the feedback with the id of the request, or ID/N for its input N, instead of the text.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="N|AGE", help="First inputs that the others are compared with: a number, or 24h.")
    ] = "500",
    window: Annotated[
        str, typer.Option(metavar="N|AGE", help="Last inputs whose values are shown: a number, or 24h.")
    ] = "500",
    false_alarm: Annotated[
        float, typer.Option(help="Probability of any alarm ever, over all signals, if nothing changes.")
    ] = 0.05,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew: the inputs from now on are the reference.")
    ] = False,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send each alarm to this address, once.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every task and label.")] = False,
    log_to: LogFolder = None,
    as_json: AsJson = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    sheet: Sheet = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Look for changes in what is asked, and in what is made of it; exit status 3 after an alarm.

    Recorded predictions (`conpet audit log`) since the last change of the workspace are watched in their order. The
    first are the reference; the others are compared with it by tests that may be looked at any number of times. Labels
    are not needed. Where right labels are known (--feedback), the accuracy is compared with that of held-out examples.
    """
    from conpet.commands.audit import trail
    from conpet.commands.watch import keep_feedback, restart_watch, watch_log, with_feedback
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog
    from conpet.watching.report import WatchOptions

    options = WatchOptions.of(false_alarm, reference, window)
    columns = reading(text=text_column, label=label_column, encoding=encoding, form=input_format, sheet=sheet)
    if request_column is not None and feedback is None:
        raise typer.BadParameter("--request-column is for --feedback", param_hint="--request-column")
    if source is not None and (restart or webhook is not None):
        raise typer.BadParameter("not with -i: it is for recorded predictions", param_hint="--restart, --webhook")
    _check_given(webhook, source, feedback)
    store = Store.open(workspace)
    log = PredictionLog(store.path, log_to)
    if restart:
        restart_watch(log, trail(store, log), store.actor)
    found = None
    if feedback is not None:
        labels = {label for task in store.snapshot().tasks for label in task.active.labels}
        found = _found(log, feedback, columns, request_column, labels)
        keep_feedback(log, found)
    if source is not None:
        rows = _rows(source, columns)
        times = _times(source, rows)
        with open_workspace(workspace, backbone, device) as opened:
            report = opened.watch(
                [row.example for row in rows],
                reference=reference,
                window=window,
                false_alarm=false_alarm,
                times=times,
            ).numbered([row.row for row in rows])
    else:
        report = watch_log(store, log, options)
    if found is not None:
        report = with_feedback(report, found)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, everything, rows=source is not None)
    if webhook is not None:
        _send(report, store, log, webhook)
    if report.alarms:
        raise typer.Exit(ALARM)


def _check_given(webhook: str | None, *paths: str | None) -> None:
    from conpet.watching.webhook import check_url

    if webhook is not None:
        check_url(webhook)
    for path in paths:
        if path is not None:
            require_path(path, "nothing was watched")


def _rows(source: str, columns: ReadOptions) -> list[Located]:
    """Read the inputs to watch."""
    from conpet.data import read_input_rows

    read = list(read_input_rows(source, columns, lambda note: line(note, messages())))
    if wrong := [row for row in read if isinstance(row, Problem)]:
        raise DataError(f"{source}: {plural(len(wrong), 'row')} cannot be read; nothing was watched", wrong)
    rows = [row for row in read if not isinstance(row, Problem)]
    if not rows:
        raise DataError(f"{source} has no inputs; nothing was watched")
    return rows


def _times(source: str, rows: Sequence[Located]) -> list[datetime] | None:
    """Return the times of rows; None if no row has one.

    Raises:
        DataError: Only some rows have one.
    """
    times = [row.time for row in rows if row.time is not None]
    without = [row.row for row in rows if row.time is None]
    if times and without:
        more = f" and {plural(len(without) - 1, 'other row')}" if len(without) > 1 else ""
        raise DataError(
            f"{source}: row {without[0]}{more}: no time that can be read, although others have one; write it in ISO "
            "8601 or in seconds since 1970, or leave the column out. Nothing was watched"
        )
    return times or None


def _found(
    log: PredictionLog, feedback: str, columns: ReadOptions, request_column: str | None, labels: Set[str]
) -> Feedback:
    """Read the feedback, and find its inputs in the record."""
    from conpet.commands.watch import find_feedback
    from conpet.data.evaluation_files import read_labelled

    if request_column is not None:
        columns = replace(columns, columns={**columns.columns, "text": request_column})
    rows = read_labelled(feedback, columns, lambda note: line(note, messages()))
    if unknown := sorted({str(row.example.label) for row in rows} - labels):
        what = "labels of the feedback are" if len(unknown) > 1 else "label of the feedback is"
        line(
            f"{len(unknown):,} {what} not learned, so the answers count as wrong: {listed(unknown)}",
            messages(),
            "yellow",
        )
    examples = [row.example for row in rows]
    return find_feedback(log, examples, by_request=request_column is not None).require_some()


def _send(report: WatchReport, store: Store, log: PredictionLog, url: str) -> None:
    from conpet.watching.webhook import WebhookError, send_alarms

    try:
        sent = send_alarms(report, store.path.name, log, url)
    except WebhookError as error:  # the exit status still tells of the alarm
        line(f"error: {error}", messages(), "red")
        return
    if sent:
        line(f"{plural(len(sent), 'alarm')} sent: {', '.join(sent)}", messages())


def _print_report(report: WatchReport, everything: bool, *, rows: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from conpet.report.text import percent

    if not report.inputs:
        line(f"no inputs since the last change (generation {report.generation})")
    elif not report.complete:
        line(f"the reference is not complete yet: {report.reference:,} inputs so far, nothing is compared with it")
    else:
        period = "" if report.first is None else f"; {_shown_time(report.first)} to {_shown_time(report.last)} UTC"
        line(f"{report.inputs:,} inputs, the first {report.reference:,} as reference{period}")
    listed = [one for one in report.signals if one.alarm]
    others = [one for one in report.signals if not one.alarm]
    named = [one for one in others if not one.name.startswith(_MANY)]
    many = [one for one in others if one.name.startswith(_MANY)]
    many.sort(key=lambda one: -one.evidence / one.threshold)
    listed += named + (many if everything else many[:_SHOWN])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("signal", f"last {report.window:,}", "reference", "evidence", "alarm at", "alarm", "since", "what"):
        table.add_column(name, overflow="fold")
    for one in listed:
        table.add_row(
            Text(one.name),
            "" if one.value is None else percent(one.value),
            "" if one.reference is None else percent(one.reference),
            f"{one.evidence:.3g}",
            f"{one.threshold:,.0f}",
            Text(_place(one.at, one.at_input, rows), "red") if one.alarm else Text("no", "dim"),
            _place(one.since, one.since_input, rows) if one.alarm else "",
            Text(one.meaning),
        )
    if listed:
        print_table(table)
    if (left := len(many) - _SHOWN) > 0 and not everything:
        line(f"... and {left:,} more tasks and labels without an alarm (--all)", style="dim")
    for hint in dict.fromkeys(one.hint for one in report.alarms):
        line(f"next: {hint}")
    line(
        f"if nothing changes, the probability of any alarm, ever, is at most {report.false_alarm:g}",
        style="dim",
    )
    if report.accuracy is not None:
        _print_accuracy(report.accuracy)


def _place(time: datetime | None, number: int | None, rows: bool) -> str:
    """Return where something happened: its time, for a file its row, or both."""
    row = f"row {number:,}" if rows and number is not None else ""
    return f"{_shown_time(time)} ({row})" if time and row else _shown_time(time) or row


def _shown_time(time: datetime | None) -> str:
    return "" if time is None else str(time)[:19]


def _print_accuracy(accuracy: Accuracy) -> None:
    missing = f", {accuracy.missing:,} not" if accuracy.missing else ""
    line(f"feedback: {plural(accuracy.found, 'labelled input')} found in the record{missing}")
    if accuracy.whole is not None:
        line(f"  right: {_shown(accuracy.whole)}")
    for title, shares in (
        (f"by {accuracy.period}", accuracy.periods),
        ("by task", accuracy.tasks),
        ("by right label, lowest first", accuracy.labels[:_SHOWN]),
    ):
        line(title)
        for share in shares:
            name = share.name[:16] if shares is accuracy.periods else share.name
            line(f"  {name}: {_shown(share)}")
    if accuracy.confusions:
        line("confused")
    for right, given, number in accuracy.confusions:
        line(f"  {right} was answered {given}: {number:,}")


def _shown(share: Share) -> str:
    from conpet.report.text import percent

    return (
        f"{percent(share.right / share.n)} of {share.n:,} (95% interval {percent(share.low)} to {percent(share.high)})"
    )
