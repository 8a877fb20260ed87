"""The figures of a report, with legends and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from conpet.report import plots, svg
from conpet.report.data import Event, ReportData, StageCost, all_stages, task_order
from conpet.report.text import calibration


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend.

    Attributes:
        label: Its text.
        colour: A CSS colour.
        line: Line style ("solid", "dashed"); "" for an area.
    """

    label: str
    colour: str
    line: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with legend and caption."""

    drawing: Markup
    caption: str
    legend: tuple[Key, ...] = ()


class Figures:
    """The figures of a report; None if there is nothing to show.

    Args:
        data: The report.
    """

    def __init__(self, data: ReportData) -> None:
        self._data = data
        self._answering = data.answering
        self._stages = all_stages(data.events)

    @cached_property
    def matrix(self) -> Figure | None:
        """The accuracy matrix, if anything was measured."""
        events = self._answering
        columns = task_order(events)
        accuracies = [[event.accuracy(task) for task in columns] for event in events]
        values = _numbers(accuracies, (len(events), len(columns)))
        if np.isnan(values).all():
            return None
        low, high = plots.colour_range(values)
        heat_map = plots.HeatMap(
            key="matrix",
            description="Accuracy on every task after every change to the workspace",
            rows=_titles(events),
            columns=columns,
            values=values,
            texts=[["" if value is None else f"{100 * value:.1f}" for value in row] for row in accuracies],
            row_axis="after learning" if all(event.verb.trains for event in events) else "after",
            column_axis="accuracy on the test examples of",
            low=low,
            high=high,
        )
        caption = "Each column follows one task over time: where the colour stays the same, nothing was forgotten."
        return Figure(heat_map.draw(), caption + _averaging(heat_map.block))

    @cached_property
    def curves(self) -> Figure | None:
        """Accuracies over the events, if there are at least two and any was measured."""
        lines = tuple(line for line in self._lines() if any(value is not None for value in line.values))
        if not lines or len(self._answering) < 2:
            return None
        drawing = plots.draw_curves(
            _titles(self._answering), lines, key="curves", description="Accuracies over the stream of tasks"
        )
        legend = tuple(
            Key(line.label, svg.variable(line.colour), "solid" if line.dash is None else "dashed") for line in lines
        )
        return Figure(drawing, "Dashed: reference classifiers of the same frozen features.", legend)

    def _lines(self) -> tuple[plots.Line, ...]:
        events = self._answering
        references = dict.fromkeys(name for event in events for name in event.references)
        own = (
            ("whole accuracy", [event.whole_accuracy for event in events]),
            ("average accuracy", [event.average_accuracy for event in events]),
            ("selector accuracy", [event.selector_accuracy for event in events]),
            ("within-task accuracy", [event.within_task_accuracy for event in events]),
        )
        solid = [plots.Line(name, tuple(values), svg.SERIES[number]) for number, (name, values) in enumerate(own)]
        dashed = [
            plots.Line(
                name,
                tuple(event.references.get(name) for event in events),
                svg.REFERENCES[number % len(svg.REFERENCES)],
                number,
            )
            for number, name in enumerate(references)
        ]
        return (*solid, *dashed)

    @cached_property
    def seconds(self) -> Figure | None:
        """Seconds per event by stage."""
        return self._stack("seconds", {stage: [cost.seconds for cost in self._costs(stage)] for stage in self._stages})

    @cached_property
    def tokens(self) -> Figure | None:
        """Backbone tokens per event by stage."""
        stacks = {stage: [float(cost.backbone_tokens) for cost in self._costs(stage)] for stage in self._stages}
        return self._stack("backbone tokens", stacks)

    def _costs(self, stage: str) -> list[StageCost]:
        return [event.cost.get(stage, StageCost()) for event in self._data.events]

    def _stack(self, what: str, stacks: Mapping[str, list[float]]) -> Figure | None:
        if not any(any(amounts) for amounts in stacks.values()):
            return None
        drawing = plots.draw_stacks(
            _titles(self._data.events), stacks, key=what, description=f"{what} per change to the workspace, by stage"
        )
        legend = tuple(
            Key(stage, svg.variable(svg.SERIES[number % len(svg.SERIES)]))
            for number, (stage, amounts) in enumerate(stacks.items())
            if any(amounts)
        )
        return Figure(drawing, "", legend)

    @cached_property
    def reliability(self) -> Figure | None:
        """Accuracy by score, if measured."""
        results = self._data.label_results
        if results is None:
            return None
        measured = results.calibration
        said = calibration(measured.expected_calibration_error, measured.overconfidence, len(measured.bins))
        drawing = plots.draw_reliability(
            measured.bins, key="reliability", description="Accuracy of the answers by their score"
        )
        caption = (
            f"{said[0].upper()}{said[1:]}. Where bars end on the dashed line, a score of 80% means that 80% of such "
            "answers are right. The dots are at the mean score of their bin."
        )
        return Figure(drawing, caption)

    @cached_property
    def confusion(self) -> Figure | None:
        """Counts of first-ranked tasks by true task, if measured."""
        counts = self._data.selector_confusion
        chosen_too = (name for row in counts.values() for name in row)
        order = list(dict.fromkeys([*(task.name for task in self._data.tasks), *counts, *chosen_too]))
        table = np.array(
            [[counts.get(true, {}).get(chosen, 0) for chosen in order] for true in order], dtype=np.float64
        )
        if not table.any():
            return None
        totals = table.sum(axis=1, keepdims=True)
        heat_map = plots.HeatMap(
            key="confusion",
            description="Test examples by their true task and the task that the selector ranked first",
            rows=order,
            columns=order,
            values=np.where(totals > 0, table / np.maximum(totals, 1), np.nan),
            texts=[[f"{number:,.0f}" if number else "" for number in row] for row in table],
            row_axis="true task",
            column_axis="task ranked first by the selector",
            low=0.0,
            high=1.0,
            gamma=0.5,
        )
        caption = (
            "The colour is the fraction of the true task's examples. Off the diagonal, a wrong task was ranked first."
        )
        return Figure(heat_map.draw(), caption + _averaging(heat_map.block))


def _titles(events: Sequence[Event]) -> tuple[str, ...]:
    return tuple(event.title for event in events)


def _numbers(rows: list[list[float | None]], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return rows of numbers as a matrix of the given shape, with NaN for None."""
    return np.array(rows, dtype=np.float64).reshape(shape)


def _averaging(block: int) -> str:
    return f" Each cell is the mean of {block} × {block}." if block > 1 else ""
