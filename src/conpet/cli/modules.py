"""`conpet modules`: the versions of every task's module."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import confirm, made, say_accuracy
from conpet.cli.console import line, output, print_error, print_json
from conpet.cli.options import AsJson, BackboneMoved, Device, NoEvaluate, TaskName, Wait, WorkspacePath, Yes
from conpet.cli.workspace import open_workspace

if TYPE_CHECKING:
    from conpet.store import Store, VersionRecord

app = typer.Typer(help="List, inspect, roll back, remove, export and verify modules.", no_args_is_help=True)
Version = Annotated[
    int | None, typer.Option("--version", metavar="N", help="Version of the module.", show_default="the one in use")
]


@app.command("list")
def list_(workspace: WorkspacePath, as_json: AsJson = False) -> None:
    """List every version of every module; predictions use the active ones.

    In the column `module` stands what a module has of trained parameters, or the name of the one that tasks share.
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
    """Show all that is known of one module."""
    from conpet.store import Store

    store = Store.open(workspace)
    with store.snapshot() as snapshot:
        record = snapshot.task(task)
        chosen = record.active if version is None else record.version(version)
        found = _row(chosen) | {
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
        print_json(found)
    else:
        _print_details(found)


@app.command()
def rollback(
    workspace: WorkspacePath,
    task: TaskName,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to use from now on.")],
    no_evaluate: NoEvaluate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Go back, or forth, to another version of a task's module."""
    opened = open_workspace(workspace, backbone, device)
    report = made(task, wait, no_evaluate, partial(opened.rollback, task, version))
    line(f"{task}: version {report.version} is in use" + (" already; nothing done" if report.skipped else ""))
    if report.evaluation is not None:
        say_accuracy(report.evaluation.whole_accuracy, report.labels_seen)


@app.command()
def remove(
    workspace: WorkspacePath,
    task: TaskName,
    yes: Yes = False,
    no_evaluate: NoEvaluate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Take a task out: its labels, all its versions, its examples, and its share of the statistics."""
    opened = open_workspace(workspace, backbone, device)
    labels, versions, stays = _extent(opened.store, task)
    question = f"Remove {task!r}: {labels} labels, {versions} version(s) of its module, all its examples?"
    confirm(" ".join([question, *stays]), yes)
    evaluation = made(task, wait, no_evaluate, partial(opened.remove, task))
    line(f"{task}: removed with its {labels} labels and {versions} version(s)")
    if evaluation is not None and opened.labels:
        say_accuracy(evaluation.whole_accuracy, len(opened.labels))


def _extent(store: Store, task: str) -> tuple[int, int, list[str]]:
    """Count a task's labels and versions, and say what of it stays when it is removed.

    No record is kept, for it would keep the task's files from being deleted.
    """
    from conpet.modules.warmup_info import WarmupNote
    from conpet.state.state import shared_slot_of

    with store.snapshot() as snapshot:
        record = snapshot.task(task)
        units = {unit for version in record.versions if (unit := shared_slot_of(version.objects))}
        shared = any(shared_slot_of(one.objects) in units for one in snapshot.versions if one.task != task)
        warmup = WarmupNote.among(snapshot.shared)
        stays = []
        if shared:
            stays.append("The module that serves it serves other tasks too: it stays, and has seen these examples.")
        if warmup and warmup.task == task:
            stays.append("The backbone was warmed up with it, and stays so.")
        return len(record.active.labels), len(record.versions), stays


@app.command()
def export(
    workspace: WorkspacePath,
    task: TaskName,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the module.")],
    version: Version = None,
) -> None:
    """Copy a module with its head into a folder that plain Hugging Face PEFT loads, if its kind is one of PEFT's."""
    from conpet.commands.export import WARMUP_FOLDER, export_version
    from conpet.modules.adapter import ADAPTER_CONFIG
    from conpet.modules.kinds import kind_of_document
    from conpet.state.state import module_of
    from conpet.store import Store

    with Store.open(workspace).snapshot() as snapshot:
        record = snapshot.task(task)
        chosen = record.active if version is None else record.version(version)
        made = export_version(chosen, snapshot.shared, folder.expanduser())
        kind = kind_of_document(module_of(chosen.objects, snapshot.shared).document(ADAPTER_CONFIG))
    whose = "the format of Hugging Face PEFT" if kind.in_peft else f"conpet's own format (PEFT knows no {kind.name})"
    line(f"{made}: {task} version {chosen.number}, in {whose}")
    if (made / WARMUP_FOLDER).exists():
        line(f"the backbone was warmed up: merge the adapter in {made / WARMUP_FOLDER} into it before this one is used")


@app.command()
def verify(workspace: WorkspacePath, as_json: AsJson = False, backbone: BackboneMoved = None) -> None:
    """Hash everything the workspace stores, and its backbone, and tell what is damaged."""
    from conpet.commands.verify import verify as verify_workspace
    from conpet.store import Store

    store = Store.open(workspace)
    found = verify_workspace(store, backbone)
    if as_json:
        problems = [str(problem) for problem in found.problems]
        print_json({"sound": not problems, "problems": problems, "backbone_checked": found.backbone_checked})
    else:
        for problem in found.problems:
            print_error(problem)
        if not found.problems:
            line(f"{workspace}: every object is as it was written")
        if not found.backbone_checked:
            line("its backbone lies elsewhere and was not checked; name its folder with --backbone")
    if found.problems:
        raise typer.Exit(1)


def _row(version: VersionRecord) -> dict[str, Any]:
    from conpet.state.state import shared_slot_of

    return {
        "task": version.task,
        "version": version.number,
        "active": version.active,
        "labels": len(version.labels),
        "unit": shared_slot_of(version.objects),
        "parameters": version.parameters,
        "head_parameters": version.head_parameters,
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
            row["unit"] or text.short_count(row["parameters"]),
            text.short_count(row["head_parameters"]),
            text.size(row["bytes"]),
            row["created"][:10],
        )
    output().print(table)


def _print_details(found: dict[str, Any]) -> None:
    from conpet.report import text

    line(f"{found['task']} version {found['version']}{', active' if found['active'] else ''}", style="bold")
    counts = found["counts"]
    for name, value in (
        ("learned", found["created"][:16].replace("T", " ")),
        ("kind", found["kind"]),
        ("template", found["template"] or "that of its kind"),
        ("settings", ", ".join(f"{key}={value}" for key, value in found["settings"].items()) or "the workspace's"),
        ("examples", ", ".join(f"{number:,} {split}" for split, number in counts.items())),
        ("parameters", f"{found['parameters']:,}, and {found['head_parameters']:,} of its head"),
        ("stored", text.size(found["bytes"])),
        ("digest", found["digest"]),
        *(("note", note) for note in found["notes"]),
        *((f"{slot} in", folder) for slot, folder in found["files"].items()),
        ("labels", f"{len(found['labels']):,}: {', '.join(found['labels'])}"),
    ):
        line(f"  {name:<12}{value}")
