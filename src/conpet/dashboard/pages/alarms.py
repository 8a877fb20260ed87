"""Have the inputs, or what is made of them, changed?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Annotated

from starlette.responses import Response

from conpet.commands.watch import restart_watch
from conpet.dashboard.listing import PageNumber, SearchText, listed, matches
from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.dashboard.waiting import being_computed, latest
from conpet.serve.keys import Role
from conpet.watching.report import Signal

router = page_router()
ENTRY = Entry(60, "/ui/alarms", marked("Alarms"), Role.OPERATE)
Operator = Annotated[Visit, visits(Role.OPERATE)]
_SHOWN = 20
"""Most alarms of a family that are listed."""
_FORMER = 50
"""Most former alarms that are listed."""
_TITLES_OF_MANY = {
    "task": marked("Shares of tasks"),
    "label": marked("Shares of labels"),
    "accuracy": marked("Right answers of tasks"),
}
"""Titles of the families of signals of tasks and labels."""
_OF_ONE = {
    "task": marked("Share of the task “%(name)s”"),
    "label": marked("Share of the label “%(name)s”"),
    "accuracy": marked("Right answers of the task “%(name)s”"),
}
"""Titles of the signals of single tasks and labels."""
_TITLES = {
    "declined": marked("Declined inputs"),
    "asked": marked("Inputs answered by a question"),
    "unfit": marked("Inputs that fit no label"),
    "selector": marked("Certainty of the selector"),
    "confidence": marked("Confidence in the answers"),
    "scope": marked("Likeness to what was learned"),
    "learning": marked("Inputs unlike the examples"),
    "accuracy": marked("Right answers"),
}
_MEANINGS = {
    "task": marked("Of all answers, how many come from this task."),
    "label": marked("Of all answers, how many have this label."),
    "declined": marked("How many inputs were declined because they seem to belong to nothing learned."),
    "asked": marked("How many inputs were answered by a question with several candidates."),
    "unfit": marked("How many inputs are more likely to belong to nothing learned than to something."),
    "selector": marked("How probable the likeliest task is, on average, before any module runs."),
    "confidence": marked("How probable it is, on average, that the answer is right."),
    "scope": marked("How probable it is, on average, that an input belongs to something learned."),
    "learning": marked("How many inputs are less like the learned labels than 19 of 20 examples that were held out."),
    "accuracy": marked("How many answers are right, of those whose right label is known from review or feedback."),
}
_ADVICE = {
    "task": marked("Look at recent inputs of this task. If they are what you expect, begin watching anew."),
    "label": marked("Look at recent inputs with this label. If they are what you expect, begin watching anew."),
    "declined": marked("Look at declined inputs, label some of them, and teach them as a new task."),
    "asked": marked("Look at inputs that were answered by a question, and add some of them to their labels."),
    "unfit": marked("Look at declined inputs, label some of them, and teach them as a new task."),
    "selector": marked("Review some recent inputs to see whether the answers are still right."),
    "confidence": marked("Review some recent inputs to see whether the answers are still right."),
    "scope": marked("Look at recent inputs: spelling, language or subject may have changed. Review some of them."),
    "learning": marked("Users write in another way than the examples. Add reviewed inputs to the tasks."),
    "accuracy": marked("See which labels are taken for which, and add such inputs with their right labels."),
}


@dataclass(frozen=True, slots=True)
class Raised:
    """Alarms of one family.

    Attributes:
        title: What they are about.
        signals: The signals, those of which the evidence is strongest first.
    """

    title: str
    signals: Sequence[Shown]


@dataclass(frozen=True, slots=True)
class Shown:
    """A signal as the page shows it.

    Attributes:
        signal: The signal.
        title: What it is about.
        meaning: What its value is.
        advice: What to do after an alarm.
        evidence: How far the evidence is, from 0 to 1 for an alarm, on a logarithmic scale.
        look: Address of the recorded predictions that it is about.
    """

    signal: Signal
    title: str
    meaning: str
    advice: str
    evidence: float
    look: str


@router.get("/alarms")
async def alarms(visit: Operator, number: PageNumber = 1, text: SearchText = "") -> Response:
    """Show what watching has found."""
    context = visit.context
    context.ready()
    record = context.recorder.predictions
    if not record.exists:
        return visit.render("alarms.html", report=None, recording=await asyncio.to_thread(context.recording))
    found = await latest(context.watcher.report)
    if found is None:
        said = visit.gettext("The recorded predictions are being read for the first time since the server started.")
        return being_computed(visit, visit.gettext("Alarms"), said)
    former = await asyncio.to_thread(record.alarms, _FORMER)
    report = found.value
    signals = [shown(visit, signal) for signal in report.signals]
    others = [one for one in signals if not one.signal.alarm and matches(text, one.title, one.signal.name)]
    many = sorted(others, key=lambda one: (" " in one.signal.name, -one.evidence))
    present = {(signal.name, report.start) for signal in report.alarms}
    return visit.render(
        "alarms.html",
        report=report,
        time=found.time,
        alarms=_raised(visit, [one for one in signals if one.signal.alarm]),
        number=len(report.alarms),
        shown_most=_SHOWN,
        others=listed(many, number),
        former=[(title_of(visit, one.signal), one.time) for one in former if (one.signal, one.start) not in present],
        text=text,
    )


@router.get("/alarms/restart")
async def ask_to_restart(visit: Operator) -> Response:
    """Say what beginning anew does."""
    visit.context.record()
    return visit.confirm(
        title=visit.gettext("Begin watching anew?"),
        effects=[
            visit.gettext("The inputs from now on become what later ones are compared with."),
            visit.gettext("The present alarms are over. They stay in the list of former alarms."),
            visit.gettext("No answer and no recorded prediction changes."),
        ],
        action="/ui/alarms/restart",
        fields={},
        button=visit.gettext("Begin anew"),
        back="/ui/alarms",
    )


@router.post("/alarms/restart")
async def restart(visit: Operator) -> Response:
    """Let watching begin anew."""
    context = visit.context
    await asyncio.to_thread(restart_watch, context.record(), context.actions, visit.caller.actor)
    return visit.redirect("/ui/alarms", visit.gettext("Watching has begun anew."))


def _raised(visit: Visit, alarms: Sequence[Shown]) -> list[Raised]:
    """Return alarms by family: those of tasks and labels last."""
    families: dict[tuple[bool, str], list[Shown]] = {}
    for one in alarms:
        family, _, name = one.signal.name.partition(" ")
        families.setdefault((bool(name), family), []).append(one)
    return [
        Raised(
            visit.gettext(_TITLES_OF_MANY[family]) if many and len(found) > 1 else found[0].title,
            sorted(found, key=lambda one: -one.signal.evidence / one.signal.threshold),
        )
        for (many, family), found in sorted(families.items(), key=lambda item: item[0][0])
    ]


def shown(visit: Visit, signal: Signal) -> Shown:
    """Return a signal as pages show it."""
    family, _, name = signal.name.partition(" ")
    evidence = max(0.0, log(max(signal.evidence, 1.0)) / log(signal.threshold))
    query = {"task": name or None} if family in ("task", "accuracy") else {"label": name} if family == "label" else {}
    if family in ("declined", "unfit"):
        query = {"decision": "decline"}
    elif family == "asked":
        query = {"decision": "ask"}
    return Shown(
        signal,
        title_of(visit, signal.name),
        visit.gettext(_MEANINGS[family]),
        visit.gettext(_ADVICE[family]),
        1.0 if signal.alarm else min(evidence, 1.0),
        link("audit/predictions", **query),
    )


def title_of(visit: Visit, signal: str) -> str:
    """Return the title of a signal, given its name."""
    family, _, name = signal.partition(" ")
    return visit.gettext(_OF_ONE[family], name=name) if name else visit.gettext(_TITLES[family])
