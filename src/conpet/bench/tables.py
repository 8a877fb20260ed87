"""Tables of results, formatted as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

from conpet.bench.groups import Entry, Group
from conpet.bench.measures import Measure
from conpet.bench.statistics import Summary
from conpet.config.base import flat
from conpet.errors import ConfigError
from conpet.report.text import NONE, plural


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the measures of a learner.

    Attributes:
        names: One for each of the table's `heads`.
        n: Number of orders.
        cells: One for each column; None if not measured.
    """

    names: tuple[str, ...]
    n: int
    cells: tuple[Summary | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of learners by measures, for one protocol.

    Attributes:
        title: Its title.
        about: Common values of all rows by name, for the CSV.
        notes: Sentences that explain it.
        heads: Headings of the names of a row, at least "learner".
        columns: The measures.
        rows: The rows, in the order of the experiment.
        marks_best: Whether to mark the best value of a column, because all rows have the same protocol.
    """

    title: str
    about: Mapping[str, str]
    notes: tuple[str, ...]
    heads: tuple[str, ...]
    columns: tuple[Measure, ...]
    rows: tuple[Row, ...]
    marks_best: bool = True

    @property
    def tells_orders(self) -> bool:
        """Whether to show the number of orders, because it differs between rows."""
        return len({row.n for row in self.rows}) > 1


def build_table(group: Group, columns: Sequence[Measure]) -> Table:
    """Build the table of a group; columns without values are left out and noted.

    Raises:
        ConfigError: SciPy is not installed.
    """
    shown = [measure for measure in columns if any(entry.values(measure) for entry in group.entries)]
    optional_heads = {"learner": True, "variant": group.of_variants, "source": group.of_sources}
    heads = tuple(head for head, needed in optional_heads.items() if needed)
    rows = []
    for entry in group.entries:
        names = {"learner": entry.learner, "variant": entry.variant, "source": group.short[entry.source]}
        cells = tuple(entry.summary(measure) for measure in shown)
        rows.append(Row(tuple(names[head] or NONE for head in heads), entry.orders, cells))
    about = {"experiment": group.experiment, "data": group.data, "variant": group.apart}
    return Table(group.title, about, tuple(_notes(group, columns)), heads, tuple(shown), tuple(rows), not group.varied)


def _notes(group: Group, columns: Sequence[Measure]) -> Iterable[str]:
    interval = " ± half-width of the 95% t-interval" if group.has_intervals else ""
    yield f"Mean{interval} over {group.repeated}{'; ' if group.caveat else ''}{group.caveat}."
    if group.has_intervals:
        yield "Intervals cover the variation over orders and seeds, not over the choice of examples."
    yield f"Protocol: {group.conditions}."
    if group.varied:
        yield f"The protocol differs between variants: {', '.join(group.varied)}."
    if group.dropped:
        yield "Only orders and seeds common to all rows."
    measured = [column for column in columns if any(entry.values(column) for entry in group.entries)]
    if missing := [column.title for column in columns if column not in measured]:
        yield f"Not measured: {', '.join(missing)}."
    if any(column.is_cost for column in measured) and (machines := _machines(group)):
        yield (
            "Times were measured on different machines or with different numbers of threads, so they are not "
            f"comparable: {'; '.join(machines)}."
        )
    if key := [f"{name} is {source}" for source, name in group.short.items() if name != source]:
        yield f"Sources: {'; '.join(key)}."
    yield from _other_settings(group)


def _machines(group: Group) -> list[str]:
    """Return the machines of the runs, if they differ."""
    sources: dict[str, list[str]] = {}
    for entry in group.entries:
        for result in entry.results.values():
            sources.setdefault(_machine(result.made_by), []).append(entry.source)
    if len(sources) == 1:
        return []
    return [
        machine + (f" ({', '.join(group.short[name] for name in dict.fromkeys(names))})" if group.of_sources else "")
        for machine, names in sources.items()
    ]


def _machine(made_by: Mapping[str, Any]) -> str:
    machine = made_by.get("machine", {})
    threads = f", {plural(made_by['threads'], 'thread')} a run" if "threads" in made_by else ""
    return f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores{threads}"


def _other_settings(group: Group) -> Iterable[str]:
    """Yield notes on learners whose settings differ between sources."""
    first: dict[tuple[str, str], Entry] = {}
    for entry in group.entries:
        other = first.setdefault((entry.learner, entry.variant), entry)
        ours, theirs = (_settings(compared) for compared in (other, entry))
        changed = [
            f"{name} {ours[name]} in {group.short[other.source]}, {theirs[name]} in {group.short[entry.source]}"
            for name in ours
            if name in theirs and ours[name] != theirs[name]  # an older file may lack a setting
        ]
        if changed:
            yield f"Settings of {entry.learner} differ: {'; '.join(changed)}."


def _settings(entry: Entry) -> dict[str, Any]:
    """Return the settings of an entry by dotted names, without the seed, which follows from order and seed."""
    settings = flat(next(iter(entry.results.values())).settings)
    settings.pop("seed", None)
    return settings


def shown(value: float, measure: Measure) -> str:
    """Format a value: accuracies in percent with one decimal, others with three digits."""
    scaled = value * measure.scale
    return _signed(scaled, 1 if measure.is_fraction else _decimals(scaled))


def shown_cell(cell: Summary | None, measure: Measure) -> str:
    """Format a mean with half the width of its interval: "93.5 ± 0.7"."""
    if cell is None:
        return NONE
    if cell.half_width is None:
        return shown(cell.mean, measure)
    mean, half = cell.mean * measure.scale, cell.half_width * measure.scale
    decimals = 1 if measure.is_fraction else _decimals(mean)
    return f"{_signed(mean, decimals)} ± {_signed(half, decimals)}"


def _decimals(value: float) -> int:
    """Return the number of decimals that shows at least three digits."""
    return min(max(2 - floor(log10(abs(value))), 0), 6) if value else 0


def _signed(value: float, decimals: int) -> str:
    text = f"{round(value, decimals) + 0.0:,.{decimals}f}"  # adding 0.0 makes -0.0 positive
    return text.replace("-", "−")


def markdown(tables: Sequence[Table]) -> str:
    """Format tables as Markdown, with titles and notes."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def _markdown(table: Table) -> str:
    counted = ["orders"] if table.tells_orders else []
    numbers = [*counted, *(column.heading for column in table.columns)]
    lines = [
        [
            *row.names,
            *([str(row.n)] if counted else []),
            *(_with_n(row, cell, measure) for cell, measure in zip(row.cells, table.columns, strict=True)),
        ]
        for row in table.rows
    ]
    return markdown_table(table.title, table.heads, numbers, lines, table.notes)


def markdown_table(
    title: str, names: Sequence[str], numbers: Sequence[str], lines: Iterable[Sequence[str]], notes: Iterable[str]
) -> str:
    """Format a table as Markdown: columns of names, then right-aligned numbers."""
    head = [*names, *numbers]
    marks = ["---"] * len(names) + ["--:"] * len(numbers)
    body = [_line(map(_escaped, head)), _line(marks), *(_line(map(_escaped, line)) for line in lines)]
    return "\n".join([f"**{_escaped(title)}**", "", *body, "", _escaped(" ".join(notes))])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Escape Markdown in a name, as in emr*."""
    return re.sub(r"([|*`\\]|<(?=[\w/])|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _with_n(row: Row, cell: Summary | None, measure: Measure) -> str:
    """Format a cell, with the number of orders if it differs from that of the row."""
    text = shown_cell(cell, measure)
    return text if cell is None or cell.n == row.n else f"{text} (n = {cell.n})"


def as_csv(tables: Sequence[Table]) -> str:
    """Format tables as one CSV: a line for each row and measure, with unscaled values."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = list(dict.fromkeys(name for table in tables for name in (*table.about, *table.heads)))
    writer.writerow([*names, "metric", "mean", "deviation", "interval_95", "n"])
    for table in tables:
        for row in table.rows:
            about = {**table.about, **dict(zip(table.heads, row.names, strict=True))}
            for cell, column in zip(row.cells, table.columns, strict=True):
                if cell is not None:
                    numbers = [cell.mean, _or_empty(cell.deviation), _or_empty(cell.half_width), cell.n]
                    writer.writerow([*(about.get(name, "") for name in names), column.name, *numbers])
    return buffer.getvalue()


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def latex(tables: Sequence[Table]) -> str:
    """Format tables as LaTeX with booktabs, with the best mean of every column in bold."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    counted = ["orders"] if table.tells_orders else []
    head = [*table.heads, *counted, *(column.heading for column in table.columns)]
    best = [_best(table, place) for place in range(len(table.columns))]
    lines = []
    for row in table.rows:
        cells = [
            _bold(_with_n(row, cell, measure), cell, measure, top)
            for cell, measure, top in zip(row.cells, table.columns, best, strict=True)
        ]
        lines.append(" & ".join([*map(escape_latex, row.names), *([str(row.n)] if counted else []), *cells]) + r" \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title + '. ' + ' '.join(table.notes))}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.heads)}{'r' * (len(head) - len(table.heads))}}}",
            r"\toprule",
            " & ".join(map(escape_latex, head)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _best(table: Table, place: int) -> str | None:
    """Return the best mean of a column as formatted, so that equal-looking means are treated equally."""
    means = [cell.mean for row in table.rows if (cell := row.cells[place])]
    if len(means) < 2 or not table.marks_best:
        return None
    column = table.columns[place]
    return shown(min(means) if column.lower_is_better else max(means), column)


def _bold(text: str, cell: Summary | None, measure: Measure, best: str | None) -> str:
    plain = escape_latex(text)
    if cell is None or shown(cell.mean, measure) != best:
        return plain
    mean, pm, rest = plain.partition(r" $\pm$ ")
    return rf"\textbf{{{mean}}}{pm}{rest}"


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "−": r"$-$", NONE: "--",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


FORMATS: Mapping[str, Callable[[Sequence[Table]], str]] = {"markdown": markdown, "csv": as_csv, "latex": latex}
"""Table formats by name."""


def write_tables(tables: Sequence[Table], form: str) -> str:
    """Format tables in one of `FORMATS`.

    Raises:
        ConfigError: The format is unknown.
    """
    if form not in FORMATS:
        raise ConfigError(f"no format {form!r}; available: {', '.join(FORMATS)}")
    return FORMATS[form](tables)
