"""Is it well? Tasks, accuracy over time, traffic, alarms, the last change, cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, get_args

from markupsafe import Markup
from starlette.responses import Response

from conpet.commands.accuracy_history import Point
from conpet.commands.cost import spent_since
from conpet.dashboard.charts import Chart, Key, image
from conpet.dashboard.health import Health, health_of
from conpet.dashboard.messages import marked
from conpet.dashboard.names import DECISIONS, VERBS, actor_name
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.evaluation.gate import GATE
from conpet.evaluation.history import SETTINGS_ONLY
from conpet.jobs.records import Job
from conpet.report import plots, svg
from conpet.serve.keys import Role
from conpet.store import EventSummary
from conpet.types import Decision

router = page_router()
ENTRY = Entry(10, "/ui/overview", marked("Overview"))
Anybody = Annotated[Visit, visits(Role.PREDICT)]

DAYS = 30
"""Days of traffic that are shown."""
_WAIT_SECONDS = 0.05
"""How long the page waits for what is computed beside it."""
_POINTS = 200
"""Most changes in a chart; earlier ones are left out."""
_TASKS = 8
"""Tasks with the most traffic that are listed."""
_AMONG = 20
"""Newest jobs, and changes, among which the last one of interest is looked for."""
_NO_CHANGE = SETTINGS_ONLY | {"create"}
"""Verbs of events that change no answer."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The recorded answers of the last days.

    Attributes:
        days: The days.
        by_day: Number of answers by decision, for each day.
        by_task: The tasks with the most answers, with their number.
    """

    days: Sequence[date]
    by_day: Sequence[dict[str, int]]
    by_task: Sequence[tuple[str, int]]

    @property
    def total(self) -> int:
        """Number of all of them."""
        return sum(sum(counts.values()) for counts in self.by_day)

    def share(self, decision: str) -> float | None:
        """Return the share with a decision; None without answers."""
        return sum(counts.get(decision, 0) for counts in self.by_day) / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows.

    Attributes:
        health: Whether all is well.
        points: Accuracy over time; None while it is computed.
        traffic: Recorded answers; None if nothing is recorded.
        alarms: Number of alarms; None if they are not known, or may not be seen.
        last: The last change.
        spent: Money spent this month, and its currency; None if it may not be seen.
        complete: Whether accuracy and alarms are known, and not still computed.
        recorded: Whether answers are recorded.
    """

    health: Health
    points: Sequence[Point] | None
    traffic: Traffic | None
    alarms: int | None
    last: EventSummary | None
    spent: tuple[float, str] | None
    complete: bool
    recorded: bool

    @property
    def measured(self) -> Sequence[Point]:
        """The changes after which accuracy was measured."""
        return [point for point in self.points or () if point.whole is not None]


@router.get("/overview")
async def overview(visit: Anybody) -> Response:
    """Show whether all is well."""
    visit.context.ready()
    found = await asyncio.to_thread(_gathered, visit)
    state = visit.context.serving.live.state
    return visit.render(
        "overview.html",
        found=found,
        generation=visit.context.serving.live.generation,
        tasks=len(state.tasks),
        labels=sum(len(task.labels) for task in state.tasks),
        accuracy=_accuracy_chart(visit, found.measured),
        traffic=_traffic_chart(visit, found.traffic),
        last_verb=_verb(visit, found.last),
        last_by=actor_name(visit.context.keys, found.last.actor) if found.last else "",
        gate=(found.last.detail.get(GATE) or {}) if found.last else {},
        DAYS=DAYS,
    )


@router.get("/overview/accuracy.svg")
async def accuracy_drawing(visit: Anybody) -> Response:
    """Draw accuracy over time."""
    visit.context.ready()
    return image(await asyncio.to_thread(_draw_accuracy, visit))


@router.get("/overview/traffic.svg")
async def traffic_drawing(visit: Anybody) -> Response:
    """Draw answers by day."""
    visit.context.ready()
    return image(await asyncio.to_thread(_draw_traffic, visit))


def _gathered(visit: Visit) -> Overview:
    context, store = visit.context, visit.context.opened().store
    last = next((one for one in store.history(limit=_AMONG) if one.verb not in _NO_CHANGE), None)
    since = None if last is None else last.time
    watches = context.recorder.predictions.exists
    context.accuracy.latest(since=since)  # both are computed while the rest is read
    if watches:
        context.watcher.report.latest()
    traffic, job = _traffic(visit), _last_job(visit)
    spent = spent_since(store, _month(datetime.now(UTC))) if visit.allows(Role.OPERATE) else None
    points = _points(visit, since)
    watched = context.watcher.report.latest(_WAIT_SECONDS) if watches else None
    report = None if watched is None else watched.value
    alarms = len(report.alarms) if report is not None and visit.allows(Role.OPERATE) else None
    complete = points is not None and (report is not None or not watches)
    health = health_of(visit, points or (), report, job, complete=complete)
    recorded = watches or context.recording() != "off"
    return Overview(health, points, traffic, alarms, last, spent, complete, recorded)


def _points(visit: Visit, since: datetime | None) -> Sequence[Point] | None:
    """Return accuracy over time, up to a moment if that was read by now; None while it is computed."""
    computed = visit.context.accuracy.latest(_WAIT_SECONDS, since) or visit.context.accuracy.latest()
    return None if computed is None else computed.value


def _last_job(visit: Visit) -> Job | None:
    """Return the last job that ended, for those who may see jobs."""
    if not visit.allows(Role.LEARN):
        return None
    return next((job for job in visit.context.jobs.list(limit=_AMONG) if job.state.ended), None)


def _traffic(visit: Visit) -> Traffic | None:
    """Return the answers of the last days, from counts that are kept."""
    record = visit.context.recorder.predictions
    if not record.exists:
        return None
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    by_day: dict[date, Counter[str]] = {day: Counter() for day in days}
    for one in record.daily(days[0], tasks=False):
        if one.day in by_day:
            by_day[one.day][one.decision] += one.number
    by_task: Counter[str] = Counter()
    for one in record.daily(days[0], days=False):
        by_task[one.task or ""] += one.number
    return Traffic(days, [dict(by_day[day]) for day in days], by_task.most_common(_TASKS))


def _month(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _verb(visit: Visit, event: EventSummary | None) -> str:
    """Return what the last change was."""
    return "" if event is None else visit.gettext(VERBS.get(event.verb, event.verb))


def _accuracy_chart(visit: Visit, measured: Sequence[Point]) -> Chart | None:
    if len(measured) < 2:
        return None
    formats = visit.formats
    rows = [
        (
            _title(visit, point),
            formats.moment(point.time),
            formats.percent(point.whole),
            formats.percent(point.average),
            formats.points(point.forgetting),
        )
        for point in reversed(measured[-_POINTS:])
    ]
    return Chart(
        link("overview/accuracy.svg", generation=measured[-1].generation, language=visit.language.code),
        visit.gettext("Accuracy after each change"),
        [
            visit.gettext("Change"),
            visit.gettext("When"),
            visit.gettext("All test examples"),
            visit.gettext("Mean of the tasks"),
            visit.gettext("Forgetting, points"),
        ],
        rows,
        [
            Key(visit.gettext("all test examples"), "series-1"),
            Key(visit.gettext("mean of the tasks"), "series-2"),
        ],
    )


def _draw_accuracy(visit: Visit) -> Markup:
    measured = [point for point in _points(visit, None) or () if point.whole is not None][-_POINTS:]
    lines = (
        plots.Line("whole", tuple(point.whole for point in measured), svg.SERIES[0]),
        plots.Line("average", tuple(point.average for point in measured), svg.SERIES[1]),
    )
    titles = [_title(visit, point) for point in measured]
    order = visit.gettext("changes, in their order")
    return plots.draw_curves(titles, lines, key="accuracy", description="", order=order)


def _title(visit: Visit, point: Point) -> str:
    """Return a short title of a change: the task's name if it was learned for the first time."""
    if point.verb == "learn" and point.task:
        return point.task if point.version == 1 else f"{point.task} v{point.version}"
    verb = visit.gettext(VERBS.get(point.verb, point.verb))
    return f"{verb}: {point.task}" if point.task else verb


def _traffic_chart(visit: Visit, traffic: Traffic | None) -> Chart | None:
    if traffic is None or not traffic.total:
        return None
    formats = visit.formats
    rows = [
        (formats.day(day), *(formats.number(counts.get(decision, 0)) for decision in get_args(Decision)))
        for day, counts in reversed(list(zip(traffic.days, traffic.by_day, strict=True)))
        if counts
    ]
    return Chart(
        # the last hour's numbers change it
        link("overview/traffic.svg", day=traffic.days[-1], total=traffic.total, language=visit.language.code),
        visit.gettext("Answers by day"),
        [visit.gettext("Day"), *(visit.gettext(DECISIONS[decision]) for decision in get_args(Decision))],
        rows,
        [
            Key(visit.gettext(DECISIONS[decision]), f"area series-{number}")
            for number, decision in enumerate(get_args(Decision), start=1)
        ],
        height=215,
    )


def _draw_traffic(visit: Visit) -> Markup:
    traffic = _traffic(visit)
    days, by_day = (traffic.days, traffic.by_day) if traffic else ((), ())
    stacks = {decision: [float(counts.get(decision, 0)) for counts in by_day] for decision in get_args(Decision)}
    titles = [visit.formats.short_day(day) for day in days]
    return plots.draw_stacks(titles, stacks, key="traffic", description="", every=5)
