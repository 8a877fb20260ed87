"""Figure layout for results: styles of learners, axes, titles and captions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from conpet.bench.groups import Entry, Group
from conpet.bench.measures import measures
from conpet.report import svg

MOST_SHOWN = 12
"""Most learners in a plot; beyond it, those with the best final accuracy are drawn, unless learners are named."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")  # Okabe and Ito's
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_MARKERS = "osD^vPX"
_INK, _MUTED, _GRID = "#1b1f24", "#59636e", "#e3e6ea"
_WIDE, _HIGH = 8.0, 4.4  # inches
_CAPTION = 125  # characters per line of a caption


@dataclass(frozen=True, slots=True)
class Look:
    """Line style of an entry: unique within a plot, and the same for a learner in all plots."""

    colour: str
    dash: Any
    marker: str

    @classmethod
    def of(cls, group: Group, entry: Entry) -> Look:
        """Return the line style of an entry."""
        round_, place = divmod(group.place(entry), len(_COLOURS))
        return cls(_COLOURS[place], _DASHES[round_ % len(_DASHES)], _MARKERS[(place + round_) % len(_MARKERS)])


@contextmanager
def style() -> Iterator[None]:
    """Set the Matplotlib style, independent of the settings of the process; names are not parsed as mathematics."""
    with svg.style("bench"), rc_context({"text.parse_math": False, "text.color": _INK, "axes.labelcolor": _INK}):
        yield


def most_accurate(group: Group, always: Sequence[str] = ()) -> list[Entry]:
    """Return at most `MOST_SHOWN` entries: the learners in `always`, then those with the best final accuracy."""
    if len(group.entries) <= MOST_SHOWN:
        return list(group.entries)
    accuracy = measures(["whole_accuracy"], group.results)[0]
    summaries = {number: entry.summary(accuracy) for number, entry in enumerate(group.entries)}
    means = {number: summary.mean for number, summary in summaries.items() if summary}
    named = {number for number, entry in enumerate(group.entries) if entry.learner in always}
    others = sorted((number for number in means if number not in named), key=means.__getitem__, reverse=True)
    kept = {*named, *others[: max(MOST_SHOWN - len(named), 0)]}
    return [entry for number, entry in enumerate(group.entries) if number in kept]


def sheet(group: Group, entries: Sequence[Entry], what: str, how: str) -> tuple[Figure, Any]:
    """Return a figure with title and caption, and its empty axes."""
    figure, axes = sheets(group, entries, what, how, [_HIGH])
    return figure, axes[0]


def sheets(
    group: Group, entries: Sequence[Entry], what: str, how: str, heights: Sequence[float]
) -> tuple[Figure, list[Any]]:
    """Return a figure with title and caption, and empty axes stacked with these heights in inches."""
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
    caption = " ".join([f"{means}{'; ' if how else ''}{how}.", *_left_out(group, entries), f"{group.conditions}."])
    text = "\n".join(textwrap.wrap(caption, _CAPTION))
    figure.text(0, (0.12 * heights[-1] - 0.62) / high, text, color=_MUTED, fontsize=svg.FONT_SIZE - 1, va="top")
    return figure, all_axes


def _left_out(group: Group, entries: Sequence[Entry]) -> Iterator[str]:
    if len(entries) < len(group.entries):
        best = [group.label(entry) for entry in most_accurate(group)]
        named = [label for entry in entries if (label := group.label(entry)) not in best]
        further = f", and {', '.join(named)}" if named else ""
        most = f"The {len(entries) - len(named)} most accurate of {len(group.entries)} learners"
        yield f"{most}{further}; use --learner to select others."
    if group.dropped:
        yield "Only orders and seeds common to all learners."
