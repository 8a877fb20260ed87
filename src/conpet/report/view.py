"""The sentences and table cells of the page, computed from the report data for the template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from conpet.report import text
from conpet.report.data import NOTABLE_FALL, BackboneInfo, Event, ReportData, StageCost, TaskInfo, Verb, all_stages
from conpet.report.figures import Figures
from conpet.report.label_results import ConfusedPair, LabelRow

_LABELS_SHOWN = 5000  # over all tasks; beyond it, each task shows only its first labels
_FEW_LABELS = 10
_CONFUSIONS_SHOWN = 50
_QUOTED = 5  # examples of each confusion
_QUOTED_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Card:
    """A key figure at the top of the page."""

    name: str
    value: str
    detail: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A final measure; for a reference, also the difference to whole accuracy."""

    name: str
    value: str
    against: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """A row of the table of parameters; `fewer` is "" if a ratio has no meaning."""

    name: str
    number: str
    fewer: str = ""
    with_heads: str = ""
    fewer_with_heads: str = ""


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """A label that is taken for another, with some of the examples."""

    pair: ConfusedPair
    answer: str
    quoted: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task with its accuracy when it was learned and now."""

    info: TaskInfo
    learned: float | None
    now: float | None
    labels: tuple[str, ...]
    labels_left_out: int

    @property
    def change(self) -> float | None:
        """Accuracy now minus accuracy when it was learned."""
        return None if self.learned is None or self.now is None else self.now - self.learned

    @property
    def fell(self) -> bool:
        """Whether the loss is large enough to mark."""
        return self.change is not None and self.change <= -NOTABLE_FALL


class PageView:
    """The page's content in the order of its sections.

    Args:
        data: The report.
    """

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.last = data.answering[-1] if data.answering else None
        self.figures = Figures(data)

    @property
    def backbone(self) -> BackboneInfo:
        """The frozen model."""
        return self.data.workspace.backbone

    @property
    def method(self) -> str:
        """The name of the method for readers."""
        name = self.data.workspace.method
        return "Dynamic ConPET" if name == "dynamic" else f"method {name}"

    @cached_property
    def tunes(self) -> bool:
        """Whether any module was trained (closed-form methods train none)."""
        return any(event.trainable_parameters for event in self.data.events)

    @cached_property
    def consolidated(self) -> bool:
        """Whether the results are those of a tuned backbone."""
        return bool(self.backbone.consolidated) and any(event.verb is Verb.CONSOLIDATE for event in self.data.events)

    @cached_property
    def labels(self) -> int:
        """Number of labels of all tasks."""
        return sum(len(task.labels) for task in self.data.tasks)

    @cached_property
    def lead(self) -> str:
        """The main result in one or two sentences."""
        if self.last is None:
            return "Nothing has been learned yet."
        labels, tasks = text.plural(self.labels, "label"), text.plural(len(self.data.tasks), "task")
        if self.last.whole_accuracy is None:
            return f"{labels} in {tasks} were learned. There are no test examples, so accuracy is unknown."
        opening = (
            f"{text.percent(self.last.whole_accuracy)} of test examples get the correct one of {labels} in {tasks}"
        )
        if self.last.best_reference is None:
            return f"{opening}."
        name, reference = self.last.best_reference
        tuned = self.consolidated
        where = "best reference on the tuned backbone" if tuned else "best reference"
        summary = f"{opening}. The {where}, {name}, gets {text.percent(reference)}"
        if not self.tunes:
            return f"{summary}."
        gain = round(self.last.whole_accuracy - reference, 3)
        what = "the module" if tuned else "tuning"
        verdict = (
            f"{what} adds {text.plain_points(gain)} points" if gain > 0
            else f"{what} adds nothing" if gain == 0
            else f"{what} is {text.plain_points(-gain)} points worse"
        )  # fmt: skip
        return f"{summary}: {verdict}."

    @cached_property
    def cards(self) -> tuple[Card, ...]:
        """The key figures at the top of the page."""
        if self.last is None:
            return ()
        cards = (self._whole_card(), self._forgetting_card(), self._reference_card(), self._parameter_card())
        return tuple(card for card in cards if card is not None)

    def _whole_card(self) -> Card | None:
        event = self.last
        if event is None or event.whole_accuracy is None:
            return None
        correct = sum(score.correct for score in event.scores.values())
        total = sum(score.total for score in event.scores.values())
        if not total:
            return Card("Whole accuracy", text.percent(event.whole_accuracy), "")
        low, high = text.wilson_interval(correct, total)
        interval = f"95% interval {100 * low:.1f}–{100 * high:.1f}"
        return Card("Whole accuracy", text.percent(event.whole_accuracy), f"{total:,} test examples, {interval}")

    def _forgetting_card(self) -> Card | None:
        event = self.last
        if event is None or event.forgetting is None:
            return None
        on = text.plural(event.forgetting_examples, "test example") if event.forgetting_examples else "test examples"
        detail = f"points lost on {on} of older tasks, on average over tasks"
        if event.backward_transfer is not None:
            detail += f"; backward transfer {text.points(event.backward_transfer)}"
        return Card("Forgetting", text.plain_points(event.forgetting), detail)

    def _reference_card(self) -> Card | None:
        event = self.last
        if event is None or event.whole_accuracy is None or event.best_reference is None:
            return None
        name, reference = event.best_reference
        gain = round(event.whole_accuracy - reference, 3)
        detail = f"points; {name} on the frozen features: {text.percent(reference)}"
        return Card("Against the best reference", text.points(gain), detail, _tone(gain))

    def _parameter_card(self) -> Card | None:
        event = self._last_learned
        ratio = self.backbone.times_fewer(event.trainable_parameters) if event else None
        if event is None or ratio is None:
            return None
        with_heads = self.backbone.times_fewer(event.trainable_parameters_with_heads)
        trained, frozen = text.short_count(event.trainable_parameters), text.short_count(self.backbone.parameters)
        detail = f"than the backbone: {trained} of {frozen}"
        return Card("Fewer trained parameters", text.times(ratio), f"{detail} ({text.times(with_heads)} with heads)")

    @cached_property
    def _last_learned(self) -> Event | None:
        return next((event for event in reversed(self.data.events) if event.verb.trains), None)

    @cached_property
    def results(self) -> tuple[ResultRow, ...]:
        """All measures and references after the last event."""
        event = self.last
        if event is None or event.whole_accuracy is None:
            return ()
        measures = (
            ("Whole accuracy", text.percent(event.whole_accuracy)),
            ("Average accuracy", text.percent(event.average_accuracy)),
            ("Forgetting", text.plain_points(event.forgetting)),
            ("Backward transfer", text.points(event.backward_transfer)),
            ("Selector accuracy", text.percent(event.selector_accuracy)),
            ("Within-task accuracy", text.percent(event.within_task_accuracy)),
        )
        references = sorted(event.references.items(), key=lambda item: -item[1])
        return (
            *(ResultRow(name, value) for name, value in measures),
            *(self._against(name, accuracy, event.whole_accuracy) for name, accuracy in references),
        )

    def _against(self, name: str, accuracy: float, whole: float) -> ResultRow:
        gain = round(whole - accuracy, 3)
        return ResultRow(f"Reference: {name}", text.percent(accuracy), text.points(gain), _tone(gain))

    @cached_property
    def stage_totals(self) -> tuple[tuple[str, StageCost], ...]:
        """The cost of each stage over all events, then the total."""
        events = self.data.events
        totals = [
            (stage, StageCost.total(event.cost.get(stage, StageCost()) for event in events))
            for stage in all_stages(events)
        ]
        return (*totals, ("all stages", StageCost.total(total for _, total in totals)))

    @cached_property
    def design_lead(self) -> str:
        """The result and cost of the last design search."""
        search = self.data.design
        if search is None:
            return ""
        tried = text.plural(len(search.trials), "design")
        return (
            f"{tried} tried on task {text.shorten(search.task, 40)} in {text.duration(search.seconds)}, "
            f"{text.count(search.passes)} forward-pass equivalents, by successive halving on "
            f"{text.plural(search.validation, 'validation example')}. The cheapest design within one standard error "
            f"of the best was chosen: {text.percent(search.choice.accuracy)}; the design before it, "
            f"{text.percent(search.before.accuracy)}."
        )

    @cached_property
    def parameters(self) -> tuple[ParameterRow, ...]:
        """The table of parameters."""
        modules = sum(task.module_parameters for task in self.data.tasks)
        heads = sum(task.head_parameters for task in self.data.tasks)
        rows = [ParameterRow("Backbone, frozen", text.count(self.backbone.parameters))]
        if self._last_learned is not None:
            event = self._last_learned
            name = f"Trained for the last task learned ({text.shorten(event.task, 40)})"
            rows.append(self._parameter_row(name, event.trainable_parameters, event.trainable_parameters_with_heads))
        if self.data.tasks:
            name = f"Stored for all {text.plural(len(self.data.tasks), 'task')}"
            rows.append(self._parameter_row(name, modules, modules + heads))
        return tuple(rows)

    def _parameter_row(self, name: str, number: int, with_heads: int) -> ParameterRow:
        fewer, fewer_with_heads = self.backbone.times_fewer(number), self.backbone.times_fewer(with_heads)
        return ParameterRow(
            name, text.count(number), text.times(fewer), text.count(with_heads), text.times(fewer_with_heads)
        )

    @cached_property
    def tasks(self) -> tuple[TaskRow, ...]:
        """The current tasks."""
        learned = {(event.task, event.version): event for event in self.data.events if event.verb.trains}
        keep = None if self.labels <= _LABELS_SHOWN else _FEW_LABELS
        rows = []
        for info in self.data.tasks:
            event = learned.get((info.name, info.version))
            first = event.accuracy(info.name) if event else None
            now = self.last.accuracy(info.name) if self.last else None
            shown = info.labels[:keep]
            rows.append(TaskRow(info, first, now, shown, len(info.labels) - len(shown)))
        return tuple(rows)

    @cached_property
    def label_rows(self) -> tuple[LabelRow, ...]:
        """The scores of the labels, the lowest F1 first."""
        results = self.data.label_results
        return results.label_scores[:_LABELS_SHOWN] if results else ()

    @cached_property
    def labels_left_out(self) -> int:
        """Number of labels that have a score and are not shown."""
        results = self.data.label_results
        return len(results.label_scores) - len(self.label_rows) if results else 0

    @cached_property
    def confusions(self) -> tuple[ConfusionRow, ...]:
        """The most frequent confusions."""
        results = self.data.label_results
        return tuple(_confusion(pair) for pair in results.confusion[:_CONFUSIONS_SHOWN]) if results else ()

    @cached_property
    def confusion_lead(self) -> str:
        """How many confusions there are."""
        results = self.data.label_results
        if results is None or not results.confusion:
            return ""
        wrong, pairs = sum(pair.count for pair in results.confusion), len(results.confusion)
        shown = f"; the {len(self.confusions)} most frequent" if pairs > len(self.confusions) else ""
        return f"{text.plural(wrong, 'wrong answer')}, {text.plural(pairs, 'pair')} of labels{shown}."

    @cached_property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The settings, nested ones by their dotted names."""
        return tuple(_flat(self.data.workspace.settings))


def _confusion(pair: ConfusedPair) -> ConfusionRow:
    quoted = tuple(
        f"row {one.row}" if one.text is None else f"row {one.row}: {text.shorten(one.text, _QUOTED_CHARACTERS)}"
        for one in pair.examples[:_QUOTED]
    )
    answer = f"task {pair.examples[0].answered_by}" if pair.answer is None else pair.answer
    return ConfusionRow(pair, answer, quoted, len(pair.examples) - len(quoted))


def _tone(gain: float) -> str:
    return "good" if gain > 0 else "bad" if gain < 0 else ""


def _flat(settings: Mapping[str, JsonValue], prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat += _flat(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat.append((f"{prefix}{name}", shown))
    return flat
