"""`conpet gate`, `conpet candidates` and `conpet promote`: changes that would make earlier answers worse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import with_wait
from conpet.cli.console import line, output, print_json
from conpet.cli.options import AsJson, BackboneMoved, Device, NoGate, Wait, WorkspacePath, assignments
from conpet.cli.workspace import open_workspace
from conpet.config import GateConfig

if TYPE_CHECKING:
    from rich.table import Table

    from conpet.evaluation.gate import AnswerPair, CandidateRecord, Comparison, GateReport

_SECTION = "gate."
_SHOWN = 20
"""Most rows of a table, unless all are asked for."""

Number = Annotated[
    int | None,
    typer.Argument(metavar="CANDIDATE", help="Number of the candidate.", show_default="the newest"),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the section `gate` for this time only (task_margin=8); may be repeated.",
    ),
]


def gate(
    workspace: WorkspacePath,
    candidate: Number = None,
    settings: Limits = None,
    everything: Annotated[bool, typer.Option("--all", help="List every label and every changed answer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a refused change would do to earlier answers; the exit status is 1 if it is still refused.

    Every change is compared with the present state on held-out (validation) examples. It is refused if an earlier
    label, an earlier task or all earlier labels together get worse by more than the margins in the settings.
    With --set it is judged by other margins.
    """
    from conpet.commands.candidates import newest, report_of
    from conpet.store import Store

    store = Store.open(workspace)
    number = newest(store) if candidate is None else candidate
    report = report_of(store, number, limits(settings))
    if as_json:
        print_json({"candidate": number, **report.to_json()})
    else:
        _print_report(number, report, None if everything else _SHOWN)
    if report.refused:
        raise typer.Exit(1)


def candidates(
    workspace: WorkspacePath,
    discard: Annotated[
        int | None, typer.Option(metavar="CANDIDATE", help="Delete a candidate.", show_default=False)
    ] = None,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """List the changes that were refused because earlier answers would get worse.

    A candidate can be made as long as the workspace has not changed since; then it is outdated, and only this record
    of it is kept for 30 days.
    """
    from conpet.commands import candidates as commands
    from conpet.store import Store

    store = Store.open(workspace)
    if discard is not None:
        commands.discard(store, store.actions, discard, wait_seconds=wait)
    records = store.candidates()
    if as_json:
        print_json([record.to_json() for record in records])
        return
    if discard is not None:
        line(f"candidate {discard}: discarded")
    if records:
        _print_records(records)
    elif discard is None:
        line(f"{workspace} has no candidates: no change was refused")


def promote(
    workspace: WorkspacePath,
    candidate: Number = None,
    settings: Limits = None,
    no_gate: NoGate = False,
    wait: Wait = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Make a change that was refused, by other margins (--set) or whatever it breaks (--no-gate).

    The history records both. Nothing is computed again; the workspace must not have changed since.
    """
    chosen = limits(settings)
    opened = open_workspace(workspace, backbone, device, to_change=True)
    report = with_wait(
        wait,
        lambda seconds: opened.promote(candidate, gate=not no_gate, settings=chosen, wait_seconds=seconds),
    )
    line(f"{workspace}: the change is made ({report.title})")
    line(str(report))


def limits(given: list[str] | None) -> dict[str, Any]:
    """Return the settings of the section `gate` given by `--set`; wrong ones are reported before torch is imported."""
    values = {key.removeprefix(_SECTION): value for key, value in assignments(given or []).items()}
    GateConfig.parse(values)
    return values


def _print_report(number: int, report: GateReport, most: int | None) -> None:
    out = output()
    state = "refused" if report.refused else "would be accepted"
    line(f"candidate {number} ({report.title}, for generation {report.generation}): {state}", out, "bold")
    line(str(report))
    if report.available > report.compared + report.left_out:
        line(f"a sample: the earlier tasks have {report.available:,} held-out examples", out, "dim")
    if report.left_out:
        line(
            f"not compared: {report.left_out:,} examples that the other version was trained on or labels differently",
            out,
            "dim",
        )
    if (needed := _needed(report)) is not None:
        line(needed, out, "dim")
    ordered = [*report.broken, *(one for one in report.comparisons if one not in report.broken)]
    shown = ordered if most is None else [one for one in ordered if one.lost or one.gained][:most]
    if shown:
        out.print(_comparisons(shown))
    if report.changed:
        pairs = sorted(report.changed, key=lambda pair: not pair.lost)
        out.print(_answers(pairs[:most]))
        if most is not None and len(pairs) > most:
            line(f"and {len(pairs) - most:,} more changed answers (--all lists them)", out, "dim")


def _needed(report: GateReport) -> str | None:
    """Return how many held-out examples would show what is not proven, or None if all is."""
    names = {"label": "a label", "task": "a task", "whole": "all labels together"}
    parts = []
    for level, number in report.needed.items():
        few = [one.n for one in report.not_proven if one.level is level]
        if few and number is not None:
            fewest = f" (there are {min(few):,})" if len(few) == 1 else f" (the fewest is {min(few):,})"
            parts.append(f"{names[str(level)]} {number:,}{fewest}")
    if not parts:
        return None
    return f"validation examples needed at least to show that nothing falls: {', '.join(parts)}"


def _table(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        numeric = name in ("examples", "before", "after", "fall", "p", "candidate", "stored")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
    return table


def _comparisons(found: Iterable[Comparison]) -> Table:
    from rich.text import Text

    table = _table("", "examples", "before", "after", "fall", "p", "", "lost to")
    for one in found:
        takers = ", ".join(f"{taker.label}{' (new)' if taker.new else ''} {taker.count}" for taker in one.takers[:3])
        table.add_row(
            Text(one.shown),
            f"{one.n:,}",
            f"{one.right_before:,}",
            f"{one.right_after:,}",
            f"{one.fall:z.1f}",
            "" if one.p is None else f"{one.p:.2g}",
            str(one.verdict),
            Text(takers),
        )
    return table


def _answers(pairs: Iterable[AnswerPair]) -> Table:
    from rich.text import Text

    from conpet.report import text

    table = _table("changed answers", "label", "before", "after")
    for pair in pairs:
        asked = pair.before.input or f"validation example {pair.before.row} of {pair.before.task}"
        answers = [f"{one.answer} {one.score:.2f}" for one in (pair.before, pair.after)]
        table.add_row(*(Text(cell) for cell in (text.shorten(asked, 50), pair.before.label, *answers)))
    return table


def _print_records(records: Iterable[CandidateRecord]) -> None:
    from conpet.report import text

    table = _table("candidate", "change", "made on", "for generation", "stored", "")
    for record in records:
        table.add_row(
            str(record.number),
            record.verb,
            record.created.isoformat()[:16].replace("T", " "),
            str(record.generation),
            "" if record.outdated else text.size(record.bytes),
            "outdated" if record.outdated else "",
        )
    output().print(table)
