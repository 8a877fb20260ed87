"""Build the data of reports and of `conpet evaluate --json` from the store; imports no torch, loads no backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pydantic import JsonValue

from conpet.backbone.fingerprint import Fingerprint
from conpet.commands.rows import stored_answers
from conpet.evaluation.answers import AnsweredExample, LabelAverage
from conpet.evaluation.history import CACHE, DESIGN, Standing, metrics_of, row_of
from conpet.evaluation.metrics import Measurement, forgetting_examples
from conpet.modules.folded_info import FoldedNote, Producer
from conpet.report.data import (
    BackboneInfo,
    Event,
    Measures,
    ReportData,
    Score,
    StageCost,
    TaskInfo,
    Verb,
    WorkspaceInfo,
    all_stages,
    task_order,
)
from conpet.report.design import TuneReport
from conpet.report.label_results import (
    Average,
    ConfusedExample,
    ConfusedPair,
    LabelResults,
    LabelRow,
    Reliability,
    ReliabilityBin,
)
from conpet.state.slots import STATIC, shared_slot_of
from conpet.store import Cost, EventRecord, Snapshot, Store, TaskRecord, VersionRecord
from conpet.types import Evaluation

_CREATE = "create"


class History:
    """A workspace's history as reports show it; later calls read only new events.

    Args:
        store: The workspace's store.

    Attributes:
        confusion: The selector's confusion recorded with the last event that changed predictions, or empty.
        design: The report of the last search for a design, or None.
    """

    def __init__(self, store: Store) -> None:
        self.confusion: Mapping[str, Mapping[str, int]] = {}
        self.design: TuneReport | None = None
        self._store = store
        self._read = 0
        self._events: list[Event] = []
        self._standing = Standing()
        self._active: dict[str, int] = {}
        self._hits = self._asked = 0

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of cache lookups that were hits, over all events read; None if there were no lookups."""
        return self._hits / self._asked if self._asked else None

    def events(self, until: int | None = None) -> tuple[Event, ...]:
        """Return all changes so far, oldest first, up to generation `until`."""
        for record in self._store.events(after=self._read):
            if until is not None and record.id > until:
                break
            self._read = record.id
            if record.verb != _CREATE:
                self._take(record)
        return tuple(self._events)

    def _take(self, record: EventRecord) -> None:
        verb = Verb(record.verb)
        task = record.task or (" + ".join(record.detail.get("tasks", ())) if verb is not Verb.CONSOLIDATE else "")
        if record.restores is not None:
            task = str(record.restores)
            self._active = dict(record.detail["versions"])
        if record.version is not None:
            self._active[task] = record.version
        cached = record.detail.get(CACHE, {"hits": 0, "asked": 0})
        self._hits += cached["hits"]
        self._asked += cached["asked"]
        if verb is Verb.TUNE:
            self.design = TuneReport.model_validate(record.detail[DESIGN])
        elif verb not in (Verb.COSTS, Verb.LOG):
            self.confusion = record.confusion or {}
        event = Event(
            verb=verb,
            task=task,
            version=self._active.get(task, 0) if verb.of_one_task else None,
            at=record.time,
            cost=_costs(record.costs),
            trainable_parameters=sum(cost.parameters for cost in record.costs),
            trainable_parameters_with_heads=sum(cost.parameters + cost.head_parameters for cost in record.costs),
            bytes_stored=record.bytes_stored,
            peak_memory=max((cost.peak_bytes for cost in record.costs), default=0) or None,
            cache_hit_rate=cached["hits"] / cached["asked"] if cached["asked"] else None,
            **self._measures(record),
        )
        self._events.append(event)

    def _measures(self, record: EventRecord) -> dict[str, Any]:
        if not record.metrics:
            return {}
        references = {reference.name: Measurement(reference.value, reference.n) for reference in record.references}
        return _measures(Evaluation(metrics_of(record), references, matrix=self._standing.followed_by(row_of(record))))


def report_data(store: Store, until: int | None = None) -> ReportData:
    """Return the data of a report as recorded, without evaluating anything.

    Args:
        store: The workspace's store.
        until: The generation that the history ends with; None for the present one.
    """
    with store.snapshot() as snapshot:
        tasks = _task_infos(snapshot.tasks)
        history = History(store)
        events = history.events(until=snapshot.generation if until is None else until)
        answers = stored_answers(snapshot) if until in (None, snapshot.generation) else ()
        info = _workspace_info(store, snapshot)
    return ReportData(
        workspace=info,
        tasks=tasks,
        events=events,
        selector_confusion=history.confusion,
        label_results=label_results(answers),
        summary=summarise(events, tasks, info.backbone, history.cache_hit_rate),
        design=history.design,
        generated=datetime.now(UTC),
    )


def evaluated(data: ReportData, evaluation: Evaluation) -> ReportData:
    """Return a report with a new evaluation instead of the one recorded with the last event."""
    if not data.answering:
        return data
    last = data.answering[-1]
    measured = last.model_copy(update=_measures(evaluation))
    events = tuple(measured if event is last else event for event in data.events)
    return data.model_copy(
        update={
            "events": events,
            "selector_confusion": evaluation.selector_confusion,
            "label_results": label_results(evaluation.answers),
            "summary": summarise(events, data.tasks, data.workspace.backbone, _cache_hit_rate(data)),
        }
    )


def overall(data: ReportData) -> Event | None:
    """Return the last event that changed predictions, with figures of the whole workspace instead of its own.

    Trained parameters are those of the last task learned; cost and cache hit rate cover the whole history.
    """
    if not data.answering:
        return None
    last = data.answering[-1]
    learned = next((event for event in reversed(data.events) if event.verb.trains), last)
    return last.model_copy(
        update={
            "cost": _stage_totals(data.events),
            "trainable_parameters": learned.trainable_parameters,
            "trainable_parameters_with_heads": learned.trainable_parameters_with_heads,
            "peak_memory": _peak_memory(data.events),
            "cache_hit_rate": _cache_hit_rate(data),
        }
    )


def summarise(
    events: Sequence[Event], tasks: Sequence[TaskInfo], backbone: BackboneInfo, cache_hit_rate: float | None
) -> dict[str, JsonValue]:
    """Return the output of `conpet evaluate --json`.

    Row i of `accuracy_matrix` was measured after `events[i]`; its column j is the accuracy on `tasks[j]` (null if the
    task was not present or has no test examples). `tasks` are all tasks ever learned, `labels` those of present tasks.
    All metrics are fractions. `cost` covers the whole history.
    """
    last = next((event for event in reversed(events) if event.changes_answers), None)
    measured = [event for event in events if event.scores]
    columns = task_order(events)

    def of_last(name: str) -> JsonValue:
        return getattr(last, name) if last else None

    return {
        "whole_accuracy": of_last("whole_accuracy"),
        "average_accuracy": of_last("average_accuracy"),
        "forgetting": of_last("forgetting"),
        "backward_transfer": of_last("backward_transfer"),
        "selector_accuracy": of_last("selector_accuracy"),
        "within_task_accuracy": of_last("within_task_accuracy"),
        "references": dict(last.references) if last else {},
        "accuracy_matrix": [[event.accuracy(task) for task in columns] for event in measured],
        "cost": _cost_summary(events, backbone) | {"cache_hit_rate": cache_hit_rate},
        "tasks": list(columns),
        "labels": {task.name: list(task.labels) for task in tasks},
        "events": [{"verb": str(event.verb), "task": event.task, "version": event.version} for event in measured],
    }


def _cost_summary(events: Sequence[Event], backbone: BackboneInfo) -> dict[str, JsonValue]:
    stages = _stage_totals(events)
    learned = next((event for event in reversed(events) if event.verb.trains), None)
    last = events[-1] if events else None
    module = learned.trainable_parameters if learned else 0
    with_heads = learned.trainable_parameters_with_heads if learned else 0
    return {
        **StageCost.total(stages.values()).model_dump(),
        "stages": {name: stage.model_dump() for name, stage in stages.items()},
        "trainable_parameters": module,
        "trainable_parameters_with_heads": with_heads,
        "backbone_parameters": backbone.parameters,
        "times_fewer": backbone.times_fewer(module),
        "times_fewer_with_heads": backbone.times_fewer(with_heads),
        "bytes_stored": last.bytes_stored if last else 0,
        "peak_memory": _peak_memory(events),
    }


def _stage_totals(events: Sequence[Event]) -> dict[str, StageCost]:
    return {
        stage: StageCost.total(event.cost[stage] for event in events if stage in event.cost)
        for stage in all_stages(events)
    }


def measures(evaluation: Evaluation) -> Measures:
    """Return the metrics of an evaluation."""
    return Measures(**_measures(evaluation))


def label_results(answers: Sequence[AnsweredExample]) -> LabelResults | None:
    """Return the results by label; None without answers."""
    if not answers:
        return None
    evaluation = Evaluation({}, answers=tuple(answers))
    macro, weighted, calibration = evaluation.macro_average, evaluation.weighted_average, evaluation.calibration
    assert macro and weighted and calibration, "there are answers"  # noqa: S101, PT018
    return LabelResults(
        label_scores=tuple(
            LabelRow(
                label=score.label,
                task=score.task,
                precision=score.precision,
                recall=score.recall,
                f1=score.f1,
                support=score.support,
                answered=score.answered,
                correct=score.correct,
            )
            for score in evaluation.labels.values()
        ),
        macro_average=_average(macro),
        weighted_average=_average(weighted),
        confusion=tuple(
            ConfusedPair(
                label=pair.label,
                answer=pair.answer,
                count=pair.count,
                support=pair.support,
                examples=tuple(_confused(one) for one in pair.examples),
            )
            for pair in evaluation.confusion
        ),
        calibration=Reliability(
            expected_calibration_error=calibration.error,
            overconfidence=calibration.overconfidence,
            n=calibration.n,
            bins=tuple(
                ReliabilityBin(low=each.low, high=each.high, n=each.n, score=each.score, accuracy=each.accuracy)
                for each in calibration.bins
            ),
        ),
    )


def _average(average: LabelAverage) -> Average:
    return Average(precision=average.precision, recall=average.recall, f1=average.f1)


def _confused(one: AnsweredExample) -> ConfusedExample:
    return ConfusedExample(
        row=one.row,
        id=one.example.id if one.example else None,
        text=one.input,
        score=one.score,
        answered_by=one.answered_by,
    )


def _measures(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "scores": {task: Score(tally.correct, tally.total) for task, tally in evaluation.tallies.items()},
        "whole_accuracy": evaluation.whole_accuracy,
        "average_accuracy": evaluation.average_accuracy,
        "forgetting": evaluation.forgetting,
        "backward_transfer": evaluation.backward_transfer,
        "forgetting_examples": forgetting_examples(evaluation.matrix),
        "selector_accuracy": evaluation.selector_accuracy,
        "within_task_accuracy": evaluation.within_task_accuracy,
        "references": {name: reference.value for name, reference in evaluation.references.items() if reference.n},
    }


def _costs(costs: Iterable[Cost]) -> dict[str, StageCost]:
    stages: dict[str, StageCost] = {}
    for cost in costs:
        stage_cost = StageCost(seconds=cost.seconds, backbone_tokens=cost.tokens, optimiser_steps=cost.steps)
        stages[cost.stage] = StageCost.total([stages[cost.stage], stage_cost]) if cost.stage in stages else stage_cost
    return stages


def _cache_hit_rate(data: ReportData) -> float | None:
    rate = cost.get("cache_hit_rate") if isinstance(cost := data.summary.get("cost"), Mapping) else None
    return rate if isinstance(rate, float) else None


def _peak_memory(events: Iterable[Event]) -> int | None:
    return max((event.peak_memory for event in events if event.peak_memory), default=None)


def _workspace_info(store: Store, snapshot: Snapshot) -> WorkspaceInfo:
    header, folded = snapshot.header, FoldedNote.among(snapshot.shared)
    backbone = header.backbone
    fingerprint = Fingerprint(**backbone["fingerprint"])
    return WorkspaceInfo(
        name=store.path.name,
        backbone=BackboneInfo(
            name=backbone["name"],
            architecture=backbone["architecture"],
            layers=backbone["layers"],
            # From the settings, not from the recorded backbone: a search may have changed it.
            frozen_layers=header.settings["backbone"]["frozen_layers"],
            hidden_size=backbone["hidden_size"],
            parameters=backbone["parameters"],
            dtype=backbone["dtype"],
            fingerprint=(fingerprint.changed_by(folded.digest) if folded else fingerprint).digest,
            warmup=folded.tasks[0] if folded and folded.producer is Producer.WARM_UP else None,
            consolidated=folded.tasks if folded and folded.producer is Producer.CONSOLIDATION else (),
        ),
        method=header.settings["method"]["name"],
        settings=header.settings,
        created=header.created,
        conpet_version=version("conpet"),
    )


def _task_infos(tasks: Sequence[TaskRecord]) -> tuple[TaskInfo, ...]:
    """Describe tasks; a shared module is counted with the task whose version has the largest head.

    That task was learned last: a version that was relabelled or rolled back to has the smaller head of its time.
    """
    slots = {task.name: shared_slot_of(task.active.objects) for task in tasks}
    largest: dict[str | None, VersionRecord] = {}
    for active in sorted((task.active for task in tasks), key=lambda active: (active.head_parameters, active.id)):
        largest[slots[active.task]] = active
    return tuple(_task_info(task, slot, largest[slot].task) for task, slot in zip(tasks, slots.values(), strict=True))


def _task_info(task: TaskRecord, slot: str | None, counting: str) -> TaskInfo:
    active = task.active
    counts = active.description["counts"]
    elsewhere = slot is not None and counting != task.name
    return TaskInfo(
        name=task.name,
        labels=active.labels,
        version=active.number,
        train=counts["train"],
        validation=counts["validation"],
        test=counts["test"],
        module_parameters=0 if elsewhere else active.parameters,
        # A static method trains its one head with every task; a merged head has separate rows for each task.
        head_parameters=0 if elsewhere and slot == STATIC else active.head_parameters,
        bytes_stored=sum(version.bytes for version in task.versions),
        counted_with=counting if elsewhere else None,
        notes=tuple(active.description["notes"]),
    )
