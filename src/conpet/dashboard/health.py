"""Is it well? What a workspace and its server know about themselves, as a sentence and its reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from conpet.commands.accuracy_history import Point
from conpet.commands.consolidate import due
from conpet.commands.overruled import overruled
from conpet.dashboard.falls import fallen
from conpet.dashboard.names import VERBS
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit
from conpet.evaluation.gate import GATE, Level
from conpet.jobs.records import Job, JobState
from conpet.serve.keys import Role
from conpet.store import EventSummary, TaskRecord
from conpet.watching.report import WatchReport

Tone = Literal["good", "warn", "bad"]
_OVERRULED = 5
"""Most changes made against the gate that are named."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that needs attention.

    Attributes:
        tone: How much.
        text: What it is.
        path: Address of the page where it can be looked at, or "".
        action: Text of the link.
    """

    tone: Tone
    text: str
    path: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether it is well.

    Attributes:
        tone: The worst of its reasons.
        sentence: The answer.
        reasons: Why, the worst first.
        advice: What could be done, although nothing is wrong.
    """

    tone: Tone
    sentence: str
    reasons: Sequence[Reason]
    advice: Sequence[Reason] = ()


def health_of(
    visit: Visit, points: Sequence[Point], watched: WatchReport | None, last: Job | None, *, complete: bool
) -> Health:
    """Return whether all is well.

    Args:
        visit: The request; what its caller may not see is left out.
        points: Accuracy over time.
        watched: What watching the record has found, if it is known.
        last: The last job that ended, if it is known.
        complete: Whether accuracy and alarms are known, and not still computed.
    """
    found = [
        *_of_serving(visit),
        *_of_overruled(visit),
        *_of_accuracy(visit, points),
        *_of_watching(visit, watched),
        *_of_job(visit, last),
    ]
    reasons = sorted(found, key=lambda reason: reason.tone != "bad")
    tone, sentence = _said(visit, reasons, complete=complete)
    return Health(tone, sentence, reasons, _advice(visit))


def consolidation_due(visit: Visit) -> str:
    """Return why a consolidation is due, in the language of the page; "" if it is not, or may not be started."""
    if not visit.allows(Role.OPERATE):
        return ""
    found = due(visit.context.opened().store, visit.context.serving.live.snapshot)
    if found is None or not found.judged:
        return ""
    formats, examples = visit.formats, visit.formats.number(found.examples)
    if found.before is None:
        return visit.gettext(
            "A consolidation is due: there are %(examples)s training examples in %(tasks)s tasks, and none was done so "
            "far.",
            examples=examples,
            tasks=formats.number(found.tasks),
        )
    if found.seconds is None or found.accuracy is None:
        return visit.gettext(
            "A consolidation is due: there are %(examples)s training examples, and there were %(before)s at the last "
            "one.",
            examples=examples,
            before=formats.number(found.before),
        )
    return visit.gettext(
        "A consolidation is due: there are %(examples)s training examples, and there were %(before)s at the last one. "
        "That one took %(time)s and moved accuracy on validation examples from %(was)s to %(became)s.",
        examples=examples,
        before=formats.number(found.before),
        time=formats.duration(found.seconds),
        was=formats.percent(found.accuracy[0]),
        became=formats.percent(found.accuracy[1]),
    )


def _said(visit: Visit, reasons: Sequence[Reason], *, complete: bool) -> tuple[Tone, str]:
    if not visit.context.serving.live.state.tasks:
        return "warn", visit.gettext("Nothing has been learned yet.")
    if not reasons and not complete:
        return "good", visit.gettext("Nothing wrong is known so far.")
    if not reasons:
        return "good", visit.gettext("All is well.")
    if reasons[0].tone == "bad":
        return "bad", visit.gettext("Something is wrong and needs attention.")
    return "warn", visit.gettext("It works, but something needs a look.")


def _advice(visit: Visit) -> list[Reason]:
    reason = consolidation_due(visit)
    return [Reason("good", reason, link("tasks/consolidate"), visit.gettext("Consolidate…"))] if reason else []


def _of_serving(visit: Visit) -> Iterator[Reason]:
    if visit.context.serving.problem:
        text = visit.gettext(
            "The newest state of the workspace cannot be loaded. The one before it goes on answering; the log says why."
        )
        yield Reason("bad", text)
    if visit.context.opened().forgetting:
        text = visit.gettext("Forgetting data was interrupted and is not complete. Run “conpet forget” to finish it.")
        yield Reason("bad", text)


def _of_overruled(visit: Visit) -> Iterator[Reason]:
    """Yield the changes that were made against the gate and still stand."""
    live = visit.context.serving.live
    tasks = {task.name: task for task in live.snapshot.tasks}
    for event in overruled(visit.context.opened().store)[:_OVERRULED]:
        change = visit.gettext(VERBS.get(event.verb, event.verb))
        change = change if event.task is None else f"{change} – {event.task}"
        text = visit.gettext("A change was made although the gate refused it: %(change)s.", change=change)
        if numbers := event.detail[GATE].get("fell"):
            what = fallen(visit, {Level(name): number for name, number in numbers.items()})
            text += visit.gettext(" These got worse by more than the margin: %(what)s.", what=what)
        yield Reason("warn", text, *_way_back(visit, event, tasks.get(event.task or "")))


def _way_back(visit: Visit, event: EventSummary, task: TaskRecord | None) -> tuple[str, str]:
    """Return the address of the page where a change can be undone, and the text of its link."""
    operator = visit.allows(Role.OPERATE)
    if task is None:
        return (link("tasks/kept"), visit.gettext("Kept states")) if operator else ("", "")
    if len(task.versions) > 1:
        return link("tasks/task", name=task.name, view="versions"), visit.gettext("Roll back…")
    if event.verb == "learn" and operator:
        return link("tasks/remove", name=task.name), visit.gettext("Remove the task…")
    return link("tasks/task", name=task.name), visit.gettext("Look at the task")


def _of_accuracy(visit: Visit, points: Sequence[Point]) -> Iterator[Reason]:
    measured = [point for point in points if point.whole is not None]
    if not points:
        return
    if not measured:
        text = visit.gettext("Accuracy is not known: no task has test examples.")
        yield Reason("warn", text, link("tasks"), visit.gettext("Tasks"))
        return
    last = measured[-1]
    if last.fell:
        text = visit.gettext(
            "Earlier tasks have lost %(points)s points on average since their best.",
            points=visit.formats.points(last.forgetting).removeprefix("+"),
        )
        yield Reason("warn", text, link("tasks"), visit.gettext("Tasks"))


def _of_watching(visit: Visit, watched: WatchReport | None) -> Iterator[Reason]:
    alarms = watched.alarms if watched is not None else ()
    if alarms and visit.allows(Role.OPERATE):
        text = visit.ngettext(
            "%(num)s alarm: what people ask, or how it is answered, has changed since the last change.",
            "%(num)s alarms: what people ask, or how it is answered, has changed since the last change.",
            len(alarms),
        )
        yield Reason("bad", text, link("alarms"), visit.gettext("Alarms"))


def _of_job(visit: Visit, last: Job | None) -> Iterator[Reason]:
    if last is None or last.state is not JobState.FAILED:
        return
    refused = (last.error or {}).get("candidate") is not None
    text = (
        visit.gettext("The gate stopped the last change, because earlier answers would have become worse.")
        if refused
        else visit.gettext("The last job failed; nothing was changed.")
    )
    yield Reason("warn", text, link(f"jobs/{last.id}"), visit.gettext("Look at the job"))
