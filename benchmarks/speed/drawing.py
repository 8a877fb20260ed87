"""The figures of docs/benchmarks/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from conpet.report import svg

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"  # Okabe and Ito's
_INK, _MUTED, _GRID = "#1b1f24", "#59636e", "#e3e6ea"
_SIZE = (8.0, 4.0)  # inches
_WINDOW = 25  # tasks of a running median


def draw(kind: str, result: Mapping[str, Any]) -> Figure:
    """Draw a figure of `KINDS` from a result file."""
    with svg.style("speed"):
        return KINDS[kind](result)


def drawable(result: Mapping[str, Any]) -> list[str]:
    """Return the kinds whose data was measured."""
    rows = result["rows"]
    available = {
        "growth": "learn-late-task" in rows,
        "modules": "predict-many-tasks" in rows,
        "roofline": any(True for _ in _points(rows)),
    }
    return [kind for kind in KINDS if available[kind]]


def _growth(result: Mapping[str, Any]) -> Figure:
    seconds = np.array(result["rows"]["learn-late-task"]["detail"]["growth"]["cpu_seconds"])
    figure, axes = _sheet("Time to learn a task as the stream grows", "task number", "processor seconds")
    numbers = np.arange(1, len(seconds) + 1)
    axes.plot(numbers, seconds, ".", color=_BLUE, markersize=3, alpha=0.4, label="single task")
    window = min(_WINDOW, len(seconds))
    middles = np.median(np.lib.stride_tricks.sliding_window_view(seconds, window), axis=1)
    axes.plot(numbers[window - 1 :], middles, color=_ORANGE, label=f"median of the last {window}")
    axes.set_ylim(0, 1.5 * np.percentile(seconds, 95))
    axes.legend(frameon=False)
    return figure


def _modules(result: Mapping[str, Any]) -> Figure:
    seconds_by_modules = result["rows"]["predict-many-tasks"]["detail"]["by_tasks"]
    figure, axes = _sheet("Prediction time, inputs of all tasks in turn", "modules", "milliseconds")
    counts = np.array([int(count) for count in seconds_by_modules])
    times = 1e3 * np.array([np.median(values) for values in seconds_by_modules.values()])
    low, high = (
        1e3 * np.array([np.percentile(values, share) for values in seconds_by_modules.values()]) for share in (25, 75)
    )
    axes.errorbar(counts, times, (times - low, high - times), color=_BLUE, marker="o", capsize=3)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    return figure


def _roofline(result: Mapping[str, Any]) -> Figure:
    machine, points = result["machine"], list(_points(result["rows"]))
    figure, axes = _sheet("Limits of the machine and achieved rates", "operations per byte", "GFLOP/s")
    intensity = np.logspace(-1, 3, 200)
    for colour, (name, peak) in zip((_MUTED, _INK), machine["flops"].items(), strict=True):
        roof = np.minimum(peak, intensity * machine["bandwidth"])
        axes.plot(intensity, roof / 1e9, color=colour, label=f"measured limit, {name}")
    for (name, point), colour in zip(points, (_BLUE, _ORANGE, _GREEN, _PURPLE), strict=False):
        rate = point["flops"] / point["seconds"] / 1e9
        axes.plot(point["flops"] / point["bytes"], rate, "o", color=colour, label=f"{name}, {point['dtype']}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _points(rows: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in rows.values():
        yield from row["detail"].get("roofline", {}).items()


def shares(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fraction of its limit that each point of the roofline achieves."""
    machine = result["machine"]
    for name, point in _points(result["rows"]):
        rate, bytes_rate = point["flops"] / point["seconds"], point["bytes"] / point["seconds"]
        roof = min(machine["flops"][point["dtype"]], machine["bandwidth"] * point["flops"] / point["bytes"])
        yield {
            "name": name,
            "dtype": point["dtype"],
            "gflops": rate / 1e9,
            "gbytes": bytes_rate / 1e9,
            "share": 100 * rate / roof,
        }


def _sheet(title: str, across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0, 0, 1, 0.9))
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    figure.text(0, 0.94, title, fontsize=svg.FONT_SIZE + 2, fontweight="bold", color=_INK)
    return figure, axes


KINDS: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "growth": _growth,
    "modules": _modules,
    "roofline": _roofline,
}
"""Figures by name."""
