"""`GET /v1/watch`: have the inputs, or what is made of them, changed?"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from conpet.problem_details import ApiProblem
from conpet.serve.auth import requires
from conpet.serve.context import context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.schemas import WatchResponse

router = APIRouter(prefix="/v1", tags=["watch"])


@router.get(
    "/watch",
    summary="Changes in what is asked",
    dependencies=[requires(Role.OPERATE)],
    responses=documented(401, 403, 409, 422, 429),
)
async def watch(request: Request) -> WatchResponse:
    """Return what watching the recorded predictions since the last change has found."""
    context = context_of(request)
    context.ready()
    if not context.recorder.predictions.exists:
        raise ApiProblem(409, "no-record", "no predictions are recorded: serve with --log-predictions hash")
    report = await asyncio.to_thread(context.watcher.look)
    return WatchResponse.model_validate(report.to_json())
