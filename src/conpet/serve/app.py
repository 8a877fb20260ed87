"""The application: routes, middleware and what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from conpet.serve.context import ServerContext
from conpet.serve.middleware import BodyMiddleware, RequestMiddleware
from conpet.serve.problems import add_handlers
from conpet.serve.routes import health
from conpet.serve.settings import ServeSettings

ROUTERS = (health.router,)
BODIES: tuple[type[BaseModel], ...] = ()
"""Models of request bodies, for the OpenAPI document."""
UPLOADS: tuple[str, ...] = ("/v1/learn",)
"""Paths whose bodies may be as large as `upload_bytes`."""


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the application of one server process; `app.state.context` is what its endpoints share."""
    context = ServerContext.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        context.stopping = True

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
    add_handlers(app)
    app.add_middleware(BodyMiddleware, settings=settings, uploads=UPLOADS)
    app.add_middleware(RequestMiddleware, settings=settings)  # outermost: it was added last
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
