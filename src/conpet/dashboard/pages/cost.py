"""What the workspace has cost, and what an answer costs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.responses import Response

from conpet.dashboard.listing import PageNumber, SearchText, listed, matches
from conpet.dashboard.messages import marked
from conpet.dashboard.names import VERBS
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.visit import Visit, visits
from conpet.dashboard.waiting import being_computed, latest
from conpet.evaluation.cost_report import CostReport
from conpet.serve.keys import Role
from conpet.store import CostKind

router = page_router()
ENTRY = Entry(90, "/ui/cost", marked("Cost"), Role.OPERATE)
KINDS = {
    CostKind.LEARN: marked("Learning"),
    CostKind.CHANGE: marked("Other changes"),
    CostKind.GATE: marked("Comparing earlier answers (gate)"),
    CostKind.EVALUATE: marked("Evaluating"),
    CostKind.CONSOLIDATE: marked("Consolidating"),
    CostKind.TUNE: marked("Searching for a design"),
    CostKind.PREDICT: marked("Answering"),
    CostKind.REVIEW: marked("People's work"),
}
"""What costs are for."""
WAYS = {
    "learning everything anew each time": marked("Learning everything anew each time"),
    "a module per task without sharing": marked("A model of its own for each task, nothing shared"),
}
"""Other ways to do the same."""
PRICES = {
    "cpu_hour": (marked("An hour of a processor core"), "--cpu-hour"),
    "gpu_hour": (marked("An hour of an accelerator"), "--gpu-hour"),
    "gb_month": (marked("A gigabyte stored for 30 days"), "--gb-month"),
    "kwh": (marked("A kilowatt-hour"), "--kwh"),
    "review_hour": (marked("An hour of people's work"), "--review-hour"),
    "wrong_answer": (marked("A wrong answer"), "--wrong-answer"),
    "late_day": (marked("A day on which a needed label cannot be answered yet"), "--late-day"),
}
"""Prices, with the option of `conpet costs set` for each."""
_VERSIONS = 20
"""Most versions that are listed, the newest ones."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price.

    Attributes:
        name: What it is for.
        amount: How much; None if it is not set.
        option: The option of `conpet costs set`.
    """

    name: str
    amount: float | None
    option: str


@router.get("/cost")
async def cost(
    visit: Annotated[Visit, visits(Role.OPERATE)], number: PageNumber = 1, text: SearchText = ""
) -> Response:
    """Show what the workspace has cost."""
    store = visit.context.opened().store
    (last,) = await asyncio.to_thread(store.history, limit=1)
    found = await latest(visit.context.cost, last.time)
    if found is None:
        said = visit.gettext("The costs of all operations are being added up.")
        return being_computed(visit, visit.gettext("Cost"), said)
    report = found.value
    tasks = sorted((one for one in report.tasks if matches(text, one.task)), key=lambda one: -one.money)
    return visit.render(
        "cost.html",
        report=report,
        time=found.time,
        highest=max((one.money for one in report.tasks), default=0.0),
        tasks=listed(tasks, number),
        text=text,
        kinds=[(visit.gettext(KINDS[CostKind(line.name)]), line) for line in report.kinds if _used(line)],
        ways=[(visit.gettext(WAYS[one.name]) if one.name in WAYS else one.name, one) for one in report.alternatives],
        prices=_prices(visit, report),
        versions=report.versions[::-1][:_VERSIONS],
        verbs=VERBS,
    )


def _used(line: Any) -> bool:
    return bool(line.operations or line.examples)


def _prices(visit: Visit, report: CostReport) -> list[Price]:
    return [Price(visit.gettext(name), report.prices[key], option) for key, (name, option) in PRICES.items()]
