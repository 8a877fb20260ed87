"""The result of a check of data for a terminal, as rich tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from conpet.report import text
from conpet.report.data_check import DataCheckReport, FoundRow, Place, Severity

FIRST = 3
"""Findings of each kind that are shown unless all are wanted."""
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_TEXT = 100


def counts_table(report: DataCheckReport) -> Table:
    """Return the number of findings of each kind, and how many of them the fix mends."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("found")
    for name in ("rows", "by the fix"):
        table.add_column(name, justify="right", no_wrap=True)
    counts = report.counts
    for kind in report.kinds:
        fixed = sum(finding.fix is not None for finding in report.of(kind.code))
        style = _STYLES[kind.severity]
        table.add_row(Text(kind.severity, style), kind.title, f"{counts[kind.code]:,}", f"{fixed:,}" if fixed else "")
    return table


def finding_lines(report: DataCheckReport, *, everything: bool = False) -> Iterator[tuple[str, str]]:
    """Yield lines that list the findings, each with its style: the first ones of each kind, or all."""
    for kind in report.kinds:
        findings = report.of(kind.code)
        yield f"{kind.title} ({len(findings):,}): {kind.meaning}", "bold"
        shown = findings if everything else findings[:FIRST]
        for finding in shown:
            yield from _lines(finding)
        if len(shown) < len(findings):
            yield f"  ... and {len(findings) - len(shown):,} more (--verbose lists all)", "dim"


def _lines(finding: FoundRow) -> Iterator[tuple[str, str]]:
    fix = f" [{finding.fix}]" if finding.fix else ""
    yield f"  {text.with_short_labels(f'{finding}{fix}')}", ""
    for place in (finding.place, finding.other):
        if place is not None and place.text is not None:
            yield f"    {_quoted(place)}", "dim"


def _quoted(place: Place) -> str:
    label = f"  {text.label(place.label)}" if place.label else ""
    return f"{text.shorten(place.text or '', _TEXT)!r}{label}"
