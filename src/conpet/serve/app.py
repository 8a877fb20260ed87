"""The application: routes, middleware and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from conpet.dashboard.site import Site
from conpet.jobs.intake import StreamUpload, TaskUpload
from conpet.serve.context import ServerContext
from conpet.serve.job_schemas import (
    ActivateRequest,
    ConsolidateRequest,
    ForgetRequest,
    PromoteRequest,
    RenameRequest,
    RestoreRequest,
    RetireRequest,
    SplitRequest,
)
from conpet.serve.middleware import BodyMiddleware, RequestMiddleware
from conpet.serve.problems import add_handlers
from conpet.serve.review_schemas import (
    AnswerRequest,
    DrawRequest,
    ImportRequest,
    LearnReviewedRequest,
    NextRequest,
    ReportRequest,
    UndoRequest,
)
from conpet.serve.routes import cost, health, jobs, predict, predictions, review, watch, workspace
from conpet.serve.schemas import FeedbackRequest, PredictRequest, ProblemFields
from conpet.serve.settings import ServeSettings

ROUTERS = (
    health.router,
    predict.router,
    workspace.router,
    cost.router,
    jobs.router,
    watch.router,
    predictions.router,
    review.router,
)
BODIES: tuple[type[BaseModel], ...] = (
    PredictRequest,
    FeedbackRequest,
    ProblemFields,
    TaskUpload,
    StreamUpload,
    ActivateRequest,
    ConsolidateRequest,
    ForgetRequest,
    PromoteRequest,
    DrawRequest,
    NextRequest,
    AnswerRequest,
    UndoRequest,
    ReportRequest,
    LearnReviewedRequest,
    ImportRequest,
    RenameRequest,
    RestoreRequest,
    RetireRequest,
    SplitRequest,
)
"""Models that routes describe themselves, for the OpenAPI document: bodies of requests, and problems."""
UPLOADS: tuple[str, ...] = ("/v1/learn",)
"""Paths whose bodies may be as large as `upload_bytes`."""
_THREADS = 64
"""Most threads of a process that wait for files and processes."""


def ignore(_: Exception) -> None:
    """Leave a failure to the log."""


def create_app(settings: ServeSettings, on_failure: Callable[[Exception], None] = ignore) -> FastAPI:
    """Return the application of one server process; `app.state.context` is what its endpoints share.

    It loads the workspace when it starts (its lifespan), and answers 503 until then.

    Args:
        settings: The server's settings.
        on_failure: Called, by another thread, if the workspace cannot be loaded.
    """
    context = ServerContext.of(settings, on_failure)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # By default there are few on a machine with few cores, and slow disks or uploads would hold up the others.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "conpet-wait"))
        context.serving.start()
        context.runner.start()
        context.watcher.start()
        yield
        context.stopping = True
        await asyncio.gather(
            asyncio.to_thread(context.serving.close, settings.drain_seconds),
            asyncio.to_thread(context.runner.stop, settings.drain_seconds),
            asyncio.to_thread(context.watcher.close, settings.drain_seconds),
        )

    app = FastAPI(
        title="conpet",
        version=version("conpet"),
        summary="Answers from a workspace of tasks learned one after another.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.context = context
    for router in ROUTERS:
        app.include_router(router)
    routers, uploads = list(ROUTERS), UPLOADS
    if settings.dashboard:
        site = Site()
        site.mount(app)
        routers, uploads = [*routers, *site.routers], (*uploads, *site.uploads)
    add_handlers(app, [route for router in routers for route in router.routes] + app.routes)
    app.add_middleware(BodyMiddleware, settings=settings, buffer=context.buffer, uploads=uploads)
    app.add_middleware(RequestMiddleware, context=context)  # outermost: it was added last
    _describe_bodies(app)
    return app


def _describe_bodies(app: FastAPI) -> None:
    """Add the schemas of the request bodies to the OpenAPI document."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = described()
            _, schemas = models_json_schema(
                [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
            )
            components = document.setdefault("components", {}).setdefault("schemas", {})
            components |= schemas.get("$defs", {})
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document
