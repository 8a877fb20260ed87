"""Plots of results: accuracy over the stream, accuracy against cost, cost as the stream grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from conpet.bench.drawing import Look, most_accurate, sheet, style
from conpet.bench.groups import Entry, Group
from conpet.bench.growth import draw_growth
from conpet.bench.label_placement import Named, label_ends, label_points, log_ticks, task_ticks
from conpet.bench.measures import measures
from conpet.bench.statistics import Summary, by_order, summarise
from conpet.errors import ConfigError, UnknownNameError


def draw(
    kind: str,
    group: Group,
    *,
    cost: str = "cpu_seconds_per_task",
    everyone: bool = False,
    always: Sequence[str] = (),
) -> Figure:
    """Plot the results of a group.

    Args:
        kind: One of `KINDS`.
        group: The results.
        cost: Name of the measure on the horizontal axis of "cost".
        everyone: Whether to plot more than `MOST_SHOWN` learners.
        always: Learners to include whatever their accuracy.

    Raises:
        ConfigError: The kind is unknown, nothing to plot was measured, or SciPy is not installed.
        UnknownNameError: The cost or a learner is unknown.
    """
    if kind not in KINDS:
        raise ConfigError(f"no plot of kind {kind!r}; available: {', '.join(KINDS)}")
    if unknown := [name for name in always if name not in group.learners]:
        raise UnknownNameError(
            f"{group.title}: no learner {', '.join(unknown)}; available: {', '.join(group.learners)}"
        )
    entries = list(group.entries) if everyone else most_accurate(group, always)
    with style():
        return KINDS[kind](group, entries, cost)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG or PNG, by the suffix of the file.

    Raises:
        ConfigError: The file has another suffix.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"{path}: unknown plot format; use a file name ending in .svg or .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    date = {"Date": None} if path.suffix.lower() == ".svg" else {}  # makes files reproducible
    with style():
        figure.savefig(path, dpi=160, bbox_inches="tight", pad_inches=0.12, facecolor="white", metadata=date)


def _draw_accuracy(group: Group, entries: Sequence[Entry], _: str) -> Figure:
    how = _intervals(group, "bands: 95% t-intervals of the mean")
    figure, axes = sheet(group, entries, "whole accuracy after each task", how)
    alpha = min(0.15, 0.6 / len(entries))
    ends: list[Named] = []
    heights: list[tuple[float, float]] = []
    for entry in entries:
        look, curve = Look.of(group, entry), _accuracy_by_task(entry)
        if not curve:
            continue
        places = np.array(list(curve))
        means = 100 * np.array([summary.mean for summary in curve.values()])
        halves = 100 * np.array([summary.half_width or 0.0 for summary in curve.values()])
        _draw_curve(axes, places, means, halves, look, alpha, group.label(entry))
        ends.append(Named(float(places[-1]), float(means[-1]), group.label(entry), look.colour))
        heights += zip(means.tolist(), halves.tolist(), strict=True)
    if not ends:
        raise ConfigError(f"{group.title}: no run was evaluated after any task; run it with `evaluate_after: every`")
    last = max(len(result.tasks) for result in group.results)
    axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
    _fit_heights(axes, heights)
    axes.xaxis.set_major_locator(task_ticks(last))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("whole accuracy (%)")
    label_ends(axes, ends)
    return figure


def _accuracy_by_task(entry: Entry) -> dict[int, Summary]:
    """Return the whole accuracy by the number of tasks learned, where measured."""
    accuracies: dict[int, dict[tuple[int, int], float]] = {}
    for key, result in entry.results.items():
        for number, row in enumerate(result.matrix, start=1):
            total = sum(total for _, total in row.values()) if row else 0
            if row and total:
                accuracies.setdefault(number, {})[key] = sum(right for right, _ in row.values()) / total
    return {number: summarise(list(by_order(accuracies[number]).values())) for number in sorted(accuracies)}


def _draw_curve(axes: Any, places: Any, means: Any, halves: Any, look: Look, alpha: float, label: str) -> None:
    """Draw a line with a band, or a single point with an error bar.

    Args:
        axes: The axes to draw on.
        places: Numbers of tasks, `[points]`.
        means: Accuracies in percent, `[points]`.
        halves: Half the width of each interval; 0 if there is none.
        look: The line style.
        alpha: Opacity of the band.
        label: Name of the entry.
    """
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
    if not halves.any():
        return
    if once:
        axes.errorbar(places, means, halves, color=look.colour, linewidth=1.2, capsize=3, zorder=3)
    else:
        axes.fill_between(places, means - halves, means + halves, color=look.colour, alpha=alpha, linewidth=0, zorder=2)


def _fit_heights(axes: Any, heights: Sequence[tuple[float, float]]) -> None:
    """Fit the vertical axis to means in percent, and to their intervals within limits.

    Beyond the means, intervals are shown up to half the range of the means or 5 points; wider ones are cut off.
    """
    means = [mean for mean, _ in heights]
    room = max((max(means) - min(means)) / 2, 5.0)
    low = max(min(mean - half for mean, half in heights), min(means) - room)
    high = min(max(mean + half for mean, half in heights), max(means) + room)
    margin = max(0.05 * (high - low), 0.5)
    axes.set_ylim(max(low - margin, 0), min(high + margin, 101))


def _intervals(group: Group, what: str) -> str:
    """Return the caption of the intervals, if there are any."""
    return "; ".join(part for part in (what, group.caveat) if part) if group.has_intervals else ""


def _draw_cost(group: Group, entries: Sequence[Entry], cost: str) -> Figure:
    accuracy, price = measures(["whole_accuracy", cost], group.results)
    how = _intervals(group, "bars: 95% t-intervals of the means")
    figure, axes = sheet(group, entries, f"whole accuracy against {price.title}", how)
    points: list[Named] = []
    bars: list[tuple[float, float, float, float]] = []
    heights: list[tuple[float, float]] = []
    for entry in entries:
        across, up = entry.summary(price), entry.summary(accuracy)
        if across is None or up is None:
            continue
        look = Look.of(group, entry)
        x, y = across.mean * price.scale, 100 * up.mean
        half_x, half_y = (across.half_width or 0) * price.scale, 100 * (up.half_width or 0)
        axes.errorbar(x, y, half_y, half_x, color=look.colour, linewidth=0.9, alpha=0.6, zorder=2)
        axes.plot(
            x,
            y,
            look.marker,
            color=look.colour,
            markersize=7,
            label=group.label(entry),
            zorder=3,
            clip_on=False,  # at 100%, the marker extends beyond the frame
        )
        points.append(Named(x, y, group.label(entry), look.colour))
        heights.append((y, half_y))
        bars += [(x - half_x, y, x + half_x, y), (x, y - half_y, x, y + half_y)]
    if not points:
        raise ConfigError(
            f"{group.title}: no run measured both whole accuracy and {price.title}; run it with an evaluation"
        )
    _scale(axes, [point.x for point in points])
    _fit_heights(axes, heights)
    axes.set_xlabel(price.heading)
    axes.set_ylabel("whole accuracy (%)")
    label_points(figure, axes, points, bars)
    return figure


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic, unless a cost is 0."""
    low, high = min(values), max(values)
    if low <= 0:
        return
    axes.set_xscale("log")
    room = max((high / low) ** 0.12, 1.3)
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(log_ticks(low / room, high * room))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


KINDS: Mapping[str, Callable[[Group, Sequence[Entry], str], Figure]] = {
    "accuracy": _draw_accuracy,
    "cost": _draw_cost,
    "growth": draw_growth,
}
"""Kinds of plots by name."""
