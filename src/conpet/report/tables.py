"""The report's tables for a terminal, as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from conpet.report import text
from conpet.report.comparison import ComparisonReport
from conpet.report.data import (
    NOTABLE_FALL,
    BackboneInfo,
    Event,
    Measures,
    StageCost,
    TaskInfo,
    all_stages,
    task_order,
)
from conpet.report.design import TuneReport
from conpet.report.label_results import LabelResults

_ROWS = 12
_COLUMNS = 10  # most task columns; they fit a terminal of 80 columns
_NAME = 24
_LEAST_NAME = 14
_LEAST_LEARNER = 19  # dynamic+consolidate


def matrix_table(events: Sequence[Event]) -> Table:
    """Return the accuracy matrix in percent, with one row per evaluated event, limited to the latest rows and tasks.

    Logistic regression on the same features has a column beside whole accuracy. Notable drops from the best accuracy of
    a task are marked.
    """
    events = [event for event in events if event.changes_answers]
    all_tasks = task_order(events)
    first_task = max(0, len(all_tasks) - _COLUMNS)
    measured = [number for number, event in enumerate(events) if event.scores]
    shown = set(measured[-_ROWS:])
    tasks = all_tasks[first_task:]
    title = f"Accuracy by task, %{': the latest' if first_task or len(measured) > _ROWS else ''}"
    table = _table(title, "after learning", *(str(first_task + number) for number in range(1, len(tasks) + 1)))
    table.add_column("whole", justify="right", style="bold", no_wrap=True)
    with_logistic = any(event.logistic is not None for event in events)
    if with_logistic:
        table.add_column("log.\nreg.", justify="right", no_wrap=True)
    best: dict[str, float] = {}
    for number, event in enumerate(events):
        if number in shown:
            cells = [_matrix_cell(event.accuracy(task), best.get(task)) for task in tasks]
            beside = [_number(event.logistic)] if with_logistic else []
            table.add_row(_name(f"{number + 1} {event.title}"), *cells, _number(event.whole_accuracy), *beside)
        for task in event.scores:
            best[task] = max(best.get(task, 0.0), event.accuracy(task) or 0.0)
    return table


def final_table(event: Event, backbone: BackboneInfo) -> Table:
    """Return the metrics and reference classifiers after an event."""
    table = result_table(event)
    table.add_section()
    table.add_row("trained parameters", _fewer(event.trainable_parameters, backbone))
    table.add_row("with heads", _fewer(event.trainable_parameters_with_heads, backbone))
    table.add_row("stored", text.size(event.bytes_stored))
    table.add_row("states from the cache", text.percent(event.cache_hit_rate))
    table.add_row("peak memory", text.size(event.peak_memory))
    return table


def result_table(measured: Measures, *, history: bool = True) -> Table:
    """Return the metrics and reference classifiers of an evaluation, without those that have no test examples.

    Args:
        measured: The metrics.
        history: Whether to show the metrics that compare with earlier evaluations.
    """
    table = _table("Result", "", "")
    table.show_header = False
    on = f"  (on {text.plural(measured.forgetting_examples, 'example')})" if measured.forgetting_examples else ""
    compared = (
        ("forgetting", _points(text.plain_points(measured.forgetting)) + on),
        ("backward transfer", _points(text.points(measured.backward_transfer)) + on),
    )
    for name, value in (
        ("whole accuracy", text.percent(measured.whole_accuracy) + _interval(measured)),
        ("average accuracy", text.percent(measured.average_accuracy)),
        *(compared if history else ()),
        ("selector accuracy", text.percent(measured.selector_accuracy)),
        ("within-task accuracy", text.percent(measured.within_task_accuracy)),
    ):
        if value != text.NONE:
            table.add_row(name, Text(value, style="bold" if name == "whole accuracy" else ""))
    for name, accuracy in sorted(measured.references.items(), key=lambda item: -item[1]):
        table.add_row(_name(f"reference: {name}", 2 * _NAME), _against(accuracy, measured.whole_accuracy))
    return table


def _interval(measured: Measures) -> str:
    """Return the 95% interval of the whole accuracy and the number of examples, in parentheses."""
    correct, total = (sum(score[part] for score in measured.scores.values()) for part in (0, 1))
    if not total:
        return ""
    low, high = text.wilson_interval(correct, total)
    return f"  ({_number(low)}–{_number(high)}, {text.plural(total, 'example')})"


def labels_table(results: LabelResults, most: int | None = None) -> Table:
    """Return precision, recall, F1 and support of the `most` worst labels (None: all), and their averages."""
    shown = results.label_scores[:most]
    left = len(results.label_scores) - len(shown)
    title = f"Labels, %{f': the worst {len(shown)} of {len(results.label_scores):,}' if left else ''}"
    table = _table(title, "label", "task", "precision", "recall", "F1", "examples")
    table.columns[1].justify = "left"
    for row in shown:
        numbers = map(_percent_or_dash, (row.precision, row.recall, row.f1))
        table.add_row(_name(row.label), _name(row.task, 20), *numbers, text.count(row.support))
    table.add_section()
    support = text.count(sum(row.support for row in results.label_scores))
    for name, average in (("macro average", results.macro_average), ("weighted average", results.weighted_average)):
        table.add_row(name, "", *map(_number, (average.precision, average.recall, average.f1)), support)
    return table


def confusion_table(results: LabelResults, most: int | None = None) -> Table:
    """Return the `most` frequent confusions (None: all), each with an example."""
    shown = results.confusion[:most]
    left = len(results.confusion) - len(shown)
    title = f"Confusion{f': the {len(shown)} most frequent of {len(results.confusion):,}' if left else ''}"
    table = _table(title, "label", "answered with", "examples")
    table.columns[1].justify = "left"
    table.add_column("such as", overflow="ellipsis", no_wrap=True, ratio=1)  # takes what is left of the width
    table.expand = True
    for pair in shown:
        first = pair.examples[0]
        quoted = f"row {first.row}" if first.text is None else f"row {first.row}: {text.shorten(first.text, 60)}"
        answer = f"task {first.answered_by}" if pair.answer is None else pair.answer
        table.add_row(_name(pair.label, 20), _name(answer, 20), f"{pair.count:,} of {pair.support:,}", Text(quoted))
    return table


def cost_table(events: Sequence[Event]) -> Table:
    """Return the cost of each event: seconds by stage, backbone tokens, optimiser steps."""
    stages = all_stages(events)
    table = _table("Cost: seconds by stage, tokens, steps", "", *stages, "all", "tokens", "steps")
    for event in events:
        stage_costs = [event.cost.get(stage) for stage in stages]
        table.add_row(_name(event.title), *_cost_cells(stage_costs, event.total_cost))
    if len(events) > 1:
        by_stage = [StageCost.total(event.cost.get(stage, StageCost()) for event in events) for stage in stages]
        table.add_section()
        table.add_row("all", *_cost_cells(by_stage, StageCost.total(by_stage)))
    return table


def tasks_table(tasks: Sequence[TaskInfo], last: Event | None = None) -> Table:
    """Return the current tasks, with their accuracy after the event `last`."""
    table = _table(
        "Tasks", "task", "version", "labels", "train", "valid.", "test", "accuracy", "module", "head", "stored"
    )
    for task in tasks:
        table.add_row(
            _name(task.name),
            str(task.version),
            *(text.count(number) for number in (len(task.labels), task.train, task.validation, task.test)),
            text.percent(last.accuracy(task.name) if last else None),
            text.short_count(task.module_parameters) if task.counted_with is None else "shared",
            text.short_count(task.head_parameters),
            text.size(task.bytes_stored),
        )
    return table


def stream_table(tasks: Sequence[tuple[str, int, int, int, int]], most: int) -> Table:
    """Return name, labels, training, validation and test examples of the first `most` tasks, and the sums."""
    table = _table("Stream", "task", "labels", "train", "validation", "test")
    for name, *numbers in tasks[:most]:
        table.add_row(_name(name), *map(text.count, numbers))
    if len(tasks) > most:
        table.add_row(f"and {len(tasks) - most:,} more")
    table.add_section()
    sums = [sum(numbers) for numbers in zip(*(numbers for _, *numbers in tasks), strict=True)]
    table.add_row(text.plural(len(tasks), "task"), *map(text.count, sums), style="bold")
    return table


def trials_table(report: TuneReport, most: int = 10) -> Table:
    """Return the designs of a search: the chosen one, then the best `most` others."""
    table = _table("Designs", "", least=0)
    table.add_column("targets", no_wrap=True)
    for name in ("frozen", "rank", "rate", "epochs", "warm", "valid.", "passes/\nexample"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for trial in report.ranked[: most + 1]:
        design, chosen = trial.design, trial.number == report.chosen
        table.add_row(
            f"{trial.number}{' before' * (trial.number == 1)}",
            Text(text.shorten(design.targets_text, 14)),
            str(design.frozen_layers),
            str(design.rank),
            f"{design.learning_rate:g}",
            str(design.epochs),
            "" if design.warmup == "none" else "yes",
            text.percent(trial.accuracy),
            f"{trial.passes_per_example:.3g}",
            "chosen" if chosen else str(trial.outcome),
            style="bold" if chosen else "",
        )
    return table


def learners_table(report: ComparisonReport) -> Table:
    """Return the learners of a comparison: accuracy with its 95% interval, difference to the best, and costs."""
    heads = ("valid.", "95%", "to best", "p", "learn, s", "passes/ example", "ms/ answer", "stored")
    table = _table("Learners", "", *heads, least=_LEAST_LEARNER)
    for result in report.results:
        share = report.accuracy(result.learner)
        low, high = text.wilson_interval(round(share * report.distinct), report.distinct)
        best = result.learner == report.best
        table.add_row(
            result.learner,
            text.percent(share),
            f"{_number(low)}–{_number(high)}",
            "best" if best else text.points(share - report.accuracy(report.best)),
            "" if best else text.p_value(result.p_value).replace(" ", ""),
            f"{result.seconds:,.{0 if result.seconds >= 9.95 else 1}f}",
            f"{result.passes_per_example:.3g}",
            f"{result.ms_per_answer:.2g}",
            text.size(result.bytes_stored),
            style="bold" if result.learner == report.chosen else "",
        )
    for learner in report.failed:
        table.add_row(learner, "failed")
    return table


def _table(title: str, first: str, *others: str, least: int = _LEAST_NAME) -> Table:
    """Create a table whose first column holds names and shrinks on a narrow terminal."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), header_style="dim"
    )
    table.add_column(Text(first), min_width=least)
    for other in others:
        table.add_column(Text("\n".join(other.split())), justify="right", no_wrap=True)
    return table


def _name(name: str, columns: int = _NAME) -> Text:
    """Return a user's name as a Text, in which rich parses no markup."""
    return Text(text.shorten(name, columns), no_wrap=True, overflow="ellipsis")


def _number(accuracy: float | None) -> str:
    """Format percent in at most four columns."""
    return "" if accuracy is None else f"{100 * accuracy:.1f}".replace("100.0", "100")


def _percent_or_dash(fraction: float | None) -> str:
    return _number(fraction) or text.NONE


def _matrix_cell(accuracy: float | None, best: float | None) -> Text:
    fell = accuracy is not None and best is not None and best - accuracy >= NOTABLE_FALL
    return Text(_number(accuracy), style="yellow" if fell else "", no_wrap=True)


def _points(value: str) -> str:
    return value if value == text.NONE else f"{value} points"


def _against(reference: float, whole: float | None) -> Text:
    cell = Text(text.percent(reference))
    if whole is not None:
        cell.append(f"  ({text.points(whole - reference)})", style="green" if whole > reference else "yellow")
    return cell


def _fewer(parameters: int, backbone: BackboneInfo) -> str:
    ratio = backbone.times_fewer(parameters)
    return f"{parameters:,}" if ratio is None else f"{parameters:,}  ({text.times(ratio)} fewer than the backbone)"


def _cost_cells(stages: Sequence[StageCost | None], total: StageCost) -> list[str]:
    times = [_seconds(cost) if cost else "" for cost in (*stages, total)]
    return [*times, text.short_count(total.backbone_tokens), text.count(total.optimiser_steps)]


def _seconds(cost: StageCost) -> str:
    return f"{cost.seconds:.1f}" if cost.seconds < 100 else f"{cost.seconds:,.0f}"
