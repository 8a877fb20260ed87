"""One job: how far it is, what it did, why the gate refused it, and what can be done then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from starlette.responses import Response

from conpet.dashboard.falls import fallen
from conpet.dashboard.messages import marked
from conpet.dashboard.names import KINDS, STAGES, about_job, caller_name, state_of
from conpet.dashboard.navigation import page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.errors import CandidateOutdatedError, UnknownNameError
from conpet.evaluation.gate import GATE, REFUSED_AT, Comparison, GateReport, Level, Verdict
from conpet.evaluation.history import JOB
from conpet.jobs.records import Job, JobEventKind, JobKind, JobRequest
from conpet.problem_details import ApiProblem
from conpet.serve.keys import Role
from conpet.serve.submit import submit_change

router = page_router()
Learner = Annotated[Visit, visits(Role.LEARN)]
Operator = Annotated[Visit, visits(Role.OPERATE)]
_LINES = 200
"""Most lines of the log that are shown."""
_COMPARISONS = 100
"""Most rows of the gate's table."""
_DISCARD = marked("Discard the change. Nothing is lost but the computing time.")
_OF_DATA = (
    marked(
        "Correct the data: often, examples of a new label look like those of an earlier one. Then learn the task again."
    ),
    _DISCARD,
    marked("Make it anyway, if the new label is meant to take over these inputs."),
)
_OF_RETURN = (
    marked(
        "See what would get worse: something that was learned or corrected since would be lost. Another version may do."
    ),
    _DISCARD,
    marked("Make it anyway, if the present answers are worse than what would be lost."),
)
_OTHER_ADVICE = (
    marked("See what would get worse, and which labels would get these answers."),
    _DISCARD,
    marked("Make it anyway, if that is meant."),
)
_ADVICE = {
    **dict.fromkeys((JobKind.LEARN, JobKind.EXTEND, JobKind.REVIEW, JobKind.SPLIT), _OF_DATA),
    **dict.fromkeys((JobKind.ACTIVATE, JobKind.RESTORE), _OF_RETURN),
}
"""What can be done after a refusal, by kind of change; `_OTHER_ADVICE` for the rest."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A change that the gate refused.

    Attributes:
        number: Its number among the candidates.
        report: What it would do; None if it is gone.
        made: Whether it was made anyway.
    """

    number: int
    report: GateReport | None
    made: bool

    @property
    def broken(self) -> Sequence[Comparison]:
        """What would get worse, the largest fall first."""
        return self.report.broken[:_COMPARISONS] if self.report else ()

    @property
    def whole(self) -> Comparison | None:
        """All earlier labels together."""
        every = self.report.comparisons if self.report else ()
        return next((one for one in every if one.level is Level.WHOLE), None)

    @property
    def not_proven(self) -> int:
        """Number of earlier labels with too few examples to say anything."""
        every = self.report.comparisons if self.report else ()
        return sum(one.level is Level.LABEL and one.verdict is Verdict.NOT_PROVEN for one in every)


@router.get("/jobs/{job_id}")
async def job(visit: Learner, job_id: str) -> Response:
    """Show a job."""
    context = visit.context
    found = await asyncio.to_thread(context.jobs.get, job_id)
    caller = await asyncio.to_thread(context.jobs.caller, job_id)
    events = await asyncio.to_thread(context.jobs.events, job_id, 0, kind=JobEventKind.LOG)
    return visit.render(
        "job.html",
        job=found,
        caller=caller_name(context.keys, caller),
        may_cancel=visit.allows(Role.OPERATE) or caller == visit.caller.id,
        kind=visit.gettext(KINDS[found.kind]),
        advice=[visit.gettext(text) for text in _ADVICE.get(found.kind, _OTHER_ADVICE)],
        state=state_of(found),
        stage=_stage(visit, found),
        learned=_learned(found),
        about=about_job(visit, found),
        gate=await asyncio.to_thread(_gate, visit, found),
        kept=await asyncio.to_thread(_kept, visit, found),
        log=events[-_LINES:],
        refused=await asyncio.to_thread(_refused, visit, found),
    )


@router.post("/jobs/{job_id}/cancel")
async def cancel(visit: Learner, job_id: str) -> Response:
    """Cancel a job."""
    queue = visit.context.jobs
    if not visit.allows(Role.OPERATE) and await asyncio.to_thread(queue.caller, job_id) != visit.caller.id:
        raise ApiProblem(403, "forbidden", "this key may cancel only jobs that it requested; use one to operate")
    await asyncio.to_thread(queue.cancel, job_id, by=visit.caller.actor)
    return visit.redirect(link(f"jobs/{job_id}"), flash=visit.gettext("The job is being cancelled."))


@router.get("/candidates/{number}/promote")
async def ask_to_promote(visit: Operator, number: int) -> Response:
    """Say what making a refused change means."""
    report = await asyncio.to_thread(visit.context.opened().gate_report, number)
    effects = [
        visit.gettext("The change that the gate refused is made as it was computed. Nothing is trained again."),
        _harm(visit, report),
        visit.gettext("The history records that the gate was overruled, and by whom."),
        visit.gettext("You can roll the task back afterwards."),
    ]
    return visit.confirm(
        title=visit.gettext("Make the refused change?"),
        effects=effects,
        action=link(f"candidates/{number}/promote"),
        fields={},
        button=visit.gettext("Make the change anyway"),
        back=link("tasks"),
        danger=True,
        broken=report.broken[:_COMPARISONS],
    )


@router.post("/candidates/{number}/promote")
async def promote(visit: Operator, number: int) -> Response:
    """Make a refused change."""
    report = await asyncio.to_thread(visit.context.opened().gate_report, number)
    wanted = JobRequest(JobKind.PROMOTE, {"candidate": number, "gate": False}, report.tasks)
    submitted = await submit_change(visit.request, visit.caller, wanted)
    return visit.redirect(link(f"jobs/{submitted.job.id}"))


@router.post("/candidates/{number}/discard")
async def discard(visit: Operator, number: int) -> Response:
    """Delete a refused change."""
    discarded = partial(visit.context.opened().discard, number, wait_seconds=0.0, actor=visit.caller.actor)
    await asyncio.to_thread(discarded)
    return visit.redirect(link("tasks"), flash=visit.gettext("The refused change was deleted."))


def _harm(visit: Visit, report: GateReport) -> str:
    """Return why the gate refuses a change, as a sentence."""
    if report.broken:
        return visit.gettext("These get worse by more than the margin: %(what)s.", what=fallen(visit, report.fell))
    if report.dearer:
        return visit.gettext("Answers get dearer, counting what mistakes and computing cost.")
    return visit.gettext("There are too few held-out examples to prove that nothing gets worse.")


def _stage(visit: Visit, job: Job) -> str:
    """Return what a running job does at the moment."""
    if job.progress is None or job.state.ended:
        return ""
    stage = STAGES.get(job.progress.stage)
    return visit.gettext(stage) if stage else job.progress.stage


def _learned(job: Job) -> Sequence[Mapping[str, Any]]:
    """Return the tasks that a job has changed, with what is known of each."""
    result = job.result or {}
    measured = {"whole_accuracy": result.get("whole_accuracy")} if job.kind is JobKind.REMOVE else {}
    return [{**measured, **one} for one in result.get("tasks", []) if isinstance(one, Mapping)]


def _gate(visit: Visit, job: Job) -> Mapping[str, Any] | None:
    """Return what the gate found about a change that was made; None if it has nothing to say."""
    generation = (job.result or {}).get("generation")
    if generation is None:
        return None
    found = visit.context.opened().store.history(before=generation + 1, limit=1)
    own = [event.detail for event in found if event.detail.get(JOB) == job.id]
    return own[0].get(GATE) if own else None


def _kept(visit: Visit, job: Job) -> bool:
    """Return whether the state that a job replaced can still be gone back to."""
    replaced = (job.result or {}).get("replaced_generation")
    if replaced is None:
        return False
    return any(one.number == replaced and not one.present for one in visit.context.opened().generations)


def _refused(visit: Visit, job: Job) -> Refused | None:
    """Return the change of a job that the gate refused, or None."""
    number = (job.error or {}).get("candidate")
    if number is None:
        return None
    workspace = visit.context.opened()
    refused = {record.number: record.created for record in workspace.candidates}
    if number in refused and _during(job, refused[number]):
        with suppress(UnknownNameError, CandidateOutdatedError):
            return Refused(number, workspace.gate_report(number), made=False)
    entries = [event.detail.get(GATE) or {} for event in workspace.store.history(search=REFUSED_AT)]
    promoted = [datetime.fromisoformat(one[REFUSED_AT]) for one in entries if one.get("promoted") == number]
    return Refused(number, None, made=any(_during(job, moment) for moment in promoted))


def _during(job: Job, moment: datetime) -> bool:
    """Return whether a job was running at a moment."""
    return job.started is not None and job.ended is not None and job.started <= moment <= job.ended
