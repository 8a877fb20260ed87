"""`GET /v1/predictions`: the recorded predictions."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request

from conpet.config.duration import moment_of
from conpet.serve.auth import requires
from conpet.serve.context import context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.schemas import RecordedResponse
from conpet.store.prediction_log import PAGE
from conpet.types import Decision

router = APIRouter(prefix="/v1", tags=["watch"])


@router.get(
    "/predictions",
    summary="The recorded predictions",
    dependencies=[requires(Role.OPERATE)],
    responses=documented(401, 403, 409, 422, 429),
)
async def predictions(
    request: Request,
    decision: Annotated[Decision | None, Query(description="Only with this decision.")] = None,
    task: Annotated[str | None, Query(description="Only answers of this task.")] = None,
    label: Annotated[str | None, Query(description="Only answers with this label.")] = None,
    since: Annotated[
        str | None, Query(max_length=40, description="Only from then on: 2026-11-29, 2026-11-29T10:00 or 7d.")
    ] = None,
    before: Annotated[
        int | None, Query(ge=1, le=2**53, description="Only older ones than this number: `next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
) -> RecordedResponse:
    """Return recorded predictions, the newest first. The inputs are there if they are recorded (`text`)."""
    record = context_of(request).record()
    moment = None if since is None else moment_of(since, "since")
    found = await asyncio.to_thread(
        record.entries, task=task, label=label, decision=decision, since=moment, before=before, limit=limit + 1
    )
    shown = found[:limit]
    return RecordedResponse.model_validate(
        {
            "predictions": [entry.to_json() for entry in shown],
            "next": shown[-1].id if len(found) > limit else None,
        }
    )
