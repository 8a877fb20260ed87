"""Which tasks the answers came from, day by day."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from markupsafe import Markup
from pydantic import BeforeValidator
from starlette.responses import Response

from conpet.dashboard.charts import Chart, Key, image
from conpet.dashboard.listing import PageNumber, SearchText, listed, matches
from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.report.plots import Line, draw_shares, draw_stacks
from conpet.report.svg import SERIES
from conpet.serve.keys import Role
from conpet.store.prediction_log import DayCount, PredictionLog

router = page_router()
ENTRY = Entry(50, "/ui/routing", marked("Routing"), Role.PREDICT)
Visitor = Annotated[Visit, visits(Role.PREDICT)]
Days = Annotated[Literal[7, 30, 90], BeforeValidator(lambda given: int(given) if str(given).isdecimal() else given)]
Kind = Literal["traffic", "decisions", "confidence"]
PERIODS: dict[int, str] = {7: marked("7 days"), 30: marked("30 days"), 90: marked("90 days")}
_DRAWINGS: dict[Kind, str] = {
    "traffic": marked("Answers by day and task"),
    "decisions": marked("Inputs that were declined or asked about, by day"),
    "confidence": marked("Mean confidence in the answers, by day"),
}
_NAMED = 8
"""Most days that are named in a drawing."""
_HEIGHT = 215
"""Height of the drawings in pixels."""
_TASKS = 7
"""Tasks that have a colour of their own in the chart."""


@dataclass(slots=True)
class Sums:
    """Counts of answers.

    Attributes:
        number: How many.
        confidence: Sum of their confidence.
        decisions: How many by decision.
    """

    number: int = 0
    confidence: float = 0.0
    decisions: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, count: DayCount) -> None:
        """Add a count."""
        self.number += count.number
        self.confidence += count.confidence * count.number
        self.decisions[count.decision] += count.number

    def join(self, other: Sums) -> None:
        """Add the answers of others."""
        self.number += other.number
        self.confidence += other.confidence
        for decision, number in other.decisions.items():
            self.decisions[decision] += number

    def share(self, decision: str) -> float | None:
        """Return the share of a decision; None without answers."""
        return self.decisions[decision] / self.number if self.number else None

    @property
    def mean_confidence(self) -> float | None:
        """The mean confidence; None without answers."""
        return self.confidence / self.number if self.number else None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in the table.

    Attributes:
        name: Its name.
        sums: Its answers.
        share: Its share of all answers.
        change: What the share was more than in the period before; None without answers then.
    """

    name: str
    sums: Sums
    share: float
    change: float | None


@router.get("/routing")
async def routing(
    visit: Visitor, days: Days = 30, number: PageNumber = 1, text: SearchText = "", task: str | None = None
) -> Response:
    """Show which tasks answered."""
    context = visit.context
    context.ready()
    record = context.recorder.predictions
    period = _period(days)
    whole = Sums()
    rows: list[TaskRow] = []
    if task is None:
        rows = await asyncio.to_thread(_rows, record, period, days)
        for row in rows:
            whole.join(row.sums)
    else:
        for count in await asyncio.to_thread(record.daily, period[0], days=False, tasks=False, of=[task]):
            whole.add(count)
    return visit.render(
        "routing.html",
        exists=record.exists or await asyncio.to_thread(context.recording) != "off",
        days=days,
        periods=PERIODS,
        task=task,
        whole=whole,
        charts=await asyncio.to_thread(_charts, visit, record, days, task, rows) if whole.number else [],
        tasks=listed([row for row in rows if matches(text, row.name)], number),
        text=text,
    )


@router.get("/routing/{kind}.svg")
async def drawing(visit: Visitor, kind: Kind, days: Days, task: str | None = None) -> Response:
    """Draw a chart."""
    return image(await asyncio.to_thread(_drawn, visit, kind, days, task))


def _period(days: int) -> list[date]:
    """Return the last days, oldest first, today included (UTC)."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=back) for back in range(days - 1, -1, -1)]


def _rows(record: PredictionLog, period: Sequence[date], days: int) -> list[TaskRow]:
    """Return the tasks by their number of answers, the largest first."""
    both = record.daily(period[0] - timedelta(days=days), days=False)
    now, former = defaultdict[str, Sums](Sums), defaultdict[str, Sums](Sums)
    for count in record.daily(period[0], days=False):
        now[str(count.task)].add(count)
    for count in both:
        former[str(count.task)].add(count)
    whole = sum(one.number for one in now.values())
    before = sum(one.number for one in former.values()) - whole
    rows = []
    for name in former:
        number = now[name].number
        share = number / whole if whole else 0.0
        earlier = (former[name].number - number) / before if before else None
        rows.append(TaskRow(name, now[name], share, None if earlier is None else share - earlier))
    return sorted(rows, key=lambda row: (-row.sums.number, row.name))


@dataclass(frozen=True, slots=True)
class DailyTraffic:
    """What the charts show.

    Attributes:
        titles: The days.
        short_titles: The days without the year.
        stacks: Answers of each day, by task.
        declined: Share of the inputs of each day that were declined; None without any.
        asked: Share that was answered by a question.
        confidence: Mean confidence.
    """

    titles: Sequence[str]
    short_titles: Sequence[str]
    stacks: Mapping[str, Sequence[float]]
    declined: Sequence[float | None]
    asked: Sequence[float | None]
    confidence: Sequence[float | None]

    @property
    def mark(self) -> str:
        """What changes with any of its numbers."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


def _daily_traffic(
    visit: Visit, record: PredictionLog, days: int, task: str | None, named: Sequence[str]
) -> DailyTraffic:
    """Return the answers of each day, with some tasks named; or those of one task."""
    period = _period(days)
    daily: dict[date, Sums] = {day: Sums() for day in period}
    for count in record.daily(period[0], tasks=False, of=None if task is None else [task]):
        daily.setdefault(count.day or period[-1], Sums()).add(count)  # a new day may have begun
    every = [daily[day].number for day in period]
    stacks = {name: [0] * len(period) for name in named}
    places = {day: place for place, day in enumerate(period)}
    for count in record.daily(period[0], of=named):
        stacks[str(count.task)][places.get(count.day or period[-1], -1)] += count.number
    rest = [whole - sum(known) for whole, *known in zip(every, *stacks.values(), strict=True)]
    if any(rest):
        stacks[visit.gettext("other tasks")] = rest
    return DailyTraffic(
        [visit.formats.day(day) for day in period],
        [visit.formats.short_day(day) for day in period],
        stacks,
        [daily[day].share("decline") for day in period],
        [daily[day].share("ask") for day in period],
        [daily[day].mean_confidence for day in period],
    )


def _named(rows: Sequence[TaskRow], task: str | None) -> list[str]:
    """Return the tasks that have a colour of their own."""
    return [row.name for row in rows[:_TASKS] if row.sums.number] if task is None else [task]


def _drawn(visit: Visit, kind: Kind, days: Days, task: str | None) -> Markup:
    record = visit.context.recorder.predictions
    rows = _rows(record, _period(days), days) if kind == "traffic" and task is None else []
    traffic = _daily_traffic(visit, record, days, task, _named(rows, task))
    every = -(-len(traffic.titles) // _NAMED)
    key, description = f"routing {kind}", visit.gettext(_DRAWINGS[kind])
    if kind == "traffic":
        return draw_stacks(traffic.short_titles, traffic.stacks, key=key, description=description, every=every)
    shown = {
        "decisions": [Line("", tuple(traffic.declined), SERIES[0]), Line("", tuple(traffic.asked), SERIES[2])],
        "confidence": [Line("", tuple(traffic.confidence), SERIES[1])],
    }
    return draw_shares(traffic.short_titles, shown[kind], key=key, description=description, every=every)


def _charts(visit: Visit, record: PredictionLog, days: Days, task: str | None, rows: Sequence[TaskRow]) -> list[Chart]:
    traffic, formats = _daily_traffic(visit, record, days, task, _named(rows, task)), visit.formats
    query = {"days": days, "task": task, "language": visit.language.code, "numbers": traffic.mark}
    day, declined, asked = visit.gettext("Day (UTC)"), visit.gettext("declined"), visit.gettext("asked back")
    confidence = visit.gettext("mean confidence")
    return [
        Chart(
            link("routing/traffic.svg", **query),
            visit.gettext(_DRAWINGS["traffic"]),
            [day, *traffic.stacks],
            [
                [title, *map(formats.number, amounts)]
                for title, *amounts in zip(traffic.titles, *traffic.stacks.values(), strict=True)
            ],
            [Key(name, f"area series-{number}") for number, name in enumerate(traffic.stacks, start=1)],
            height=_HEIGHT,
        ),
        Chart(
            link("routing/decisions.svg", **query),
            visit.gettext(_DRAWINGS["decisions"]),
            [day, declined, asked],
            [
                [title, formats.percent(one), formats.percent(other)]
                for title, one, other in zip(traffic.titles, traffic.declined, traffic.asked, strict=True)
            ],
            [Key(declined, "series-1"), Key(asked, "series-3")],
            height=_HEIGHT,
        ),
        Chart(
            link("routing/confidence.svg", **query),
            visit.gettext(_DRAWINGS["confidence"]),
            [day, confidence],
            [[title, formats.percent(one)] for title, one in zip(traffic.titles, traffic.confidence, strict=True)],
            [Key(confidence, "series-2")],
            height=_HEIGHT,
        ),
    ]
