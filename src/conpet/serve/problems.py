"""Errors as clients see them: problem details (RFC 9457), always with the request's id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from conpet.config.base import worded
from conpet.errors import (
    CandidateOutdatedError,
    ConpetError,
    DataError,
    GateRefusedError,
    IdempotencyError,
    OutOfMemoryError,
    ReadOnlyError,
    TooManyJobsError,
    UnknownNameError,
    WorkspaceBusyError,
    is_disk_full,
    is_out_of_memory,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""Seconds after which a client may try again, where nothing better is known."""
_PLACES = ("body", "query", "path", "header")
_ANYWHERE = (400, 405, 408, 413, 415, 421, 500, 503)
"""Statuses of errors that every route has."""
SERVER_ERROR = 500
"""The first of the statuses that are the server's fault."""
SHOWN = 100
"""Most errors listed in one problem."""


class ApiProblem(HTTPException):
    """An error that a request ends with.

    Args:
        status: HTTP status.
        kind: Short name of the kind of error, part of its type.
        detail: What is wrong and what to do, for people; no text of the request is repeated.
        headers: Further headers, for example `Retry-After`.
        extra: Further members of the document.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind
        self.extra = extra


def too_busy(status: int, kind: str, detail: str, seconds: float = RETRY_SECONDS) -> ApiProblem:
    """Return a problem that is over after some seconds."""
    return ApiProblem(status, kind, detail, headers={"Retry-After": str(max(1, round(seconds + 0.5)))})


def problem_of(error: Exception) -> ApiProblem:
    """Return the problem that an error is reported as; errors that conpet does not raise deliberately say nothing."""
    match error:
        case ApiProblem():
            return error
        case HTTPException(status_code=status):
            phrase = HTTPStatus(status).phrase
            return ApiProblem(status, phrase.lower().replace(" ", "-"), str(error.detail), headers=error.headers)
        case DataError():
            return ApiProblem(422, "invalid-data", error.summary, errors=_data_problems(error))
        case UnknownNameError():
            return ApiProblem(404, "not-found", str(error))
        case IdempotencyError() | TooManyJobsError() | GateRefusedError() | CandidateOutdatedError():
            return _change_problem(error)
        case WorkspaceBusyError():
            return too_busy(503, "workspace-busy", "another change of the workspace is under way; try again later")
        case OSError() if not is_out_of_memory(error):
            return _storage_problem(error)
        case _ if is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            return too_busy(503, "out-of-memory", "memory ran out; send fewer or shorter inputs, or try again later")
        case ConpetError():
            return ApiProblem(422, "refused", str(error))
        case _:
            return ApiProblem(500, "internal-error", "unexpected error; the server's log has it under the request id")


def _storage_problem(error: OSError) -> ApiProblem:
    if isinstance(error, ReadOnlyError):
        return ApiProblem(503, "read-only", "the workspace can be read but not changed: the server may not write it")
    if is_disk_full(error):
        return ApiProblem(507, "disk-full", "the disk of the workspace is full; nothing was changed")
    return too_busy(503, "storage-failed", "the workspace cannot be read or written; the server's log says why")


def _refused_by_gate(error: GateRefusedError) -> ApiProblem:
    broken = [comparison.to_json() for comparison in error.report.broken[:SHOWN]]
    detail = (
        f"the gate refuses this change ({error.report.verb}): {error.report}. Nothing was changed; the result is kept "
        f"as candidate {error.candidate}: see GET /v1/candidates/{error.candidate}, and make the change anyway with "
        f"POST /v1/candidates/{error.candidate}/promote"
    )
    return ApiProblem(
        422, "gate-refused", detail, candidate=error.candidate, gate=error.report.summary(), broken=broken
    )


def _change_problem(
    error: IdempotencyError | TooManyJobsError | GateRefusedError | CandidateOutdatedError,
) -> ApiProblem:
    if isinstance(error, GateRefusedError):
        return _refused_by_gate(error)
    if isinstance(error, CandidateOutdatedError):
        return ApiProblem(409, "candidate-outdated", str(error))
    if isinstance(error, IdempotencyError):
        return ApiProblem(422, "idempotency-key-reused", str(error))
    return too_busy(429, "too-many-jobs", str(error), 10)


def _data_problems(error: DataError) -> list[dict[str, Any]]:
    return [
        {"source": problem.file, "row": problem.row, "detail": problem.reason} for problem in error.problems[:SHOWN]
    ]


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


def document(problem: ApiProblem, request_id: str) -> dict[str, Any]:
    """Return a problem as a JSON-ready dictionary."""
    return {
        "type": f"urn:conpet:problem:{problem.kind}",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.extra,
    }


def response_of(problem: ApiProblem, request_id: str) -> Response:
    """Return the response of a problem; all that is not ASCII is escaped."""
    content = json.dumps(document(problem, request_id)).encode()
    return Response(content, problem.status_code, dict(problem.headers or {}), MEDIA_TYPE)


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


def add_handlers(app: FastAPI) -> None:
    """Report the errors of all routes as problems."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem is not error and problem.status_code >= SERVER_ERROR:
            raise error  # to be logged, and answered, around the application
        return response_of(problem, request.state.request_id)

    async def handle_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for this class
        return response_of(invalid(error.errors(), "address"), request.state.request_id)

    app.add_exception_handler(HTTPException, handle)
    app.add_exception_handler(ConpetError, handle)
    app.add_exception_handler(RequestValidationError, handle_invalid)
