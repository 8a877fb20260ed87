"""Whether the server lives, is ready, and which version it has."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse

from conpet.serve.auth import requires
from conpet.serve.context import context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented, example

_METRICS = """\
# HELP conpet_generation Generation that answers.
# TYPE conpet_generation gauge
conpet_generation 11.0
"""

router = APIRouter(tags=["health"], responses=documented())


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="The process answers", responses=example({"status": "ok"}))
async def healthz() -> dict[str, str]:
    """Return that the process answers."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="The process takes requests", responses=example({"status": "ready", "generation": 11}))
async def readyz(request: Request) -> dict[str, Any]:
    """Return whether the process takes requests: its first state is loaded and warmed, and no stop was requested."""
    context = context_of(request)
    context.ready()
    document: dict[str, Any] = {"status": "ready", "generation": context.serving.live.generation}
    return document | ({"newer_generation": "cannot be loaded"} if context.serving.problem else {})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    dependencies=[requires(Role.PREDICT)],
    response_class=PlainTextResponse,
    responses=documented(401, 403, 429) | {200: {"content": {"text/plain": {"example": _METRICS}}}},
)
async def metrics(request: Request) -> Response:
    """Return the metrics of all processes of the server."""
    context = context_of(request)
    with suppress(OSError):  # the other metrics are most needed when the disk fails
        context.metrics.jobs_counted(await asyncio.to_thread(context.jobs.counts))
    return Response(context.metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.head("/version", include_in_schema=False)
@router.get("/version", summary="The version of conpet", responses=example({"conpet": "0.1.0"}))
async def show_version() -> dict[str, str]:
    """Return the version of conpet."""
    return {"conpet": version("conpet")}
