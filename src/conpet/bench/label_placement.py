"""Place the labels and ticks of a plot without overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, product
from math import ceil, floor, log10
from operator import itemgetter
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, Locator, MaxNLocator
from matplotlib.transforms import Bbox


class Named(NamedTuple):
    """A labelled point, in data coordinates."""

    x: float
    y: float
    name: str
    colour: str


def label_ends(axes: Any, ends: Sequence[Named]) -> None:
    """Write every label at the right edge, as close to the end of its line as possible."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.045
    ordered = sorted(ends, key=lambda end: end[1])
    heights = _spread([height for _, height, _, _ in ordered], gap, low + gap / 2, high - gap / 2)
    right = axes.get_xlim()[1]
    width = right - axes.get_xlim()[0]
    for (place, value, name, colour), height in zip(ordered, heights, strict=True):
        steps = [(place, value), (right, value), (right + 0.025 * width, height)]
        axes.plot(*zip(*steps, strict=True), color=colour, linewidth=0.7, alpha=0.7, clip_on=False, zorder=1)
        axes.text(right + 0.032 * width, height, name, color=ink(colour), va="center_baseline", ha="left")


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending heights apart to at least `gap`, as little as possible, within `low` and `high` if they fit."""
    blocks: list[list[float]] = []  # [sum of wanted first heights, number]: touching neighbours move together
    for height in heights:
        blocks.append([height, 1])
        while len(blocks) > 1 and _first(blocks[-2], gap) + blocks[-2][1] * gap > _first(blocks[-1], gap):
            total, number = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + number]
    spread = [_first(block, gap) + index * gap for block in blocks for index in range(int(block[1]))]
    for index in range(len(spread)):  # from below, then from above: the upper bound wins
        spread[index] = max(spread[index], low + index * gap)
    for index in range(len(spread)):
        spread[-1 - index] = min(spread[-1 - index], high - index * gap)
    return spread


def _first(block: Sequence[float], gap: float) -> float:
    return block[0] / block[1] - gap * (block[1] - 1) / 2


def label_points(figure: Figure, axes: Any, points: Sequence[Named], bars: Sequence[Sequence[float]]) -> None:
    """Write every label next to its point, where it covers no point, bar, label or leader line.

    Args:
        figure: The figure.
        axes: Its axes, with their final limits.
        points: The points.
        bars: Line segments of the plot, as (x0, y0, x1, y1).
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axes.get_window_extent(renderer)
    dot = _DOT * figure.dpi / 72
    dots = [_box(axes, (point.x, point.y, point.x, point.y), dot) for point in points]
    taken = [*dots, *(_box(axes, bar, 1.0) for bar in bars)]
    names: list[Bbox] = []
    leaders: list[Path] = []
    for number, point in enumerate(points):
        in_the_way = dots[:number] + dots[number + 1 :]
        name = axes.annotate(point.name, point[:2], xytext=(0, 0), textcoords="offset points", color=ink(point.colour))
        candidates: list[tuple[int, dict[str, Any], Bbox, Path]] = []
        for distance, (right, up, across, along) in product(_DISTANCES, _PLACES):
            place = {"position": (right * distance, up * distance), "ha": across, "va": along}
            name.set(**place)
            box, leader = name.get_window_extent(renderer), _leader(axes, point, name, figure.dpi / 72)
            cut = not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1))
            crossed = sum(other.intersects_bbox(box, filled=False) for other in leaders)
            crossed += sum(leader.intersects_bbox(other, filled=False) for other in names)
            conflicts = 100 * cut + 10 * box.count_overlaps(names) + 2 * crossed + box.count_overlaps(taken)
            if distance > _DISTANCES[0]:
                conflicts += sum(leader.intersects_bbox(other, filled=False) for other in in_the_way)
            candidates.append((conflicts, place, box, leader))
            if not conflicts:
                break
        _, place, box, leader = min(candidates, key=itemgetter(0))  # the least bad place if none is free
        name.set(**place)
        names.append(box)
        leaders.append(leader)
        if max(map(abs, name.get_position())) > _DISTANCES[0]:
            arrow = {"arrowstyle": "-", "color": point.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
            end = name.get_position()
            axes.annotate("", point[:2], xytext=end, textcoords="offset points", arrowprops=arrow, zorder=1)


def _leader(axes: Any, point: Named, name: Any, pixels: float) -> Path:
    """Return the leader line from a point to its label, in pixels."""
    x, y = axes.transData.transform(point[:2])
    right, up = name.get_position()
    return Path([(x, y), (x + right * pixels, y + up * pixels)])


def log_ticks(low: float, high: float) -> Locator:
    """Return the ticks of a logarithmic axis: few round numbers, at least three."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [tick for power in powers for digit in digits if low <= (tick := digit * 10.0**power) <= high]
        if len(ticks) >= 3:
            return FixedLocator(ticks)
    return MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3)


def task_ticks(last: int) -> Locator:
    """Return the ticks of an axis of tasks: 1 and at most twelve round numbers."""
    steps = (digit * 10**power for power in count() for digit in (1, 5))
    step = next(step for step in steps if last <= 12 * step)
    return FixedLocator(sorted({1, *range(step, last + 1, step)}))


def ink(colour: str) -> tuple[float, ...]:
    """Return a colour dark enough for text."""
    return tuple(0.75 * part for part in to_rgb(colour))


def _box(axes: Any, ends: Sequence[float], room: float) -> Bbox:
    """Return the bounding box in pixels of a segment given in data coordinates."""
    (left, low), (right, high) = axes.transData.transform([ends[:2], ends[2:]])
    return Bbox.from_extents(left - room, low - room, right + room, high + room)


_DOT = 5.0
"""Half the size of a point and its surroundings, in points."""
_DISTANCES = (8, 16, 28, 42, 60, 80, 105)
"""Candidate distances of a label from its point, in points."""
_PLACES = (
    (1, 0, "left", "center"), (-1, 0, "right", "center"), (0, 1, "center", "bottom"), (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"), (0.7, -0.7, "left", "top"), (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"), (0.92, 0.38, "left", "center"), (0.92, -0.38, "left", "center"),
    (-0.92, 0.38, "right", "center"), (-0.92, -0.38, "right", "center"), (0.38, 0.92, "left", "bottom"),
    (0.38, -0.92, "left", "top"), (-0.38, 0.92, "right", "bottom"), (-0.38, -0.92, "right", "top"),
)  # fmt: skip
"""Candidate directions of a label from its point with its alignment, the most readable first."""
