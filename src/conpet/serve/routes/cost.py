"""`GET /v1/cost`: what the workspace has cost."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from conpet.commands.cost import cost_report
from conpet.serve.auth import requires
from conpet.serve.context import context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.schemas import CostResponse

router = APIRouter(
    prefix="/v1", tags=["workspace"], dependencies=[requires(Role.OPERATE)], responses=documented(401, 403, 422, 429)
)


@router.get("/cost", summary="What the workspace has cost")
async def cost(request: Request) -> CostResponse:
    """Return what learning, changes, answers and people's work have cost, as `conpet cost --json` prints it.

    The answers of other processes of the server are up to a minute old.
    """
    context = context_of(request)
    workspace = context.opened()
    await asyncio.to_thread(context.serving.write_usage, now=True)
    report = await asyncio.to_thread(cost_report, workspace.store)
    return CostResponse.model_validate(report.to_json())
