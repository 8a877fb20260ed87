"""`conpet audit`: check, trace, export and sign the history of a workspace, and record predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from conpet.cli.console import line, messages, output, print_json, print_table
from conpet.cli.help import App
from conpet.cli.options import AsJson, LogFolder, Wait, WorkspacePath
from conpet.errors import ConfigError, DataError, UnknownNameError, listed, plural
from conpet.files import require_writable_file, written_aside

if TYPE_CHECKING:
    from conpet.commands.audit import Head
    from conpet.store import Action, Store
    from conpet.store.chain import Break
    from conpet.types import LogEntry

app = App(help="Check, trace, export and sign the history of a workspace; record predictions.", no_args_is_help=True)
_ANSWERS = 20
"""Most recorded answers that are shown, the newest ones."""
_NOTES = 10
"""Most notes on missing entries that are shown, the newest ones."""


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="WORKSPACE|FILE", help="A workspace, or a history from `conpet audit export`.", show_default=False
        ),
    ],
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="HEAD", help="What `conpet audit head` printed earlier; repeatable."),
    ] = None,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="A checkpoint from `conpet audit sign`; repeatable."),
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A receipt from `conpet forget`.", show_default=False),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public key of the checkpoints and the receipt.", show_default=False),
    ] = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check that no event of the history was changed, removed or moved, and that what is stored is what it recorded.

    The record of predictions, if there is one, is checked in the same way.

    Whoever can write the workspace could write its whole history anew, or cut off its end. This is found with a head
    that you noted elsewhere (--head) or a signed one (--checkpoint).
    """
    from conpet.commands.audit import Head, verify_export, verify_workspace
    from conpet.commands.receipt import differences, heads_of, pending, read_receipt
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    if public_key is not None and not (checkpoints or receipt):
        raise ConfigError("--public-key is for a checkpoint or a receipt; give --checkpoint or --receipt too")
    if receipt is not None and path.is_file():
        raise ConfigError("a receipt is checked against a workspace; name its folder")
    noted = [Head.parse(text) for text in heads or ()] + _signed(checkpoints or [], public_key)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name a workspace, or a file that `conpet audit export` wrote")
    if path.is_file():
        breaks = verify_export(path, noted)
    else:
        store = Store.open(path)
        said = None if receipt is None else read_receipt(receipt, public_key)
        noted += heads_of(said) if said else []
        breaks = verify_workspace(store, noted, PredictionLog(store.path, log_to))
        breaks += differences(store, said) if said else []
        for text in pending(store, path):
            line(text, messages(), "yellow")
    if as_json:
        print_json([{"event": one.event, "reason": one.reason} for one in breaks])
    else:
        _print_breaks(path, breaks)
        if receipt is not None and not breaks:
            signed = " is signed with this key," if public_key is not None else ""
            line(f"{receipt}:{signed} agrees with the history, and nothing that it deleted is back")
    if breaks:
        raise typer.Exit(1)


def _print_breaks(path: Path, breaks: Sequence[Break]) -> None:
    for one in breaks:
        line(str(one), style="red")
    if breaks:
        line(f"{plural(len(breaks), 'difference')} from what was recorded", messages())
    else:
        line(f"{path}: {'the history is' if path.is_file() else 'history and content are'} as recorded")


@app.command()
def head(workspace: WorkspacePath, log_to: LogFolder = None) -> None:
    """Print numbers and digests of the last event, action and recorded prediction.

    Note them elsewhere: they stand for everything up to now.
    """
    from conpet.commands.audit import head as head_of
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    store = Store.open(workspace)
    line(str(head_of(store, PredictionLog(store.path, log_to))))


@app.command()
def trace(
    workspace: WorkspacePath,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Name of the task.", show_default=False)] = None,
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="VERSION", min=1, help="Version, as an answer names it.", show_default="the active version"
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="The same as VERSION.", show_default=False)
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            "--request",
            metavar="ID",
            help="Answers to a request: `request_id` of a prediction, or X-Request-ID of a server's answer.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Answers to this text.", show_default=False)
    ] = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what is recorded of the version that gave an answer: who made it, when, from which data, and what happened.

    Every answer names its task and version (`conpet predict`, HTTP). The task may have been removed since.
    With --request or --text, the answers themselves are shown, if predictions are recorded (`conpet audit log`).
    """
    from conpet.commands.audit import trace as trace_of
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    if sum(given is not None for given in (task, request, text)) != 1:
        raise typer.BadParameter("give a task, or --request ID, or --text TEXT", param_hint="TASK")
    if None not in (number, version) and number != version:
        raise typer.BadParameter(f"{number} and --version {version} differ; give one version", param_hint="VERSION")
    version = version if number is None else number
    if version is not None and task is None:
        raise typer.BadParameter("a version is for a task", param_hint="--version")
    store = Store.open(workspace)
    if task is None:
        _trace_answers(store, request, text, log_to, as_json)
        return
    found = trace_of(store, task, version, PredictionLog(store.path, log_to))
    if as_json:
        print_json(found)
    else:
        _print_trace(found)


@app.command()
def log(
    workspace: WorkspacePath,
    predictions: Annotated[
        str | None,
        typer.Option(
            metavar="off|hash|text",
            help="What to record: nothing, each prediction with a keyed hash of its input, or also the input itself.",
            show_default=False,
        ),
    ] = None,
    keep_days: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Days after which an entry is deleted; 0 to keep all.", show_default=False
        ),
    ] = None,
    log_to: LogFolder = None,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Set what is recorded of predictions, or show it: nothing is recorded unless you turn it on.

    Every prediction by `conpet predict`, Python and `conpet serve` is then appended to a file, with the time, the
    generation, task, version and label that answered, the modules that ran, and the scores.
    """
    from conpet.cli.changes import with_wait
    from conpet.commands.prediction_log import set_log, shown_log
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    store = Store.open(workspace)
    if predictions is not None or keep_days is not None:
        store.require_writable()
        with_wait(wait, lambda seconds: set_log(store, seconds, predictions=predictions, keep_days=keep_days))
    shown = shown_log(store, PredictionLog(store.path, log_to))
    if as_json:
        print_json(shown)
        return
    kept = "" if shown["keep_days"] is None else f", deleted after {plural(shown['keep_days'], 'day')}"
    line(f"predictions: {shown['predictions']}{kept}")
    if shown["file"] is not None:
        since = "" if shown["oldest"] is None else f" since {shown['oldest'][:19]} UTC"
        line(f"{shown['file']}: {_entries(shown['entries'])}{since}, {shown['bytes'] / 1e6:.1f} MB")
    if (earlier := len(shown["missing"]) - _NOTES) > 0:
        line(f"{plural(earlier, 'earlier note')} on entries that are not there (--json lists all)")
    for note in shown["missing"][-_NOTES:]:
        line(f"{note['time'][:19]} UTC: {note['number']:,} {note['what']}, by {note['actor']}")


@app.command()
def predictions(
    workspace: WorkspacePath,
    decision: Annotated[
        str | None, typer.Option(metavar="answer|ask|decline", help="Only with this decision.", show_default=False)
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this task.", show_default=False)] = None,
    label: Annotated[str | None, typer.Option(metavar="NAME", help="Only with this label.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|AGE", help="Only from then on: 2026-11-29, 2026-11-29T10:00 or 7d.", show_default=False
        ),
    ] = None,
    before: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only those with lower numbers.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most predictions to list.")] = _ANSWERS,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """List recorded predictions, the newest first: for example those that were declined.

    The inputs are shown if they are recorded (`conpet audit log WORKSPACE --predictions text`).
    """
    from conpet.config.duration import moment_of
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog
    from conpet.types import Decision

    if decision is not None and decision not in get_args(Decision):
        raise ConfigError(f"--decision {decision}: give {listed(get_args(Decision))}")
    store = Store.open(workspace)
    record = PredictionLog(store.path, log_to)
    if not record.exists:
        raise DataError("predictions are not recorded here: see `conpet audit log`")
    found = record.entries(
        task=task,
        label=label,
        decision=decision,
        since=None if since is None else moment_of(since, "--since"),
        before=before,
        limit=limit + 1,
    )
    shown, more = found[:limit], len(found) > limit
    if as_json:
        print_json([entry.to_json() for entry in shown])
        return
    if not shown:
        line("no recorded prediction is like that")
        _hint_at_unknown(store, task, label)
        return
    _print_entries(shown)
    if more:
        line(f"there are older ones: --before {shown[-1].id}, or a higher --limit", style="dim")


@app.command()
def actions(
    workspace: WorkspacePath,
    search: Annotated[
        str, typer.Option(metavar="WORDS", help="Only with these words: a person, a key, a task.", show_default=False)
    ] = "",
    before: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only those with lower numbers.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most actions to list.")] = _ANSWERS,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what people did beside the changes of the history, the newest first.

    Keys made, revoked and refused, sign-ins, changes requested, cancelled and discarded, watching begun anew, review.
    """
    from conpet.commands.audit import trail
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    store = Store.open(workspace)
    found = trail(store, PredictionLog(store.path, log_to)).entries(before=before, limit=limit + 1, search=search)
    if as_json:
        print_json([action.to_json() for action in found[:limit]])
        return
    if not found:
        line("no action is like that" if search or before else "nothing was done so far")
        return
    _print_actions(found[:limit])
    if len(found) > limit:
        line(f"there are older ones: --before {found[limit - 1].id}, or a higher --limit", style="dim")


@app.command()
def prune(
    workspace: WorkspacePath,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="For example 90d, 12h or 52w.", show_default="the days that `conpet audit log` set"
        ),
    ] = None,
    log_to: LogFolder = None,
) -> None:
    """Delete recorded predictions that are older than an age; the record notes how many, when, and by whom.

    Without an age, those are deleted that are older than `conpet audit log WORKSPACE --keep-days` allows. A running
    server deletes them every hour. The history of changes is never pruned.
    """
    from conpet.commands.prediction_log import prune as pruned
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    store = Store.open(workspace)
    log = PredictionLog(store.path, log_to)
    log.require_writable()
    removed = pruned(store, log, older_than)
    line(f"{_entries(removed)} deleted, {log.total():,} left")


@app.command()
def export(
    workspace: WorkspacePath,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSON Lines file.", show_default=False)],
    log_to: LogFolder = None,
) -> None:
    """Write the history and the other actions into a file, one per line. `conpet audit verify` needs only this file."""
    from conpet.commands.audit import export as entries
    from conpet.commands.audit import verify_export
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    require_writable_file(out)
    store = Store.open(workspace)
    lines = list(entries(store, PredictionLog(store.path, log_to)))
    with written_aside(out) as stream:
        stream.writelines(f"{entry}\n" for entry in lines)
    line(f"{_entries(len(lines))} written to {out}", messages())
    if breaks := verify_export(out):
        line(f"warning: the history is not as recorded: {breaks[0]}; see `conpet audit verify`", messages())


@app.command()
def key(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File of the private key.", show_default=False)],
) -> None:
    """Make an Ed25519 key to sign checkpoints with. Keep it where whoever writes the workspace cannot read it."""
    from conpet.commands.checkpoint import new_key

    require_writable_file(path)
    public = new_key(path)
    line(f"private key: {path} (only you can read it); public key: {public}", messages())


@app.command()
def sign(
    workspace: WorkspacePath,
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the checkpoint here.", show_default="printed"),
    ] = None,
    log_to: LogFolder = None,
) -> None:
    """Write a signed checkpoint of the history. Nobody without the key can write another history that fits to it.

    The workspace is verified first; nothing is signed if it differs from what was recorded.
    """
    from conpet.commands.checkpoint import sign as signed
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    if out is not None:
        require_writable_file(out, key)
        if out.exists():
            raise ConfigError(f"{out} exists; name another file, a checkpoint is never replaced")
    store = Store.open(workspace)
    checkpoint = signed(store, key, PredictionLog(store.path, log_to))
    if out is None:
        print_json(checkpoint)
        return
    with written_aside(out) as stream:
        stream.write(json.dumps(checkpoint, indent=2) + "\n")
    line(f"checkpoint of generation {checkpoint['head'].partition(':')[0]} written to {out}", messages())


def _trace_answers(store: Store, request: str | None, text: str | None, log_to: Path | None, as_json: bool) -> None:
    from conpet.commands.prediction_log import trace_input, trace_request
    from conpet.store.prediction_log import PredictionLog

    log = PredictionLog(store.path, log_to)
    found = trace_request(store, log, request) if request is not None else trace_input(store, log, text or "", _ANSWERS)
    if not found and not as_json:
        why = "" if log.exists else "; predictions are not recorded here: see `conpet audit log`"
        raise UnknownNameError(f"no answer to this {'request' if request is not None else 'text'} is recorded{why}")
    if as_json:
        print_json(found)
        return
    for entry in found:
        _print_answer(entry)


def _print_answer(entry: dict[str, Any]) -> None:
    made = entry["answered_by"]
    line(f"{entry['time'][:19]} UTC, request {entry['request']}, input {entry['place']}", style="bold")
    label = f"task {entry['task']}" if entry["label"] is None else entry["label"]
    line(f"  {entry['decision']}: {label}, score {entry['score']:.2f}, confidence {entry['confidence']:.2f}")
    line(f"  task {entry['task']}, version {entry['version']}, generation {entry['generation']}")
    if made is not None:
        line(f"  made {made['made']['time'][:19]} UTC by {made['made']['actor']} from data with SHA-256 {made['data']}")
    if entry["learned_from"]:
        rows = plural(len(entry["learned_from"]), "row")
        line(f"  learned from {rows} with this label: {listed(entry['learned_from'])}")
    for module in entry["modules"]:
        hashes = ", ".join(f"{one['slot']} {one['sha256'][:16]}" for one in module["objects"])
        line(f"  module run: {module['task']}, version {module['version']}{f' ({hashes})' if hashes else ''}")
    if entry["content"] is not None:
        line(f"  input: {entry['content']}")


def _hint_at_unknown(store: Store, task: str | None, label: str | None) -> None:
    with store.snapshot() as snapshot:
        tasks, labels = [one.name for one in snapshot.tasks], list(snapshot.owners)
    for what, name, known in (("task", task, tasks), ("label", label, labels)):
        if name is not None and name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            line(f"the workspace has no {what} {name!r} now{hint}", messages())


def _print_entries(found: Sequence[LogEntry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from conpet.report.text import shorten

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("number", "time (UTC)", "decision", "label", "confidence", "task", "request", "input"):
        table.add_column(column, justify="right" if column == "confidence" else "left")
    for one in found:
        table.add_row(
            str(one.id),
            one.time.isoformat()[:19].replace("T", " "),
            one.decision,
            Text(one.label or ""),
            f"{one.confidence:.2f}",
            Text(f"{one.task}, version {one.version}"),
            Text(f"{one.request}/{one.place}"),
            Text(shorten(one.content, 60) if one.content is not None else ""),
        )
    print_table(table)


def _print_actions(found: Sequence[Action]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("number", "time (UTC)", "by", "what", "about"):
        table.add_column(column, overflow="fold")
    for one in found:
        parts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in one.detail.items()}
        about = ", ".join(f"{name} {value}" for name, value in parts.items() if value != "")
        time = one.time.isoformat()[:19].replace("T", " ")
        table.add_row(str(one.id), time, Text(one.actor), one.verb, Text(about))
    print_table(table)


def _entries(number: int) -> str:
    return f"{number:,} entr{'y' if number == 1 else 'ies'}"


def _signed(checkpoints: list[Path], public_key: Path | None) -> list[Head]:
    if not checkpoints:
        return []
    if public_key is None:
        raise ConfigError("a checkpoint needs the key to check it with: give --public-key")
    from conpet.commands.checkpoint import checked

    return [checked(checkpoint, public_key) for checkpoint in checkpoints]


def _print_trace(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    made = found["made"]
    state = "active" if found["active"] else "not active" if found["objects"] else "no longer stored"
    line(f"task {found['task']}, version {found['version']} ({state})")
    line(f"made: generation {made['generation']}, {made['time'][:19]} UTC, by {made['actor']}")
    named = f": {', '.join(found['labels'])}" if found["labels"] else ""
    line(f"{plural(found['number_of_labels'], 'label')}{named}")
    line(f"data: SHA-256 {found['data']}")
    if found["examples"]:
        counted = (f"{count:,} {subset}" for subset, count in found["examples"].items())
        line(f"examples: {', '.join(counted)}")
    for each in found["objects"]:
        line(f"{each['slot']}: objects/{each['folder']}, SHA-256 of its files {each['sha256']}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("generation", "time (UTC)", "by", "what", "version"):
        table.add_column(column, overflow="fold")
    for event in found["events"]:
        version = "" if event["version"] is None else str(event["version"])
        row = (event["time"][:19], Text(event["actor"]), event["verb"], version)
        table.add_row(str(event["generation"]), *row)
    output().print(table)
    for action in found["actions"]:
        line(f"action {action['id']}, {action['time'][:19]} UTC, by {action['actor']}: {action['verb']}")
