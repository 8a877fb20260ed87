"""`conpet modules`: list, inspect and change the versions of every task's module."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import confirm, print_accuracy, run_change
from conpet.cli.console import line, output, print_error, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson, BackboneMoved, Device, NoEvaluate, NoGate, TaskName, Wait, WorkspacePath, Yes
from conpet.cli.workspace import open_workspace

if TYPE_CHECKING:
    from conpet.store import Store, VersionRecord

app = App(help="List, inspect, roll back, remove, export and verify modules.", no_args_is_help=True)
Version = Annotated[
    int | None, typer.Option("--version", metavar="N", help="Version of the module.", show_default="the active version")
]

_LISTED = 20
"""Most rows left out that `show` prints."""


@app.command("list")
def list_(workspace: WorkspacePath, as_json: AsJson = False) -> None:
    """List all module versions; predictions use the active ones.

    The column `module` shows the number of trained parameters, or the name of the module that tasks share. A version
    from before a consolidation has none: a rollback learns its examples again.
    """
    from conpet.store import Store

    with Store.open(workspace).snapshot() as snapshot:
        rows = [_row(version) for version in snapshot.versions]
    if as_json:
        print_json(rows)
    elif not rows:
        line(f"{workspace} has no modules yet; next: conpet learn {workspace} TASK_OR_STREAM")
    else:
        _print_list(rows)


@app.command()
def show(workspace: WorkspacePath, task: TaskName, version: Version = None, as_json: AsJson = False) -> None:
    """Show the details of a module."""
    from conpet.store import Store

    store = Store.open(workspace)
    with store.snapshot() as snapshot:
        record = snapshot.task(task)
        chosen = record.active if version is None else record.version(version)
        details = _row(chosen) | {
            "labels": list(chosen.labels),
            "digest": chosen.digest,
            **chosen.description,
            "files": {slot: str(reader.folder) for slot, reader in chosen.objects.items()},
            "history": [
                {
                    "verb": event.verb,
                    "version": event.version,
                    "time": event.time.isoformat(),
                    "detail": dict(event.detail),
                }
                for event in store.events()
                if event.task == task or task in event.detail.get("tasks", ())
            ],
        }
    if as_json:
        print_json(details)
    else:
        _print_details(details)


@app.command()
def rollback(
    workspace: WorkspacePath,
    task: TaskName,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to use.")],
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Switch to another version of a task's module, older or newer.

    A version from before a consolidation is learned again from its stored examples.
    """
    opened = open_workspace(workspace, backbone, device, to_change=True)
    report = run_change(task, wait, no_evaluate, partial(opened.rollback, task, version, gate=not no_gate))
    for note in report.notes:
        line(f"{task}: {note}")
    line(f"{task}: version {report.version} is active" + (" already; nothing changed" if report.skipped else ""))
    if report.evaluation is not None:
        print_accuracy(report.evaluation, report.labels_seen)


@app.command()
def remove(
    workspace: WorkspacePath,
    task: TaskName,
    yes: Yes = False,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Remove a task with its labels, versions, examples and statistics, and kept generations that hold its examples."""
    from conpet.report import text

    opened = open_workspace(workspace, backbone, device, to_change=True)
    counts = _extent(opened.store, task)
    labels, versions = text.plural(counts[0], "label"), text.plural(counts[1], "version")
    remaining = counts[2]
    question = f"Remove {task!r} with {labels}, {versions} of its module and all its examples?"
    confirm(" ".join([question, *remaining]), yes)
    evaluation = run_change(task, wait, no_evaluate, partial(opened.remove, task, gate=not no_gate))
    line(f"{task}: removed with its {labels} and {versions}")
    for remark in remaining:
        line(remark)
    if evaluation is not None and opened.labels:
        print_accuracy(evaluation, len(opened.labels))


def _extent(store: Store, task: str) -> tuple[int, int, list[str]]:
    """Count a task's labels and versions, and describe what remains and what is deleted besides.

    Returns no record, because an open record would keep the task's files from being deleted.
    """
    from conpet.commands.generations import holding
    from conpet.modules.folded_info import FoldedNote, Producer
    from conpet.state.slots import shared_slot_of

    with store.snapshot() as snapshot:
        record = snapshot.task(task)
        slots = {slot for version in record.versions if (slot := shared_slot_of(version.objects))}
        shared = any(shared_slot_of(other.objects) in slots for other in snapshot.versions if other.task != task)
        folded = FoldedNote.among(snapshot.shared)
        remaining = []
        if shared:
            remaining.append(
                "Its module serves other tasks too and is kept, although it was trained on these examples; "
                "`conpet forget WORKSPACE --task TASK` trains it again without them."
            )
        if folded and task in folded.tasks:
            warm = folded.producer is Producer.WARM_UP
            done, kept = ("warmed up", "the warm-up") if warm else ("consolidated", "the result")
            remaining.append(f"The backbone was {done} with this task; {kept} is kept.")
        if kept_generations := holding(store, task):
            numbers = ", ".join(map(str, kept_generations))
            remaining.append(f"Kept generations that hold its examples are dropped: {numbers}.")
        return len(record.active.labels), len(record.versions), remaining


@app.command()
def export(
    workspace: WorkspacePath,
    task: TaskName,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create for the module.")],
    version: Version = None,
) -> None:
    """Export a module with its head and everything needed to use it without conpet.

    Hugging Face PEFT loads the folder if it supports the kind of module. README.md in it says how an input becomes
    logits, and logits.py does so with plain transformers and PEFT.
    """
    from conpet.commands.export import FOLDED_FOLDER, README, SCRIPT, export_version
    from conpet.modules.adapter import ADAPTER_CONFIG
    from conpet.modules.kinds import kind_of_document
    from conpet.state.slots import module_of
    from conpet.store import Store

    with Store.open(workspace).snapshot() as snapshot:
        record = snapshot.task(task)
        chosen = record.active if version is None else record.version(version)
        exported = export_version(chosen, snapshot, folder.expanduser())
        kind = kind_of_document(module_of(chosen.objects, snapshot.shared).document(ADAPTER_CONFIG))
    format_name = (
        "the format of Hugging Face PEFT"
        if kind.in_peft
        else f"conpet's own format (PEFT does not support {kind.name})"
    )
    line(f"{exported}: {task} version {chosen.number}, in {format_name}")
    with_script = f"; its logits: python {exported / SCRIPT} BACKBONE INPUT" if (exported / SCRIPT).exists() else ""
    line(f"how to use it without conpet: {exported / README}{with_script}")
    if (exported / FOLDED_FOLDER).exists():
        line(f"the backbone was tuned: merge the adapter in {exported / FOLDED_FOLDER} into it before using this one")


@app.command()
def verify(workspace: WorkspacePath, as_json: AsJson = False, backbone: BackboneMoved = None) -> None:
    """Hash every stored object and the backbone, and report damage."""
    from conpet.commands.verify import verify as verify_workspace
    from conpet.store import Store

    store = Store.open(workspace)
    result = verify_workspace(store, backbone)
    if as_json:
        problems = [str(problem) for problem in result.problems]
        print_json({"sound": not problems, "problems": problems, "backbone_checked": result.backbone_checked})
    else:
        for problem in result.problems:
            print_error(problem)
        if not result.problems:
            line(f"{workspace}: all objects are intact")
        if not result.backbone_checked:
            line("its backbone was not found, so it was not checked; give its folder with --backbone")
    if result.problems:
        raise typer.Exit(1)


def _row(version: VersionRecord) -> dict[str, Any]:
    from conpet.state.slots import MODULE, shared_slot_of

    stored = MODULE in version.objects
    return {
        "task": version.task,
        "version": version.number,
        "active": version.active,
        "labels": len(version.labels),
        "shared_module": shared_slot_of(version.objects),
        "parameters": version.parameters if stored else 0,
        "head_parameters": version.head_parameters if stored else 0,
        "bytes": version.bytes,
        "created": version.created.isoformat(),
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from conpet.report import text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("task", "v.", "", "labels", "module", "head", "stored", "learned"):
        table.add_column(name, justify="left" if name in ("task", "", "learned") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(text.shorten(row["task"], 20)),
            str(row["version"]),
            "active" if row["active"] else "",
            text.count(row["labels"]),
            row["shared_module"] or text.short_count(row["parameters"]),
            text.short_count(row["head_parameters"]),
            text.size(row["bytes"]),
            row["created"][:10],
        )
    output().print(table)


def _print_details(details: dict[str, Any]) -> None:
    from conpet.report import text

    left_out = details.get("left_out", [])
    line(f"{details['task']} version {details['version']}{', active' if details['active'] else ''}", style="bold")
    counts = details["counts"]
    for name, value in (
        ("learned", details["created"][:16].replace("T", " ")),
        ("kind", details["kind"]),
        ("template", details["template"] or "the default of its kind"),
        ("settings", ", ".join(f"{key}={value}" for key, value in details["settings"].items()) or "the workspace's"),
        ("examples", ", ".join(f"{number:,} {subset}" for subset, number in counts.items())),
        ("parameters", f"{details['parameters']:,}, and {details['head_parameters']:,} in its head"),
        ("stored", text.size(details["bytes"])),
        ("digest", details["digest"]),
        # `learn` prints the same notes, some with the command to see more: this one.
        *(("note", note.partition(": `conpet modules show`")[0]) for note in details["notes"]),
        *(
            (row["action"], text.with_short_labels(f"{row['file']}: row {row['row']}: {row['reason']}"))
            for row in left_out[:_LISTED]
        ),
        *([("", f"and {len(left_out) - _LISTED:,} more rows (--json lists all)")] if len(left_out) > _LISTED else []),
        *((f"{slot} in", folder) for slot, folder in details["files"].items()),
        ("labels", f"{len(details['labels']):,}: {', '.join(map(text.label, details['labels']))}"),
    ):
        line(f"  {name:<12}{value}")
