"""The tasks: a list, and for each its labels, examples, confusions and versions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from conpet.commands.rows import answers_about
from conpet.commands.stored_rows import examples_to_show
from conpet.dashboard.charts import Chart, image
from conpet.dashboard.health import consolidation_due
from conpet.dashboard.listing import Listing, PageNumber, SearchText, listed, matches
from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.dashboard.waiting import WAIT_SECONDS
from conpet.data import Example
from conpet.evaluation.answers import Confusion, LabelScore, confusions, label_scores
from conpet.problem_details import ApiProblem
from conpet.replay.memory import Subset
from conpet.report import plots, svg
from conpet.serve.keys import Role
from conpet.store import Snapshot, TaskRecord, VersionRecord
from conpet.types import ACCURACY

router = page_router()
ENTRY = Entry(30, "/ui/tasks", marked("Tasks"))
Anybody = Annotated[Visit, visits(Role.PREDICT)]
Name = Annotated[str, Query(max_length=1000)]

VIEWS = {
    "labels": marked("Labels"),
    "examples": marked("Examples"),
    "confusions": marked("Confusions"),
    "versions": marked("Versions"),
}
"""What the page of a task shows, by name in its address."""
SUBSETS = {
    Subset.TRAIN: marked("training"),
    Subset.VALIDATION: marked("validation"),
    Subset.TEST: marked("test"),
}
"""What subsets are called."""
_CONFUSIONS = 50
"""Most pairs of labels that are listed."""


@dataclass(frozen=True, slots=True)
class Row:
    """A task in the list; its accuracy is None if it was not measured."""

    record: TaskRecord
    examples: int
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class LabelLine:
    """A label of a task, with the number of its stored training examples and, if it was measured, its score."""

    label: str
    examples: int | None
    score: LabelScore | None


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A stored example."""

    subset: Subset
    example: Example


@dataclass(frozen=True, slots=True)
class VersionLine:
    """A version of a task, with the labels that it has and the one before it has not, and the other way round."""

    record: VersionRecord
    added: Sequence[str]
    removed: Sequence[str]


@router.get("/tasks")
async def tasks(visit: Anybody, number: PageNumber = 1, text: SearchText = "") -> Response:
    """List the tasks."""
    visit.context.ready()
    snapshot = visit.context.serving.live.snapshot
    found = [task for task in snapshot.tasks if matches(text, task.name, *task.active.labels)]
    page = listed(found, number)
    accuracies, due = await asyncio.to_thread(lambda: (_accuracies(visit), consolidation_due(visit)))
    rows = [Row(task, _examples(task.active), accuracies.get(task.name)) for task in page.rows]
    return visit.render("tasks.html", page=page, rows=rows, text=text, labels=len(snapshot.owners), due=due)


@router.get("/tasks/task")
async def task(
    visit: Anybody, name: Name, view: str = "labels", number: PageNumber = 1, text: SearchText = "", subset: str = ""
) -> Response:
    """Show a task."""
    visit.context.ready()
    if view not in VIEWS:
        raise ApiProblem(404, "no-such-page", "there is no page at this address")
    snapshot = visit.context.serving.live.snapshot
    record = snapshot.task(name)
    values: dict[str, Any]
    match view:
        case "labels":
            values = await asyncio.to_thread(_of_labels, visit, snapshot, record, number, text)
        case "examples":
            if not visit.allows(Role.LEARN):
                raise ApiProblem(403, "forbidden", "stored examples are shown to keys of the role learn only")
            values = await asyncio.to_thread(_of_examples, record, number, text, subset)
        case "confusions":
            values = await asyncio.to_thread(_of_confusions, visit, snapshot, record)
        case _:
            values = {"versions": _versions(record)}
    return visit.render(
        "task.html",
        task=record,
        view=view,
        views={code: title for code, title in VIEWS.items() if code != "examples" or visit.allows(Role.LEARN)},
        subsets=SUBSETS,
        text=text,
        subset=subset,
        examples=_examples(record.active),
        **values,
    )


@router.get("/tasks/accuracy.svg")
async def accuracy_drawing(visit: Anybody, name: Name) -> Response:
    """Draw the accuracy of a task over time."""
    measured = await asyncio.to_thread(_measured, visit, name)
    line = plots.Line("accuracy", tuple(value for _, _, value in measured), svg.SERIES[0])
    titles = [str(generation) for generation, _, _ in measured]
    order = visit.gettext("changes, in their order")
    drawing = await asyncio.to_thread(plots.draw_curves, titles, [line], key="accuracy", description="", order=order)
    return image(drawing)


def _accuracies(visit: Visit) -> dict[str, float]:
    """Return the accuracy of each task when it was last measured."""
    computed = visit.context.accuracy.latest(WAIT_SECONDS)
    measured = [point.generation for point in computed.value if point.whole is not None] if computed else []
    if not measured:
        return {}
    (event,) = visit.context.opened().store.events(measured[-1] - 1, measured[-1])
    return {one.task: one.value for one in event.metrics if one.metric == ACCURACY}


def _examples(version: VersionRecord) -> int:
    return sum(version.description["counts"].values())


def _of_labels(visit: Visit, snapshot: Snapshot, record: TaskRecord, number: int, text: str) -> dict[str, Any]:
    stored = Counter(examples_to_show(record.active).labels(Subset.TRAIN)) if record.active.labels else Counter()
    scores = label_scores(answers_about(snapshot, record.name))
    lines = [
        LabelLine(label, stored[label], scores.get(label)) for label in record.active.labels if matches(text, label)
    ]
    return {"page": listed(lines, number), "chart": _chart(visit, record.name)}


def _of_examples(record: TaskRecord, number: int, text: str, subset: str) -> dict[str, Any]:
    memory = examples_to_show(record.active)
    if memory.latent:
        return {"page": None}
    wanted = [one for one in Subset if subset in ("", str(one))]
    if text:
        lines = [
            StoredLine(one, example)
            for one in wanted
            for example in memory.examples(one)
            if matches(text, example.content, example.label, str(example.id or ""))
        ]
        return {"page": listed(lines, number)}
    places = listed([(one, position) for one in wanted for position in range(memory.count(one))], number)
    rows = [StoredLine(one, memory.chosen(one, [position])[0]) for one, position in places.rows]
    return {"page": Listing(rows, places.number, places.pages, places.total)}


def _of_confusions(visit: Visit, snapshot: Snapshot, record: TaskRecord) -> dict[str, Any]:
    answers = answers_about(snapshot, record.name)
    every = confusions(answers)
    own = [pair for pair in every if pair.examples[0].task == record.name]
    taken = [pair for pair in every if pair not in own and pair.examples[0].answered_by == record.name]
    quoted = visit.allows(Role.LEARN)
    return {
        "measured": any(one.task == record.name for one in answers),
        "own": own[:_CONFUSIONS],
        "taken": taken[:_CONFUSIONS],
        "quoted": {pair: _quoted(pair) for pair in own[:_CONFUSIONS]} if quoted else {},
    }


def _quoted(pair: Confusion) -> Sequence[str]:
    """Return the inputs of a confusion, as far as they are stored."""
    return [one.input for one in pair.examples if one.input is not None][:5]


def _versions(record: TaskRecord) -> Sequence[VersionLine]:
    """Return the versions, newest first."""
    lines: list[VersionLine] = []
    before = frozenset[str]()
    for version in record.versions:
        labels = frozenset(version.labels)
        first = not lines
        added, removed = sorted(labels - before), sorted(before - labels)
        lines.append(VersionLine(version, [] if first else added, removed))
        before = labels
    return lines[::-1]


def _measured(visit: Visit, name: str) -> Sequence[tuple[int, datetime | None, float]]:
    """Return when the accuracy of a task was measured, after which generation, and what it was."""
    computed = visit.context.accuracy.latest(WAIT_SECONDS)
    times = {point.generation: point.time for point in computed.value} if computed else {}
    found = visit.context.opened().store.measured(name, ACCURACY)
    return [(generation, times.get(generation), metric.value) for generation, metric in found.items()]


def _chart(visit: Visit, name: str) -> Chart | None:
    """Return the chart of a task's accuracy, if it was measured twice."""
    measured = _measured(visit, name)
    if len(measured) < 2:
        return None
    formats = visit.formats
    return Chart(
        link("tasks/accuracy.svg", name=name, generation=measured[-1][0], language=visit.language.code),
        visit.gettext("Accuracy of this task after each change of the workspace"),
        [visit.gettext("Generation"), visit.gettext("When"), visit.gettext("Accuracy")],
        [
            (formats.number(generation), formats.moment(when), formats.percent(value))
            for generation, when, value in reversed(measured)
        ],
    )
