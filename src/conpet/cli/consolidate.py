"""`conpet consolidate`, `conpet generations` and `conpet restore`: tune the backbone again, and go back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.changes import confirm, print_accuracy, run_change
from conpet.cli.console import INTERRUPTED, line, messages, output, print_json
from conpet.cli.options import AsJson, BackboneMoved, Device, NoEvaluate, NoGate, Wait, WorkspacePath, Yes, assignments
from conpet.cli.workspace import open_workspace
from conpet.config import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from conpet.store import Store
    from conpet.types import Generation


def consolidate(
    workspace: WorkspacePath,
    bound: Annotated[
        float, typer.Option(metavar="POINTS", min=0, help="Largest accepted drop of accuracy on validation examples.")
    ] = 0.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=(
                "A setting of the section `consolidation` for this time only (layers=top, epochs=10); may be repeated."
            ),
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Consolidate even if nothing has changed since the last consolidation.")
    ] = False,
    as_json: AsJson = False,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Tune the backbone on the stored examples of all tasks, and learn everything again over it.

    The result replaces the present state only if it is no worse on stored validation examples. The generation before
    it is kept: `conpet generations` lists it, and `conpet restore` goes back to it.
    With `--set layers=top` the backbone stays as it is, and only one module for all labels is trained, on the layers
    above the cut: this is faster.
    An interrupted command resumes when it is run again.
    If neither the workspace nor these settings have changed since the last consolidation, nothing is done without
    --again.
    """
    from conpet.report import text
    from conpet.store import Store

    changes = {key.removeprefix("consolidation."): value for key, value in assignments(settings or []).items()}
    Settings().changed({"consolidation": changes})  # wrong ones are reported before torch is imported
    store = Store.open(workspace)
    wanted = Settings.parse(store.header().settings).changed({"consolidation": changes})
    wanted.consolidation.check_given(changes)
    from conpet.commands.generations import just_consolidated

    if not again and just_consolidated(store, wanted):
        if as_json:
            print_json({"consolidated": False})
        else:
            _print_nothing_new(store, workspace)
        return
    from conpet.commands.checks import check_consolidation

    opened = open_workspace(workspace, backbone, device, to_change=True)
    with opened.store.snapshot() as snapshot:
        check_consolidation(snapshot, bound, wanted)
    change = partial(opened.consolidate, bound=bound, settings=changes, gate=not no_gate)
    try:
        report = run_change("consolidate", wait, no_evaluate, change)
    except KeyboardInterrupt:
        from conpet.modules.optimisation import CHECKPOINT_SECONDS

        lost = f"up to {CHECKPOINT_SECONDS:.0f} s of training are repeated"
        line(f"stopped: nothing was changed. Run the same command to go on; {lost}.", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(report.to_json())
        return
    for note in report.notes:
        line(note, messages())
    line(str(report))
    line(f"stored: {text.size(report.bytes_after)}, before {text.size(report.bytes_before)}")
    line(f"to go back: conpet restore {workspace} {report.replaced}", style="dim")
    if report.evaluation is not None:
        print_accuracy(report.evaluation, len(opened.labels))


def generations(
    workspace: WorkspacePath,
    drop: Annotated[
        int | None,
        typer.Option(metavar="GENERATION", help="Drop a kept generation and free its storage.", show_default=False),
    ] = None,
    yes: Yes = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """List the generations of a workspace that `conpet restore` can go back to, and the present one.

    The column `consolidated` shows the tasks of its last consolidation, with "(top)" if that was of the top layers, and
    `stored` what dropping a kept generation frees; for the present one, the size of all its objects.
    """
    from conpet.commands.generations import generations as list_generations
    from conpet.store import Store

    store = Store.open(workspace)
    if drop is not None:
        store.pinned_snapshot(drop).close()  # an unknown generation is reported before the question
        confirm(f"Drop generation {drop}? The workspace can then no longer go back to it.", yes)
        with store.write("drop", wait) as writer:
            writer.unpin(drop)
    rows = list_generations(store)
    if as_json:
        print_json([row.to_json() for row in rows])
    else:
        if drop is not None:
            line(f"generation {drop}: dropped")
        _print_generations(rows)


def restore(
    workspace: WorkspacePath,
    generation: Annotated[int, typer.Argument(metavar="GENERATION", help="A generation that is kept.")],
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Make a kept generation the present one again: its tasks, versions, settings and backbone.

    The generation it replaces is kept as well, so you can go forward again.
    """
    from conpet.commands.generations import way_back
    from conpet.report import text

    opened = open_workspace(workspace, backbone, device, to_change=True)
    replaced = opened.store.generation()
    evaluation = run_change("restore", wait, no_evaluate, partial(opened.restore, generation, gate=not no_gate))
    labels, tasks = text.plural(len(opened.labels), "label"), text.plural(len(opened.tasks), "task")
    line(f"{workspace}: as in generation {generation}, with {labels} in {tasks}")
    line(f"to undo this: conpet restore {workspace} {way_back(opened.store, replaced)}", style="dim")
    if evaluation is not None:
        print_accuracy(evaluation, len(opened.labels))


def _print_nothing_new(store: Store, path: Path) -> None:
    from conpet.commands.generations import generations as list_generations
    from conpet.report import text

    line(f"{path}: nothing has changed since the last consolidation; nothing done (--again consolidates again)")
    kept = [row for row in list_generations(store) if not row.present]
    if kept:
        size = text.size(sum(row.bytes for row in kept))
        line(f"{text.plural(len(kept), 'kept generation')}: {size} (`conpet generations {path} --drop N` frees it)")


def _print_generations(rows: list[Generation]) -> None:
    from rich.table import Table

    from conpet.report import text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("generation", "made by", "on", "labels", "consolidated", "accuracy", "stored"):
        table.add_column(name, justify="left" if name in ("generation", "made by", "on") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.number}{' (present)' if row.present else ''}",
            row.verb,
            row.time.isoformat()[:10],
            text.count(row.labels),
            f"{text.plural(row.consolidated, 'task')}{' (top)' if row.layers == 'top' else ''}" if row.layers else "",
            text.percent(row.whole_accuracy),
            text.size(row.bytes),
        )
    output().print(table)
