"""`GET /v1/watch`: have the inputs, or what is made of them, changed? `POST /v1/feedback`: which label was right."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request

from conpet.commands.watch import Feedback, find_feedback
from conpet.data import Example
from conpet.serve.auth import requires
from conpet.serve.bodies import body_of, json_body
from conpet.serve.context import context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.schemas import FeedbackRequest, FeedbackResponse, WatchResponse
from conpet.store.prediction_log import PredictionLog

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
    context.record()
    report = await asyncio.to_thread(context.watcher.look)
    return WatchResponse.model_validate(report.to_json())


@router.post(
    "/feedback",
    summary="Which labels were right",
    dependencies=[requires(Role.LEARN)],
    responses=documented(401, 403, 409, 422, 429),
    openapi_extra=body_of(
        FeedbackRequest,
        by_request={"feedback": [{"request_id": "5f0d1c2b9a31e7c4", "place": 1, "label": "card_swallowed"}]},
        by_text={"feedback": [{"text": "my card was swallowed", "label": "card_swallowed"}]},
    ),
)
async def feedback(request: Request, body: Annotated[FeedbackRequest, json_body(FeedbackRequest)]) -> FeedbackResponse:
    """Keep the right labels of recorded answers: watching compares the accuracy with that of held-out examples.

    An answer is named by its request and its place in it, or by its text; then the newest answer to it counts. Labels
    that are not learned are named: they may be typing errors, and the answers to them count as wrong.
    """
    context = context_of(request)
    context.ready()
    found = await asyncio.to_thread(_keep, context.record(), body)
    not_learned = {one.label for one in body.feedback} - context.serving.live.snapshot.owners.keys()
    return FeedbackResponse(found=len(found.judged), missing=found.missing, not_learned=sorted(not_learned))


def _keep(record: PredictionLog, body: FeedbackRequest) -> Feedback:
    texts = [Example.of_text(one.text, label=one.label) for one in body.feedback if one.text is not None]
    requests = [
        Example.of_text(f"{one.request_id}/{one.place}", label=one.label) for one in body.feedback if one.text is None
    ]
    found = find_feedback(record, texts) | find_feedback(record, requests, by_request=True)
    record.add_feedback(found.right)
    return found
