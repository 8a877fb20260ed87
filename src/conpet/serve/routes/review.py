"""`/v1/review`: answers that people look at, their verdicts, the accuracy, and learning what was reviewed.

The queue is on disk, so that it is always asked in a thread.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from conpet.config.duration import moment_of
from conpet.errors import DataError
from conpet.jobs.records import JobKind, JobRequest
from conpet.problem_details import ApiProblem
from conpet.review.label_studio import is_export, read_tasks
from conpet.review.records import Imported, ReviewItem
from conpet.review.review import Review, kind_of, state_of
from conpet.serve.auth import Caller, requires
from conpet.serve.bodies import body_of, json_body
from conpet.serve.context import context_of
from conpet.serve.job_schemas import JobFields
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.review_schemas import (
    AccuracyResponse,
    AnswerRequest,
    DrawRequest,
    DrawResponse,
    ImportRequest,
    ImportResponse,
    ItemFields,
    ItemsResponse,
    Kind,
    LearnReviewedRequest,
    NextRequest,
    NextResponse,
    PlanResponse,
    ReportRequest,
    ReportResponse,
    State,
    StatusResponse,
    UndoRequest,
)
from conpet.serve.routes.jobs import ACCEPTED, Key, accepted
from conpet.serve.routes.predict import propose
from conpet.serve.submit import submit_change
from conpet.types import Candidate

router = APIRouter(prefix="/v1/review", tags=["review"])
reviewing = requires(Role.LEARN)
Reviewer = Annotated[Caller, reviewing]
Asker = Annotated[Caller, requires(Role.PREDICT)]
Number = Annotated[int, InPath(ge=1, le=2**53, description="Number of an item.")]
_ERRORS = documented(401, 403, 404, 409, 422, 429)
_SOURCE = "the tasks"
_LABEL_STUDIO_TASK = {
    "data": {"text": "my card was swallowed"},
    "annotations": [{"result": [{"type": "choices", "value": {"choices": ["card_swallowed"]}}]}],
}
_LABELLING = '<View><Text name="text" value="$text"/><Choices name="label" toName="text">...</Choices></View>'


@router.get("", summary="How far the review is", dependencies=[reviewing], responses=documented(401, 403, 422, 429))
async def status(request: Request) -> StatusResponse:
    """Return what waits, who has reviewed how much, and how far reviewers agree."""
    review = context_of(request).review()
    found = await asyncio.to_thread(review.status)
    return StatusResponse.model_validate(found.to_json())


@router.post(
    "/draw",
    summary="Draw answers for review",
    dependencies=[reviewing],
    responses=_ERRORS,
    openapi_extra=body_of(DrawRequest, default={}, more_in_doubt={"random": 50, "uncertain": 200}),
)
async def draw(
    request: Request, caller: Reviewer, body: Annotated[DrawRequest, json_body(DrawRequest)]
) -> DrawResponse:
    """Draw from the predictions recorded since the last draw; they must be recorded with their inputs."""
    review = context_of(request).review()
    start = None if body.since is None else moment_of(body.since, "since")
    wanted = body.model_dump(exclude={"since"})
    drawn = await asyncio.to_thread(partial(review.draw, **wanted, since=start, by=caller.actor))
    return DrawResponse.model_validate(drawn.to_json())


@router.post(
    "/next",
    summary="Take the next item",
    dependencies=[reviewing],
    responses=_ERRORS,
    openapi_extra=body_of(NextRequest, default={}, with_candidates={"candidates": 5}),
)
async def take_next(
    request: Request, caller: Reviewer, body: Annotated[NextRequest, json_body(NextRequest)]
) -> NextResponse:
    """Take the next item, which nobody else gets meanwhile; a reviewer who has one already gets it again."""
    review, name = context_of(request).review(), reviewer_of(caller, body.reviewer)
    item = await asyncio.to_thread(review.next, name, kind=body.kind, lease_seconds=60 * body.minutes)
    if item is not None and body.candidates:
        item = replace(item, candidates=await candidates_of(request, item, body.candidates))
    return NextResponse(item=None if item is None else _fields(item))


@router.get("/items", summary="The items", dependencies=[reviewing], responses=_ERRORS)
async def items(
    request: Request,
    state: Annotated[State | None, Query(description="Only items in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only items of this kind.")] = None,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only items with higher numbers.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ItemsResponse:
    """Return items, oldest first."""
    queue = context_of(request).review().queue
    states = [] if state is None else [state_of(state)]
    chosen = None if kind is None else kind_of(kind)
    found = await asyncio.to_thread(queue.items, states=states, kind=chosen, after=after, limit=limit + 1)
    more = len(found) > limit
    return ItemsResponse(items=[_fields(one) for one in found[:limit]], next=found[limit - 1].id if more else None)


@router.get("/items/{item}", summary="An item", dependencies=[reviewing], responses=_ERRORS)
async def one_item(request: Request, item: Number) -> ItemFields:
    """Return an item."""
    return _fields(await asyncio.to_thread(context_of(request).review().queue.get, item))


@router.post(
    "/items/{item}/answer",
    summary="Say what is right",
    dependencies=[reviewing],
    responses=_ERRORS,
    openapi_extra=body_of(
        AnswerRequest,
        confirm={"verdict": "confirm"},
        correct={"verdict": "correct", "label": "card_swallowed", "note": "the machine kept it"},
    ),
)
async def answer(
    request: Request, caller: Reviewer, item: Number, body: Annotated[AnswerRequest, json_body(AnswerRequest)]
) -> ItemFields:
    """Say what is right for an item, and return it as it is now."""
    review, name = context_of(request).review(), reviewer_of(caller, body.reviewer)
    said = partial(review.answer, item, body.verdict, body.label, note=body.note, seconds=body.seconds)
    return _fields(await asyncio.to_thread(said, reviewer=name))


@router.post(
    "/undo",
    summary="Take the last verdict back",
    dependencies=[reviewing],
    responses=_ERRORS,
    openapi_extra=body_of(UndoRequest, default={}),
)
async def undo(request: Request, caller: Reviewer, body: Annotated[UndoRequest, json_body(UndoRequest)]) -> ItemFields:
    """Take the caller's last verdict back, and return the item, which the caller has again."""
    review, name = context_of(request).review(), reviewer_of(caller, body.reviewer)
    return _fields(await asyncio.to_thread(review.undo, name))


@router.post(
    "/reports",
    summary="Report an answer as wrong",
    dependencies=[requires(Role.PREDICT)],
    responses=_ERRORS,
    openapi_extra=body_of(
        ReportRequest,
        by_request={"request_id": "5f0d1c2b9a31e7c4", "label": "card_swallowed"},
        by_input={"input": "my card was swallowed", "note": "it is not lost"},
    ),
)
async def report(
    request: Request, caller: Asker, body: Annotated[ReportRequest, json_body(ReportRequest)]
) -> ReportResponse:
    """Put an answer that is wrong into review, before all others. Keys of every role may report."""
    review = context_of(request).review()
    found, waits = await asyncio.to_thread(
        review.report,
        body.example(),
        request_id=body.request_id,
        place=body.place,
        label=body.label,
        note=body.note,
        reporter=reviewer_of(caller),
    )
    return ReportResponse(item=found.id, waits=waits)


@router.get("/accuracy", summary="The accuracy of recorded answers", dependencies=[reviewing], responses=_ERRORS)
async def accuracy(
    request: Request,
    since: Annotated[str | None, Query(max_length=40, description="Only from then on: 2026-11-29 or 30d.")] = None,
) -> AccuracyResponse:
    """Return the accuracy, estimated without bias although answers in doubt are reviewed more."""
    moment = None if since is None else moment_of(since, "since")
    found = await asyncio.to_thread(context_of(request).review().accuracy, moment)
    return AccuracyResponse.model_validate(found.to_json())


@router.get("/plan", summary="What would be learned", dependencies=[reviewing], responses=_ERRORS)
async def plan(
    request: Request,
    into: Annotated[str | None, Query(max_length=200, description="Known task that gets new labels.")] = None,
    name: Annotated[str | None, Query(max_length=200, description="Name of a new task for new labels.")] = None,
) -> PlanResponse:
    """Return what `POST /v1/review/learn` would learn, and which items wait, and why."""
    workspace = context_of(request).opened()
    found = await asyncio.to_thread(partial(workspace.plan_reviewed, into=into, name=name))
    return PlanResponse.model_validate(found.to_json())


@router.post(
    "/learn",
    summary="Learn what was reviewed",
    status_code=202,
    dependencies=[reviewing],
    responses=documented(401, 403, 404, 409, 422, 429, 507) | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(LearnReviewedRequest, default={}, new_labels={"into": "cards"}),
)
async def learn(
    request: Request,
    caller: Reviewer,
    body: Annotated[LearnReviewedRequest, json_body(LearnReviewedRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that learns what was reviewed: right labels become examples of the next versions of their tasks."""
    return accepted(await submit_change(request, caller, learning(caller, body), idempotency_key))


@router.get(
    "/export",
    summary="Items as tasks for Label Studio",
    dependencies=[reviewing],
    responses=_ERRORS | {200: {"content": {"application/json": {"example": [_LABEL_STUDIO_TASK]}}}},
)
async def export(
    request: Request,
    caller: Reviewer,
    state: Annotated[State | None, Query(description="Only items in this state.")] = None,
) -> list[dict[str, Any]]:
    """Return items as tasks for Label Studio: answers are predictions, and verdicts are annotations."""
    review = context_of(request).review()
    return await asyncio.to_thread(review.export, [] if state is None else [state], by=caller.actor)


@router.get(
    "/config",
    summary="Labelling configuration for Label Studio",
    dependencies=[reviewing],
    responses=_ERRORS | {200: {"content": {"application/xml": {"schema": {"type": "string"}, "example": _LABELLING}}}},
    response_class=Response,
)
async def config(request: Request) -> Response:
    """Return Label Studio's labelling configuration (XML), with the learned labels as choices."""
    content = await asyncio.to_thread(context_of(request).review().label_studio_config)
    return Response(content, media_type="application/xml")


@router.post(
    "/import",
    summary="Put inputs into review",
    dependencies=[reviewing],
    responses=_ERRORS,
    openapi_extra=body_of(
        ImportRequest,
        rows={"rows": ["my card was swallowed", {"text": "i lost my pin", "label": "pin_lost"}]},
        label_studio={"tasks": [_LABEL_STUDIO_TASK]},
    ),
)
async def import_items(
    request: Request, caller: Reviewer, body: Annotated[ImportRequest, json_body(ImportRequest)]
) -> ImportResponse:
    """Put inputs into review, or take over annotations from Label Studio; what is there already changes nothing."""
    review = context_of(request).review()
    done = await asyncio.to_thread(_imported, review, reviewer_of(caller), body)
    return ImportResponse.model_validate(done.to_json())


def reviewer_of(caller: Caller, person: str | None = None) -> str:
    """Return the name of a caller as a reviewer, with that of the person, if one key serves several."""
    return caller.actor if person is None else f"{caller.actor}: {person}"


def learning(caller: Caller, wanted: LearnReviewedRequest) -> JobRequest:
    """Return the job that learns what was reviewed.

    Raises:
        ApiProblem: It contradicts itself, or the caller may not learn without the gate.
    """
    if wanted.into is not None and wanted.name is not None:
        raise ApiProblem(422, "invalid-options", "give either `into` or `name`")
    if not wanted.gate and not caller.role.allows(Role.OPERATE):
        raise ApiProblem(403, "forbidden", "this key may not learn without the gate; use one to operate")
    return JobRequest(JobKind.REVIEW, wanted.model_dump(), () if wanted.into is None else (wanted.into,))


async def candidates_of(request: Request, item: ReviewItem, number: int) -> tuple[Candidate, ...]:
    """Return the present answers to an item, likeliest first; none if it cannot be answered at present."""
    deadline = time.monotonic() + context_of(request).settings.timeout_seconds
    try:
        return await propose(request, item.example, deadline, number)
    except ApiProblem as problem:
        if problem.status in (409, 422):  # no tasks, or none of this kind
            return ()
        raise


def _imported(review: Review, reviewer: str, body: ImportRequest) -> Imported:
    if bool(body.tasks) == bool(body.rows):
        raise ApiProblem(422, "invalid-request", "give either `tasks` or `rows`")
    if body.rows:
        return review.add(body.rows, reviewer=reviewer, double=body.double)
    if not is_export(body.tasks):
        raise DataError("these are no tasks of Label Studio: each has `data`, or fields as in JSON-MIN")
    return review.add_annotated(read_tasks(body.tasks, _SOURCE), double=body.double, by=reviewer)


def _fields(item: ReviewItem) -> ItemFields:
    return ItemFields.model_validate(item.to_json())
