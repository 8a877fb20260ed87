"""`conpet forget`: forget rows, labels or tasks, and what was learned from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import confirm, print_accuracy, run_change, with_wait
from conpet.cli.console import line, messages, print_json
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    InclusiveEnds,
    InputFormat,
    NoEvaluate,
    Sheet,
    TextColumn,
    Wait,
    WorkspacePath,
    Yes,
    reading,
    require_path,
)
from conpet.cli.workspace import open_workspace
from conpet.config.duration import days_of
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError, plural
from conpet.files import require_writable_file, written_aside

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.data import Example
    from conpet.data.raw import ReadOptions
    from conpet.types import ForgetReport

STANDARD = "-"


def forget(
    workspace: WorkspacePath,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="Texts to forget; they stay in the history of your shell.", show_default=False
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="FILE", help="A file of rows to forget, as for `predict`; - for standard input."
        ),
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Id of a row, as it was learned; repeatable.")
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", metavar="SHA256", help="SHA-256 hash of a text in UTF-8; repeatable."),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="LABEL", help="A label with all its rows; repeatable.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", metavar="TASK", help="A task with everything; repeatable.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Rows learned longer ago: 365d, 52w or 1y.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stays in the history and the receipt.")] = "",
    keep_modules: Annotated[
        bool,
        typer.Option(
            "--keep-modules", help="Train nothing again, and name the modules that stay trained on the rows instead."
        ),
    ] = False,
    drop_labels: Annotated[
        bool, typer.Option("--drop-labels", help="Let a label go with its last training example.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Only complete a deletion that was interrupted, or had to wait.")
    ] = False,
    receipt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the receipt here too; the workspace keeps one.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private key to sign the receipt (`conpet audit key`).", show_default=False),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    no_evaluate: NoEvaluate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Forget rows, labels or tasks: their data, and what was learned from them.

    Statistics become those without the rows, to the bit. Modules that were trained on them are trained again.
    Older versions and kept generations that hold them are deleted: forgetting comes before going back.
    Caches, logs of jobs and free pages of the database are cleared. Then every byte is searched, and a receipt is
    written.
    The gate does not apply. A killed command is completed by running it again, or by --finish.
    """
    named: dict[str, Any] = {"ids": ids or [], "hashes": hashes or [], "labels": labels or [], "tasks": tasks or []}
    age = None if older_than is None else days_of(older_than, "--older-than")
    if finish == bool(texts or source or age or any(named.values())):
        raise ConfigError(
            "name what to forget: texts, -i FILE, --id, --hash, --label, --task or --older-than; or only --finish"
        )
    if source == STANDARD and not (yes or dry_run):
        raise ConfigError(
            "rows come from standard input, so a question cannot be answered there: look at --dry-run, then give --yes"
        )
    how = reading(text=text_column, encoding=encoding, form=input_format, inclusive_ends=inclusive_ends, sheet=sheet)
    if receipt is not None:
        require_writable_file(receipt, key)
    rows: list[str | Example] = [*(texts or []), *_rows(source, how)]
    opened = open_workspace(workspace, backbone, device, to_change=not dry_run)
    named |= {"older_than": age, "keep_modules": keep_modules, "drop_labels": drop_labels}
    change = partial(opened.forget, rows, **named)
    if dry_run:
        _print_plan(opened, _with_ids(change(dry_run=True), named["ids"]), as_json=as_json)
        return
    former = with_wait(wait, lambda seconds: opened.finish_forgetting(key=key, wait_seconds=seconds))
    if finish or (former is not None and not _matches(change)):
        _print_finished(opened, former, receipt)
        return
    if not yes:
        for text in _with_ids(change(dry_run=True), named["ids"]).lines:
            line(text, messages())
        line(_cache_line(), messages())
        confirm("Forget this?", yes)
    report = run_change("forget", wait, no_evaluate, partial(change, reason=reason, key=key))
    _write(report.receipt, receipt)
    _print(opened, _with_ids(report, named["ids"]), as_json=as_json)
    if report.receipt is not None and not report.complete:
        raise typer.Exit(1)


def _matches(change: Callable[..., ForgetReport]) -> bool:
    """Return whether anything is left to forget after an interrupted command was completed."""
    try:
        return bool(change(dry_run=True).tasks)
    except (DataError, UnknownNameError):
        return False


def _rows(source: str | None, how: ReadOptions) -> list[Example]:
    """Read the rows of a file, or none without a file."""
    from conpet.data import read_input_rows

    if source is None:
        return []
    if source != STANDARD:
        require_path(source, "nothing was forgotten")
    read = list(read_input_rows(source, how))
    if wrong := [row for row in read if isinstance(row, Problem)]:
        raise DataError(f"{source}: some rows cannot be read; nothing was forgotten", wrong)
    return [row.example for row in read if not isinstance(row, Problem)]


def _print_plan(opened: ConPET, plan: ForgetReport, *, as_json: bool) -> None:
    from conpet.report import text

    if as_json:
        print_json(plan.to_json())
        return
    for sentence in plan.lines:
        line(sentence)
    line(_cache_line())
    line(f"{opened.path} would be read once ({text.size(opened.store.bytes_on_disk())}), its database written anew")


def _cache_line() -> str:
    from conpet.report import text
    from conpet.state.live import state_cache

    with state_cache() as cache:
        size = cache.bytes_used if cache.path.exists() else 0
    return f"the state cache of all workspaces would be emptied ({text.size(size)}); states are then computed again"


def _with_ids(report: ForgetReport, ids: Sequence[str]) -> ForgetReport:
    """Return a report that names the ids that match nothing: on the command line, the user sees them anyway."""
    values = {f"id {number}": f"id {value}" for number, value in enumerate(ids, start=1)}
    return replace(report, unmatched=tuple(values.get(name, name) for name in report.unmatched))


def _write(receipt: Any, path: Path | None) -> None:
    if path is not None and receipt is not None:
        with written_aside(path) as stream:
            stream.write(json.dumps(dict(receipt), indent=2, ensure_ascii=False) + "\n")


def _print(opened: ConPET, report: ForgetReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
    if report.receipt is None and (report.recorded or report.reviewed):
        reviewed = f", {plural(report.reviewed, 'item')} in review deleted" if report.reviewed else ""
        line(
            f"{plural(report.recorded, 'recorded prediction')} cleared{reviewed}; no stored row matches, so nothing "
            "else changed"
        )
        line(
            "the record notes how many entries were cleared; there is no receipt, as no event belongs to it", messages()
        )
        return
    if report.receipt is None:
        line("no stored row is as old; nothing was changed")
        return
    for text in report.lines:
        line(text)
    _print_receipt(report.receipt)
    if report.evaluation is not None and opened.labels:
        print_accuracy(report.evaluation, len(opened.labels))


def _print_receipt(receipt: Any) -> None:
    check = receipt["check"]
    if check is not None:
        where = f"{plural(check['files'], 'file')} with {check['bytes'] / 1e6:,.1f} MB"
        searched = f"searched {where} for {plural(check['rows'], 'row')}"
        line(f"{searched}: {'nothing is left' if not check['found'] else 'found'}")
        for one in check["found"]:
            line(f"  {one['file']}: {one['what']}", style="red")
        if check["found"]:
            line("delete these files, or what they hold, yourself: conpet did not write them", messages())
    if receipt["still_read_by_a_process"]:
        line(
            "a process still reads an earlier generation, so its files are not deleted yet; when it has ended, run "
            "`conpet forget WORKSPACE --finish`",
            messages(),
            "yellow",
        )
    line(f"receipt: receipts/{receipt['generation']}.json in the workspace", style="dim")


def _print_finished(opened: ConPET, receipt: Any, path: Path | None) -> None:
    from conpet.commands.receipt import pending

    _write(receipt, path)
    if receipt is None:
        for text in (left := pending(opened.store, opened.path)):
            line(text, messages(), "yellow")
        if left:
            raise typer.Exit(1)
        line("nothing is left to complete")
        return
    _print_receipt(receipt)
    if not receipt["complete"]:
        raise typer.Exit(1)
