"""Drawings of cost as the stream grows."""

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

_MOST_POINTS = 100  # of a line in a panel: more are too many to be told apart, and make a large file
_TURN = 4  # widths of a line that each of several lines on each other is seen for in turn


@dataclass(frozen=True, slots=True)
class _Panel:
    """One cost that may grow with the stream."""

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
class _Course:
    """One cost of an entry over the stream.

    Attributes:
        name: The entry's.
        look: How it is drawn.
        orders: For each order, number of a task to the cost.
        line: The mean of the lines through the orders; None where there are too few points for one.
    """

    name: str
    look: Look
    orders: Sequence[Mapping[int, float]]
    line: Line | None

    @property
    def values(self) -> list[float]:
        """All costs that are drawn."""
        return [value for found in map(_thinned, self.orders) for value in found.values()]

    @property
    def ends(self) -> tuple[int, int]:
        """First and last task."""
        return min(map(min, self.orders)), max(map(max, self.orders))

    @property
    def heights(self) -> list[float]:
        """Of the line at its ends, if there is one."""
        return [self.line.at(end) for end in self.ends] if self.line else []


def draw_growth(group: Group, entries: Sequence[Entry], _: str) -> Figure:
    """Draw what every task cost, with a line for each entry.

    Raises:
        ConfigError: No run measured the cost of several tasks, or SciPy is not installed.
    """
    found = [(panel, _growing(group, entries, panel)) for panel in _PANELS]
    measured = [(panel, courses) for panel, courses in found if any(course.line for course in courses)]
    if not measured:
        raise ConfigError(f"{group.title}: no run measured the cost of several tasks")
    high = max(2.3, 0.36 * len(entries) + 0.3)
    last = max(len(result.tasks) for result in group.results)
    figure, all_axes = sheets(group, entries, "cost as the stream grows", _slopes(entries), [high] * len(measured))
    for axes, (panel, courses) in zip(all_axes, measured, strict=True):
        _draw_panel(axes, panel, courses, last)
        axes.set_ylabel(f"{panel.title} ({panel.unit})")
        axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
        axes.xaxis.set_major_locator(task_ticks(last))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=svg.FONT_SIZE)
    all_axes[-1].set_xlabel("number of the task in the stream")
    return figure


def _slopes(entries: Sequence[Entry]) -> str:
    """Say what the lines are, and what the intervals of their slopes are over."""
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


def _growing(group: Group, entries: Sequence[Entry], panel: _Panel) -> list[_Course]:
    courses = []
    for entry in entries:
        if orders := _points(entry, panel):
            lines = [line for found in orders if (line := fit_line(list(found), list(found.values()))) is not None]
            line = mean_line(lines) if lines else None
            courses.append(_Course(group.label(entry), Look.of(group, entry), orders, line))
    return courses


def _draw_panel(axes: Any, panel: _Panel, courses: Sequence[_Course], last: int) -> None:
    """Draw one cost, high enough for all lines; a point without a line may lie above, its label has the value."""
    lines = [course for course in courses if course.line]
    top = 1.06 * max(max(*course.values, *course.heights) for course in lines)
    dashes = _dashes(lines, 0.012 * top)
    for course in courses:
        dash = dashes.get(course.name)
        many = sum(map(len, course.orders)) > 60
        for found in map(_thinned, course.orders):
            axes.plot(
                list(found), list(found.values()), course.look.marker, color=course.look.colour,
                markersize=2 if many else 4, alpha=0.35 if many else 0.7, markeredgewidth=0, zorder=2,
            )  # fmt: skip
        if course.line:
            axes.plot(course.ends, course.heights, color=course.look.colour, linestyle=dash, zorder=3)
            label = f"{course.name}\n{_slope(course.line, panel.unit, last)}"
        else:
            value = float(np.mean(course.values))
            shown = f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
            label = f"{course.name}\n{shown} {panel.unit} at task {course.ends[1]} alone"
        drawn = {"linestyle": course.look.dash if course.line else "", "marker": course.look.marker, "markersize": 4}
        axes.plot([], [], color=course.look.colour, label=label, **drawn)
    axes.set_ylim(0, top or 1)


def _thinned(found: Mapping[int, float]) -> Mapping[int, float]:
    """Return the medians of so many consecutive tasks each that few enough points are left."""
    each = ceil(len(found) / _MOST_POINTS)
    tasks = list(found)
    parts = [tasks[start : start + each] for start in range(0, len(tasks), each)]
    return {part[len(part) // 2]: median(found[task] for task in part) for part in parts}


def _dashes(lines: Sequence[_Course], near: float) -> dict[str, Any]:
    """Return name to dashes: those of its look, but lines on each other take turns, so that all are seen."""
    bundles: list[list[_Course]] = []
    for line in lines:
        for bundle in bundles:
            first = bundle[0]
            apart = max(abs(ours - theirs) for ours, theirs in zip(line.heights, first.heights, strict=True))
            if line.ends == first.ends and apart < near:
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
    """Return for each order the number of a task to its cost, averaged over seeds."""
    orders: dict[int, dict[int, list[float]]] = {}
    for (order, _), result in sorted(entry.results.items()):
        for number, value in _costs(result, panel):
            orders.setdefault(order, {}).setdefault(number, []).append(value)
    return [{number: float(np.mean(values)) for number, values in found.items()} for found in orders.values()]


def _costs(result: Result, panel: _Panel) -> Iterator[tuple[int, float]]:
    for number, cost in enumerate(result.costs, start=1):
        value = panel.value(cost) if cost is not None else None
        if value is not None and isfinite(value):
            yield number, value * panel.scale


def _slope(line: Line, unit: str, last: int) -> str:
    """Write a slope for a power of ten tasks, a tenth of the stream at most, as exactly as its interval allows."""
    per = max(1, 10 ** (len(str(last)) - 2))
    slope, half = per * line.slope, per * (line.half_width or 0.0)
    noise = max(half, 0.1 * abs(slope))
    decimals = min(max(1 - floor(log10(noise)), 0), 6) if noise else 0
    width = "" if line.half_width is None else f" ± {half:.{decimals}f}"
    return f"{slope:+.{decimals}f}{width} {unit} per {plural(per, 'task').removeprefix('1 ')}".replace("-", "−")
