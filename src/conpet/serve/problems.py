"""Problem details as responses, and in the description of the API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route

from conpet.config.base import worded
from conpet.errors import ConpetError
from conpet.problem_details import SHOWN, ApiProblem, document, problem_of

MEDIA_TYPE = "application/problem+json"
_PLACES = ("body", "query", "path", "header")
_ANYWHERE = (400, 405, 408, 413, 415, 421, 500, 503)
"""Statuses of errors that every route has."""
SERVER_ERROR = 500
"""The first of the statuses that are the server's fault."""


def invalid(errors: Sequence[Mapping[str, Any]], where: str = "body") -> ApiProblem:
    """Return the problem of a request that does not fit its schema.

    Args:
        errors: Pydantic's errors; what they say of the input is left out, and tags of unions, which begin with "#".
        where: The part of the request.
    """
    listed = []
    for error in errors[:SHOWN]:
        path = [part for part in map(str, error["loc"]) if not part.startswith("#") and part not in _PLACES]
        detail = worded(str(error["msg"])).strip().removeprefix(": ").removeprefix("Value error, ")
        listed.append({"pointer": "/" + "/".join(path) if path else "", "detail": detail})
    return ApiProblem(422, "invalid-request", f"the {where} of the request does not fit its schema", errors=listed)


def response_of(problem: ApiProblem, request_id: str) -> Response:
    """Return the response of a problem; all that is not ASCII is escaped."""
    content = json.dumps(document(problem, request_id)).encode()
    return Response(content, problem.status, problem.headers, MEDIA_TYPE)


def answer_of(problem: ApiProblem, request: Request) -> Response:
    """Return the response of a problem: a page where people look, problem details elsewhere."""
    pages = request.app.state.context.pages
    if pages is not None and pages.covers(request.url.path):
        page: Response = pages.error(request, problem)
        return page
    return response_of(problem, request.state.request_id)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the part of a route's description (`responses`) that describes its errors.

    Args:
        statuses: Those that not every route has.
    """
    schema = {"$ref": "#/components/schemas/ProblemFields"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*_ANYWHERE, *statuses})
    }


def example(document: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the part of a route's description (`responses`) that shows what it answers with 200."""
    return {200: {"content": {"application/json": {"example": document}}}}


def _methods(routes: Iterable[BaseRoute], path: str) -> list[str]:
    """Return the methods of all routes with a path; Starlette names those of the first one only."""
    found = (route for route in routes if isinstance(route, Route) and route.path_regex.match(path))
    return sorted({method for route in found for method in route.methods or ()})


def add_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Report the errors of all routes as problems.

    Args:
        app: The application.
        routes: Its routes; the application itself may keep them in a form of its own.
    """

    async def handle(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem is not error and problem.status >= SERVER_ERROR:
            raise error  # to be logged, and answered, around the application
        return answer_of(problem, request)

    async def handle_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this class
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        headers, detail = {**(error.headers or {})}, str(error.detail)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(routes, request.url.path))
            detail = f"this address takes {headers['Allow']}"
        elif error.status_code == HTTPStatus.NOT_FOUND:
            detail = "there is no such address; GET /openapi.json lists them"
        problem = ApiProblem(error.status_code, kind, detail, headers=headers)
        return answer_of(problem, request)

    async def handle_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for this class
        errors = error.errors()
        where = "header" if {one["loc"][0] for one in errors} == {"header"} else "address"
        return answer_of(invalid(errors, where), request)

    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(ApiProblem, handle)
    app.add_exception_handler(ConpetError, handle)
    app.add_exception_handler(RequestValidationError, handle_invalid)
