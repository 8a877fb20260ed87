"""The plots of the report, from names and numbers, independent of workspaces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from conpet.report import svg
from conpet.report.label_results import ReliabilityBin
from conpet.report.text import shorten, width

VALUES_SHOWN = 15
"""Most tasks for which a heat map prints its values and a curve names every task."""

ORDER = "changes to the workspace, in order"
"""Name of the axis of plots over the stream that are too long for titles."""
_NAMES_SHOWN = 40  # names along one side of a heat map
_CELLS_DRAWN = 400  # cells along one side; more are averaged
_BARS_DRAWN = 60  # more become one outline per stage
_SQUARE = 4.0  # side of a plot of two fractions, in inches
_WIDE, _LOW = 10.0, 2.7  # size of a plot over the stream, in inches
_DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (9, 2)))
_RAMP = LinearSegmentedColormap.from_list(
    "conpet", ["#fdf3dc", "#f3d9a4", "#d9c48f", "#94bdb0", "#4f9bb0", "#28719c", "#1b4b82", "#142b5c"]
)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve over the stream.

    Attributes:
        label: Its label in the legend.
        values: One fraction per event; None if not measured.
        colour: A placeholder colour of `svg`.
        dash: Index of a dash pattern, or None for a solid line.
    """

    label: str
    values: tuple[float | None, ...]
    colour: str
    dash: int | None = None


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A heat map, with rows downwards.

    Attributes:
        key: Unique name of the drawing on the page.
        description: Text alternative for screen readers.
        rows: A name per row.
        columns: A name per column.
        values: Fractions, rows by columns; NaN leaves a cell empty.
        texts: Texts for the cells of a small matrix.
        row_axis: Label of the rows.
        column_axis: Label of the columns.
        low: Fraction of the lightest colour.
        high: Fraction of the darkest colour.
        gamma: Exponent of the colour scale; below 1, small values get more colours.
    """

    key: str
    description: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: NDArray[np.float64]
    texts: Sequence[Sequence[str]]
    row_axis: str
    column_axis: str
    low: float
    high: float
    gamma: float = 1.0

    @property
    def block(self) -> int:
        """Number of cells along each side that are averaged into one."""
        return math.ceil(max(len(self.rows), len(self.columns)) / _CELLS_DRAWN)

    def draw(self) -> Markup:
        """Return the heat map as an SVG element."""
        with svg.style(self.key):
            return self._draw()

    def _draw(self) -> Markup:
        small = max(len(self.rows), len(self.columns)) <= VALUES_SHOWN
        wide, high = _sides(len(self.columns), len(self.rows), small)
        figure = Figure(figsize=(wide, high))
        axes = figure.add_axes((0, 0, 1, 1))
        norm = PowerNorm(self.gamma, vmin=self.low, vmax=self.high, clip=True)
        extent = (-0.5, len(self.columns) - 0.5, len(self.rows) - 0.5, -0.5)
        cells = np.ma.masked_invalid(_averaged(self.values, self.block))
        axes.imshow(cells, cmap=_RAMP, norm=norm, extent=extent, aspect="auto", interpolation="none")
        names = svg.Names(20 if small else 16)
        _name_sides(axes, self.rows, self.columns, names)
        axes.set_ylabel(self.row_axis)
        axes.set_xlabel(self.column_axis)
        _plain(axes)
        if small:
            _draw_cell_borders(axes, len(self.rows), len(self.columns))
            self._print_values(axes, norm)
        _colour_bar(figure, norm, wide, high)
        return svg.render(figure, names, description=self.description)

    def _print_values(self, axes: Any, norm: Any) -> None:
        for row, texts in enumerate(self.texts):
            for column, text in enumerate(texts):
                value = self.values[row, column]
                if not np.isnan(value):
                    ink = "#ffffff" if norm(value) > 0.52 else "#1b1f24"
                    axes.text(column, row, text, ha="center", va="center_baseline", color=ink, fontsize=8.5)


def draw_curves(
    titles: Sequence[str], lines: Sequence[Line], *, key: str, description: str, order: str = ORDER
) -> Markup:
    """Draw curves of fractions over the events, in percent; `order` names the axis if it shows no titles."""
    with svg.style(key):
        figure = Figure(figsize=(_WIDE, _LOW))
        axes = figure.add_axes((0, 0, 1, 1))
        places = np.arange(1, len(titles) + 1)
        for number, line in enumerate(lines):
            values = np.array([np.nan if value is None else 100 * value for value in line.values])
            reference = line.dash is not None
            axes.plot(
                places,
                values,
                color=line.colour,
                linestyle=_DASHES[line.dash % len(_DASHES)] if line.dash is not None else "-",
                linewidth=1.3 if reference else 2.0,
                marker="" if reference or len(titles) > _NAMES_SHOWN else "o",
                markersize=4,
                zorder=3 - number / len(lines),  # the first on top: whole and average accuracy often coincide
            )
        floor = _floor([value for line in lines for value in line.values if value is not None])
        axes.set_ylim(100 * floor, 100.8)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        names = svg.Names(18)
        _stream_axes(axes, titles, names, order=order)
        return svg.render(figure, names, description=description)


def draw_shares(titles: Sequence[str], lines: Sequence[Line], *, key: str, description: str, every: int = 1) -> Markup:
    """Draw curves of fractions in percent, from 0 to the highest; only every so many titles are shown."""
    with svg.style(key):
        figure = Figure(figsize=(_WIDE, 0.75 * _LOW))
        axes = figure.add_axes((0, 0, 1, 1))
        places = np.arange(1, len(titles) + 1)
        highest = 0.0
        for line in lines:
            values = np.array([np.nan if value is None else 100 * value for value in line.values])
            highest = max(highest, *np.nan_to_num(values))
            axes.plot(places, values, color=line.colour, linewidth=2.0, marker="o", markersize=4)
        axes.set_ylim(0, 1.06 * highest or 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        names = svg.Names(18)
        _stream_axes(axes, titles, names, every=every)
        return svg.render(figure, names, description=description)


def draw_stacks(
    titles: Sequence[str], stacks: Mapping[str, Sequence[float]], *, key: str, description: str, every: int = 1
) -> Markup:
    """Draw stacked amounts over the events, in the colours of `svg.SERIES`; only every so many titles are shown."""
    with svg.style(key):
        figure = Figure(figsize=(_WIDE, 0.75 * _LOW))
        axes = figure.add_axes((0, 0, 1, 1))
        places = np.arange(1, len(titles) + 1)
        base = np.zeros(len(titles))
        for number, amounts in enumerate(stacks.values()):
            colour = svg.SERIES[number % len(svg.SERIES)]
            if len(titles) <= _BARS_DRAWN:
                axes.bar(
                    places,
                    amounts,
                    bottom=base,
                    width=min(0.68, 0.12 * len(titles)),
                    color=colour,
                    edgecolor=svg.PAPER,
                    linewidth=0.6,
                )
            else:
                edges = np.arange(0.5, len(titles) + 1)
                axes.stairs(base + amounts, edges, baseline=base.copy(), fill=True, color=colour, linewidth=0)
            base += amounts
        axes.set_ylim(0, 1.06 * base.max() if base.any() else 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        names = svg.Names(18)
        _stream_axes(axes, titles, names, every=every)
        return svg.render(figure, names, description=description)


def draw_reliability(bins: Sequence[ReliabilityBin], *, key: str, description: str) -> Markup:
    """Draw the accuracy of answers by their score in percent, with the diagonal of perfect calibration.

    Below, a bar for each bin shows its number of answers.
    """
    with svg.style(key):
        figure = Figure(figsize=(_SQUARE, _SQUARE))
        axes = figure.add_axes((0, 0.3, 1, 0.7))
        middles = [50 * (each.low + each.high) for each in bins]
        wide = [96 * (each.high - each.low) for each in bins]
        accuracies = [100 * (each.accuracy or 0.0) for each in bins]
        axes.bar(middles, accuracies, wide, color=svg.SERIES[0], linewidth=0)
        axes.plot([0, 100], [0, 100], color=svg.MUTED, linestyle=_DASHES[0], linewidth=1.3)
        measured = [
            (100 * each.score, 100 * each.accuracy)
            for each in bins
            if each.score is not None and each.accuracy is not None
        ]
        axes.plot(*zip(*measured, strict=True), color=svg.SERIES[2], marker="o", markersize=4, lw=0, clip_on=False)
        axes.set_ylabel("accuracy")
        counts = figure.add_axes((0, 0, 1, 0.2))
        counts.bar(middles, [each.n for each in bins], wide, color=svg.SERIES[7], linewidth=0)
        counts.set_ylabel("answers")
        counts.set_xlabel("score")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.set_ylim(0, 100)
        for each in (axes, counts):
            _plain(each)
            each.set_xlim(0, 100)
            each.set_axisbelow(True)
            each.grid(axis="y", color=svg.GRID, linewidth=0.8)
            each.tick_params(labelcolor=svg.MUTED)
            each.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        return svg.render(figure, svg.Names(), description=description)


def _floor(fractions: Sequence[float]) -> float:
    """Return a round lower end for an axis of these fractions that spans at least 0.2."""
    lowest = min(fractions, default=0.0)
    return max(0.0, min(math.floor((lowest - 0.02) * 20) / 20, 0.8))


def colour_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of a colour scale for accuracies that makes a drop of a few points visible."""
    measured = values[~np.isnan(values)]
    return _floor(measured.tolist()), 1.0


def _sides(columns: int, rows: int, small: bool) -> tuple[float, float]:
    if small:
        return columns * 0.56, rows * 0.38
    side = 6.2
    longest = max(columns, rows)
    return side * columns / longest, side * rows / longest


def _averaged(values: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Return the means of square blocks; NaN for blocks without numbers."""
    if block == 1:
        return values
    rows, columns = (math.ceil(side / block) * block for side in values.shape)
    padded = np.full((rows, columns), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(rows // block, block, columns // block, block)
    measured = (~np.isnan(blocks)).sum(axis=(1, 3))
    totals = np.nansum(blocks, axis=(1, 3))
    return np.where(measured > 0, totals / np.maximum(measured, 1), np.nan)


def _shown(number: int) -> range:
    """Return the indices to label along a side of `number` cells."""
    return range(0, number, math.ceil(number / _NAMES_SHOWN))


def _name_sides(axes: Any, rows: Sequence[str], columns: Sequence[str], names: svg.Names) -> None:
    size = svg.FONT_SIZE if max(len(rows), len(columns)) <= 25 else 7.5
    axes.set_yticks(_shown(len(rows)), [names(rows[index]) for index in _shown(len(rows))])
    axes.set_xticks(_shown(len(columns)), [names(columns[index]) for index in _shown(len(columns))])
    axes.tick_params(axis="both", labelsize=size)
    angle = 40 if len(columns) <= VALUES_SHOWN else 60
    _slant(axes, angle)


def _slant(axes: Any, angle: int) -> None:
    for label in axes.get_xticklabels():
        label.set(rotation=angle, ha="right", va="center", rotation_mode="anchor")


def _plain(axes: Any) -> None:
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    axes.tick_params(axis="both", which="both", length=0, labelcolor=svg.INK, pad=5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_cell_borders(axes: Any, rows: int, columns: int) -> None:
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=svg.PAPER, linewidth=1.5)


def _colour_bar(figure: Any, norm: Any, wide: float, high: float) -> None:
    """Draw the colour scale at the right as an image (Matplotlib's colour bar draws hundreds of shapes)."""
    tall = min(1.0, 2.2 / high)
    axes = figure.add_axes((1 + 0.18 / wide, 1 - tall, 0.11 / wide, tall))
    steps = np.linspace(norm.vmin, norm.vmax, 128).reshape(-1, 1)
    extent = (0, 1, 100 * norm.vmin, 100 * norm.vmax)
    axes.imshow(steps, cmap=_RAMP, norm=norm, extent=extent, aspect="auto", origin="lower", interpolation="none")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_major_locator(MaxNLocator(4 if high > 1 else 2, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    _plain(axes)
    axes.tick_params(axis="y", labelcolor=svg.MUTED, labelsize=8)


def _stream_axes(axes: Any, titles: Sequence[str], names: svg.Names, *, order: str = ORDER, every: int = 1) -> None:
    _plain(axes)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=svg.GRID, linewidth=0.8)
    axes.tick_params(axis="y", labelcolor=svg.MUTED)
    axes.set_xlim(0.4, len(titles) + 0.6)
    shown = titles[::-every][::-1]
    if len(shown) <= VALUES_SHOWN:
        places = range(len(titles), 0, -every)[::-1]
        axes.set_xticks(places, [names(title) for title in shown])
        if len(shown) * max((width(shorten(title, names.columns)) + 2 for title in shown), default=0) > _LABEL_COLUMNS:
            _slant(axes, 30)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel(names(order))


_LABEL_COLUMNS = 120  # total width of horizontal names under a plot over the stream
