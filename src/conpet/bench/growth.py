"""Plots of cost as the stream grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from conpet.bench.drawing import Look, sheets
from conpet.bench.groups import Entry, Group
from conpet.bench.label_placement import task_ticks
from conpet.bench.results import Result, TaskCost
from conpet.bench.statistics import FEWEST, Line, fit_line, mean_line
from conpet.errors import ConfigError
from conpet.report import svg
from conpet.report.text import plural

_MOST_POINTS = 100  # per line and panel; more are indistinguishable and make a large file
_TURN = 4  # length of a dash where lines overlap and take turns, in line widths


@dataclass(frozen=True, slots=True)
class _Panel:
    """A cost to plot over the stream."""

    title: str
    unit: str
    scale: float
    value: Callable[[TaskCost], float | None]


_PANELS = (
    _Panel("CPU time of a task", "s", 1, lambda cost: cost.cpu_seconds),
    _Panel("on disk afterwards", "MB", 1e-6, lambda cost: cost.bytes_on_disk),
    _Panel("CPU time of a prediction", "ms", 1e3, lambda cost: cost.predict_seconds),
)


@dataclass(frozen=True, slots=True)
class _Curve:
    """A cost of an entry over the stream.

    Attributes:
        name: Name of the entry.
        look: Its line style.
        orders: For each order, the cost by task number.
        line: The mean of the lines through the orders; None if there are too few points.
    """

    name: str
    look: Look
    orders: Sequence[Mapping[int, float]]
    line: Line | None

    @property
    def values(self) -> list[float]:
        """All costs plotted."""
        return [value for costs in map(_thinned, self.orders) for value in costs.values()]

    @property
    def ends(self) -> tuple[int, int]:
        """First and last task."""
        return min(map(min, self.orders)), max(map(max, self.orders))

    @property
    def heights(self) -> list[float]:
        """Values of the line at its ends, if there is one."""
        return [self.line.at(end) for end in self.ends] if self.line else []


def draw_growth(group: Group, entries: Sequence[Entry], _: str) -> Figure:
    """Plot the cost of every task, with a fitted line for each entry.

    Raises:
        ConfigError: No run has the costs of several tasks, or SciPy is not installed.
    """
    panels = [(panel, _growing(group, entries, panel)) for panel in _PANELS]
    measured = [(panel, curves) for panel, curves in panels if any(curve.line for curve in curves)]
    if not measured:
        raise ConfigError(
            f"{group.title}: no run measured the cost of several tasks; run an experiment with more tasks"
        )
    high = max(2.3, 0.36 * len(entries) + 0.3)
    last = max(len(result.tasks) for result in group.results)
    figure, all_axes = sheets(group, entries, "cost as the stream grows", _slopes(entries), [high] * len(measured))
    for axes, (panel, curves) in zip(all_axes, measured, strict=True):
        _draw_panel(axes, panel, curves, last)
        axes.set_ylabel(f"{panel.title} ({panel.unit})")
        axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
        axes.xaxis.set_major_locator(task_ticks(last))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=svg.FONT_SIZE)
    all_axes[-1].set_xlabel("number of the task in the stream")
    return figure


def _slopes(entries: Sequence[Entry]) -> str:
    """Describe the lines and the intervals of their slopes, for the caption."""
    over = []
    if any(entry.orders >= FEWEST for entry in entries):
        over.append("orders")
    if any(entry.orders == 1 for entry in entries):
        single = " of a single order" if any(entry.orders > 1 for entry in entries) else ""
        over.append(f"tasks{single}, assumed independent")
    intervals = f"; slopes ± half-width of the 95% interval over {' or '.join(over)}" if over else ""
    most = max(len(result.tasks) for entry in entries for result in entry.results.values())
    points = f"points: medians of {ceil(most / _MOST_POINTS)} tasks each; " if most > _MOST_POINTS else ""
    return f"{points}lines: least squares, dashed in turns where they overlap{intervals}"


def _growing(group: Group, entries: Sequence[Entry], panel: _Panel) -> list[_Curve]:
    curves = []
    for entry in entries:
        if orders := _points(entry, panel):
            lines = [line for costs in orders if (line := fit_line(list(costs), list(costs.values()))) is not None]
            line = mean_line(lines) if lines else None
            curves.append(_Curve(group.label(entry), Look.of(group, entry), orders, line))
    return curves


def _draw_panel(axes: Any, panel: _Panel, curves: Sequence[_Curve], last: int) -> None:
    """Plot one cost, scaled to all lines. A point without a line may be above; its label gives the value."""
    lines = [curve for curve in curves if curve.line]
    top = 1.06 * max(max(*curve.values, *curve.heights) for curve in lines)
    dashes = _dashes(lines, 0.012 * top)
    for curve in curves:
        dash = dashes.get(curve.name)
        many = sum(map(len, curve.orders)) > 60
        for costs in map(_thinned, curve.orders):
            axes.plot(
                list(costs), list(costs.values()), curve.look.marker, color=curve.look.colour,
                markersize=2 if many else 4, alpha=0.35 if many else 0.7, markeredgewidth=0, zorder=2,
            )  # fmt: skip
        if curve.line:
            axes.plot(curve.ends, curve.heights, color=curve.look.colour, linestyle=dash, zorder=3)
            label = f"{curve.name}\n{_slope(curve.line, panel.unit, last)}"
        else:
            value = float(np.mean(curve.values))
            shown = f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
            label = f"{curve.name}\n{shown} {panel.unit} at task {curve.ends[1]} alone"
        drawn = {"linestyle": curve.look.dash if curve.line else "", "marker": curve.look.marker, "markersize": 4}
        axes.plot([], [], color=curve.look.colour, label=label, **drawn)
    axes.set_ylim(0, top or 1)


def _thinned(costs: Mapping[int, float]) -> Mapping[int, float]:
    """Return medians over blocks of consecutive tasks, at most `_MOST_POINTS`."""
    each = ceil(len(costs) / _MOST_POINTS)
    tasks = list(costs)
    parts = [tasks[start : start + each] for start in range(0, len(tasks), each)]
    return {part[len(part) // 2]: median(costs[task] for task in part) for part in parts}


def _dashes(lines: Sequence[_Curve], near: float) -> dict[str, Any]:
    """Return the dash pattern of each line; overlapping lines take turns, so that all are visible."""
    bundles: list[list[_Curve]] = []
    for line in lines:
        for bundle in bundles:
            first = bundle[0]
            distance = max(abs(ours - theirs) for ours, theirs in zip(line.heights, first.heights, strict=True))
            if line.ends == first.ends and distance < near:
                bundle.append(line)
                break
        else:
            bundles.append([line])
    dashes: dict[str, Any] = {}
    for bundle in bundles:
        rest = _TURN * (len(bundle) - 1)
        for turn, line in enumerate(bundle):
            dashes[line.name] = (rest - turn * _TURN + _TURN, (_TURN, rest)) if rest else line.look.dash
    return dashes


def _points(entry: Entry, panel: _Panel) -> list[Mapping[int, float]]:
    """Return for each order the cost by task number, averaged over seeds."""
    orders: dict[int, dict[int, list[float]]] = {}
    for (order, _), result in sorted(entry.results.items()):
        for number, value in _costs(result, panel):
            orders.setdefault(order, {}).setdefault(number, []).append(value)
    return [{number: float(np.mean(values)) for number, values in costs.items()} for costs in orders.values()]


def _costs(result: Result, panel: _Panel) -> Iterator[tuple[int, float]]:
    for number, cost in enumerate(result.costs, start=1):
        value = panel.value(cost) if cost is not None else None
        if value is not None and isfinite(value):
            yield number, value * panel.scale


def _slope(line: Line, unit: str, last: int) -> str:
    """Format a slope per power of ten of tasks (at most a tenth of the stream), rounded to its interval."""
    per = max(1, 10 ** (len(str(last)) - 2))
    slope, half = per * line.slope, per * (line.half_width or 0.0)
    noise = max(half, 0.1 * abs(slope))
    decimals = min(max(1 - floor(log10(noise)), 0), 6) if noise else 0
    width = "" if line.half_width is None else f" ± {half:.{decimals}f}"
    return f"{slope:+.{decimals}f}{width} {unit} per {plural(per, 'task').removeprefix('1 ')}".replace("-", "−")
