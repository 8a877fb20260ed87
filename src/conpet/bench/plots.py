"""Drawings of results: accuracy over the stream, accuracy against cost, cost as the stream grows."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor, isfinite, log10
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from conpet.bench.grouping import Entry, Group
from conpet.bench.measures import measures
from conpet.bench.placing import Named, label_ends, label_points
from conpet.bench.results import Result, TaskCost
from conpet.bench.statistics import Line, Summary, by_order, fit_line, mean_line, summarise
from conpet.errors import ConfigError
from conpet.report import svg
from conpet.report.text import plural

MOST_SHOWN = 12
"""Of more learners, those with the best accuracy in the end are drawn, unless learners are named."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")  # Okabe and Ito's
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_MARKERS = "osD^vPX"
_INK, _MUTED, _GRID = "#1b1f24", "#59636e", "#e3e6ea"
_WIDE, _HIGH = 8.0, 4.4  # inches
_CAPTION = 125  # characters of a line under a plot


@dataclass(frozen=True, slots=True)
class _Look:
    """How one entry is drawn: no two of a plot are alike."""

    colour: str
    dash: Any
    marker: str

    @classmethod
    def of(cls, number: int) -> _Look:
        round_, place = divmod(number, len(_COLOURS))
        return cls(_COLOURS[place], _DASHES[round_ % len(_DASHES)], _MARKERS[(place + round_) % len(_MARKERS)])


def draw(kind: str, group: Group, *, cost: str = "cpu_seconds_per_task", everyone: bool = False) -> Figure:
    """Draw the results of a group.

    Args:
        kind: One of `KINDS`.
        group: The results.
        cost: Name of the measure on the horizontal axis of "cost".
        everyone: Whether more than `MOST_SHOWN` learners are drawn.

    Raises:
        ConfigError: There is no such kind, nothing to be drawn was measured, or SciPy is not installed.
        UnknownNameError: There is no such cost.
    """
    if kind not in KINDS:
        raise ConfigError(f"no plot of kind {kind!r}; have: {', '.join(KINDS)}")
    entries = list(group.entries) if everyone else _best(group)
    with _style():
        return KINDS[kind](group, entries, cost)


def save(figure: Figure, path: Path) -> None:
    """Write a drawing as SVG or PNG, by the ending of the file.

    Raises:
        ConfigError: It has another ending.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"{path}: a plot is written as .svg or .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    date = {"Date": None} if path.suffix.lower() == ".svg" else {}  # the same results make the same file
    with _style():
        figure.savefig(path, dpi=160, bbox_inches="tight", pad_inches=0.12, facecolor="white", metadata=date)


@contextmanager
def _style() -> Iterator[None]:
    """Hold Matplotlib to the settings below, whatever the process has set; names are no mathematics."""
    with svg.style("bench"), rc_context({"text.parse_math": False, "text.color": _INK, "axes.labelcolor": _INK}):
        yield


def _best(group: Group) -> list[Entry]:
    if len(group.entries) <= MOST_SHOWN:
        return list(group.entries)
    accuracy = measures(["whole_accuracy"], group.results)[0]
    found = {number: entry.summary(accuracy) for number, entry in enumerate(group.entries)}
    means = {number: summary.mean for number, summary in found.items() if summary}
    kept = set(sorted(means, key=means.__getitem__, reverse=True)[:MOST_SHOWN])
    return [entry for number, entry in enumerate(group.entries) if number in kept]


def _draw_accuracy(group: Group, entries: Sequence[Entry], _: str) -> Figure:
    figure, axes = _sheet(group, entries, "whole accuracy after each task", "bands: 95% Student intervals of the mean")
    alpha = 0.15 if len(entries) <= 6 else 0.07
    ends: list[Named] = []
    for number, entry in enumerate(entries):
        look, course = _Look.of(number), _course(entry)
        if not course:
            continue
        places = np.array(list(course))
        means = 100 * np.array([summary.mean for summary in course.values()])
        halves = 100 * np.array([summary.half_width or 0.0 for summary in course.values()])
        _draw_course(axes, places, means, halves, look, alpha, group.label(entry))
        ends.append(Named(float(places[-1]), float(means[-1]), group.label(entry), look.colour))
    if not ends:
        raise ConfigError(f"{group.title}: no run was evaluated after any task")
    last = max(len(result.tasks) for result in group.results)
    axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
    _fit_heights(axes)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("whole accuracy (%)")
    label_ends(axes, ends)
    return figure


def _course(entry: Entry) -> dict[int, Summary]:
    """Return number of tasks learned to whole accuracy then, where it was measured."""
    found: dict[int, dict[tuple[int, int], float]] = {}
    for key, result in entry.results.items():
        for number, row in enumerate(result.matrix, start=1):
            total = sum(total for _, total in row.values()) if row else 0
            if row and total:
                found.setdefault(number, {})[key] = sum(right for right, _ in row.values()) / total
    return {number: summarise(list(by_order(found[number]).values())) for number in sorted(found)}


def _draw_course(axes: Any, places: Any, means: Any, halves: Any, look: _Look, alpha: float, label: str) -> None:
    """Draw a line with its band, or one point with its bar where accuracy was measured once."""
    once = len(places) == 1
    axes.plot(
        places,
        means,
        color=look.colour,
        linestyle=look.dash,
        linewidth=1.7,
        marker=look.marker if len(places) <= 25 else "",
        markersize=6 if once else 3.5,
        label=label,
        zorder=3,
    )
    if once:
        axes.errorbar(places, means, halves, color=look.colour, linewidth=1.2, capsize=3, zorder=3)
    else:
        axes.fill_between(places, means - halves, means + halves, color=look.colour, alpha=alpha, linewidth=0, zorder=2)


def _fit_heights(axes: Any) -> None:
    """Show all that is drawn, within 0 and 100."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 101))


def _draw_cost(group: Group, entries: Sequence[Entry], cost: str) -> Figure:
    accuracy, price = measures(["whole_accuracy", cost], group.results)
    figure, axes = _sheet(
        group, entries, f"whole accuracy against {price.title}", "bars: 95% Student intervals of the means"
    )
    points: list[Named] = []
    bars: list[tuple[float, float, float, float]] = []
    for number, entry in enumerate(entries):
        across, up = entry.summary(price), entry.summary(accuracy)
        if across is None or up is None:
            continue
        look = _Look.of(number)
        x, y = across.mean * price.scale, 100 * up.mean
        half_x, half_y = (across.half_width or 0) * price.scale, 100 * (up.half_width or 0)
        axes.errorbar(x, y, half_y, half_x, color=look.colour, linewidth=0.9, alpha=0.6, zorder=2)
        axes.plot(x, y, look.marker, color=look.colour, markersize=7, label=group.label(entry), zorder=3)
        points.append(Named(x, y, group.label(entry), look.colour))
        bars += [(x - half_x, y, x + half_x, y), (x, y - half_y, x, y + half_y)]
    if not points:
        raise ConfigError(f"{group.title}: no run measured both whole accuracy and {price.title}")
    _scale(axes, [point.x for point in points])
    _fit_heights(axes)
    axes.set_xlabel(price.heading)
    axes.set_ylabel("whole accuracy (%)")
    label_points(figure, axes, points, bars)
    return figure


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic, unless there is a cost of nothing."""
    low, high = min(values), max(values)
    if low <= 0:
        return
    axes.set_xscale("log")
    room = max((high / low) ** 0.12, 1.3)
    axes.set_xlim(low / room, high * room)
    decades = np.log10(high * room / (low / room))
    ticks = (1.0,) if decades > 4 else (1.0, 3.0) if decades > 2.5 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


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


def _draw_growth(group: Group, entries: Sequence[Entry], _: str) -> Figure:
    measured = [
        (panel, found)
        for panel in _PANELS
        if (found := {number: points for number, entry in enumerate(entries) if (points := _points(entry, panel))})
        and any(len(points) > 1 for orders in found.values() for points in orders)  # else there is no growth to see
    ]
    if not measured:
        raise ConfigError(f"{group.title}: no run measured the cost of several tasks")
    over = "orders" if group.most_orders > 1 else "tasks, taken for independent"
    how = f"lines: least squares; slopes ± half the width of their 95% interval over {over}"
    high = max(2.3, 0.36 * len(entries) + 0.3)
    last = max(len(result.tasks) for result in group.results)
    figure, all_axes = _sheets(group, entries, "cost as the stream grows", how, [high] * len(measured))
    for axes, (panel, found) in zip(all_axes, measured, strict=True):
        for number, orders in found.items():
            _draw_points(axes, orders, panel, _Look.of(number), group.label(entries[number]), last)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{panel.title} ({panel.unit})")
        axes.set_xlim(0, last + 0.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=svg.FONT_SIZE)
    all_axes[-1].set_xlabel("number of the task in the stream")
    return figure


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


def _draw_points(
    axes: Any, orders: Sequence[Mapping[int, float]], panel: _Panel, look: _Look, name: str, last: int
) -> None:
    lines = [line for found in orders if (line := fit_line(list(found), list(found.values()))) is not None]
    many = sum(map(len, orders)) > 60
    for found in orders:
        axes.plot(
            list(found), list(found.values()), look.marker, color=look.colour, markersize=2 if many else 4,
            alpha=0.35 if many else 0.7, markeredgewidth=0, zorder=2,
        )  # fmt: skip
    if not lines:
        axes.plot([], [], look.marker, color=look.colour, label=name)
        return
    line = mean_line(lines)
    ends = np.array([min(map(min, orders)), max(map(max, orders))])
    label = f"{name}\n{_slope(line, panel.unit, last)}"
    axes.plot(ends, line.intercept + line.slope * ends, color=look.colour, linestyle=look.dash, label=label, zorder=3)


def _slope(line: Line, unit: str, last: int) -> str:
    """Write a slope for a power of ten tasks, a tenth of the stream at most, as exactly as its interval allows."""
    per = max(1, 10 ** (len(str(last)) - 2))
    slope, half = per * line.slope, per * (line.half_width or 0.0)
    noise = max(half, 0.1 * abs(slope))
    decimals = min(max(1 - floor(log10(noise)), 0), 6) if noise else 0
    width = "" if line.half_width is None else f" ± {half:.{decimals}f}"
    return f"{slope:+.{decimals}f}{width} {unit} per {plural(per, 'task').removeprefix('1 ')}".replace("-", "−")


def _sheet(group: Group, entries: Sequence[Entry], what: str, how: str) -> tuple[Figure, Any]:
    figure, axes = _sheets(group, entries, what, how, [_HIGH])
    return figure, axes[0]


def _sheets(
    group: Group, entries: Sequence[Entry], what: str, how: str, heights: Sequence[float]
) -> tuple[Figure, list[Any]]:
    """Return a figure with its title and its caption, and empty axes of these heights in inches below each other."""
    number, high = len(heights), sum(heights)
    figure = Figure(figsize=(_WIDE, high))
    all_axes = [figure.add_axes((0, 1 - (place + 0.88) / number, 1, 0.88 / number)) for place in range(number)]
    for axes in all_axes:
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=_MUTED, pad=5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_MUTED)
    figure.text(0, 1 + 0.16 / high, f"{group.title}: {what}", fontsize=svg.FONT_SIZE + 2, fontweight="bold")
    means = f"Means over {group.repeated}" if group.most_orders > 1 else group.repeated
    caption = " ".join([f"{means}; {how}.", *_left_out(group, entries), f"{group.conditions}."])
    text = "\n".join(textwrap.wrap(caption, _CAPTION))
    figure.text(0, (0.12 * heights[-1] - 0.62) / high, text, color=_MUTED, fontsize=svg.FONT_SIZE - 1, va="top")
    return figure, all_axes


def _left_out(group: Group, entries: Sequence[Entry]) -> Iterator[str]:
    if len(entries) < len(group.entries):
        yield f"The {len(entries)} most accurate of {len(group.entries)} learners; --learner names others."
    if group.dropped:
        yield "Only the orders and seeds that all have."


KINDS: Mapping[str, Callable[[Group, Sequence[Entry], str], Figure]] = {
    "accuracy": _draw_accuracy,
    "cost": _draw_cost,
    "growth": _draw_growth,
}
"""What can be drawn, by name."""
