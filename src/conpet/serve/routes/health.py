"""Whether the server lives, is ready, and which version it has."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request

from conpet.serve.context import context_of
from conpet.serve.problems import too_busy

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    """Return that the process answers."""
    return {"status": "ok"}


@router.get("/readyz", summary="The process takes requests")
async def readyz(request: Request) -> dict[str, Any]:
    """Return whether the process takes requests: its first state is loaded and warmed, and no stop was requested."""
    context = context_of(request)
    if context.stopping:
        raise too_busy(503, "stopping", "the server is stopping")
    return {"status": "ready"}


@router.get("/version", summary="The version of conpet")
async def show_version() -> dict[str, str]:
    """Return the version of conpet."""
    return {"conpet": version("conpet")}
