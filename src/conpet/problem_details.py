"""Errors as problem details (RFC 9457): what a failed request or job is reported as, always with the request's id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from conpet.errors import (
    CandidateOutdatedError,
    ConpetError,
    DataError,
    GateRefusedError,
    IdempotencyError,
    OutOfMemoryError,
    ReadOnlyError,
    ReviewConflictError,
    TooManyJobsError,
    UnknownNameError,
    WorkspaceBusyError,
    is_disk_full,
    is_out_of_memory,
)

RETRY_SECONDS = 1
"""Seconds after which a client may try again, where nothing better is known."""
SHOWN = 100
"""Most errors listed in one problem."""
_OF_A_REQUEST = (
    (r"`--extend` adds", "`extend` adds"),
    (r"`--name (.+?)` learns", r"the name \1 learns"),
    (r"`--mixed` adds their examples .*as a new task", "send their rows with `extend`, and the others as a task"),
    (r"`--mixed` instead of .*`learn_mixed`\)", "Send their rows as a new task"),
    (r" \(--[a-z-]+ names another\)", ""),
    (r"\. Name the one to read: --([a-z]+)-column NAME .*", r". Name the one to read `\1`"),
    (r", or read it with --encoding (\S+)", r", or add `charset=\1` to the content type"),
    (r", or name its encoding \(--encoding\)", ", or add its `charset` to the content type"),
    (r"; give another --encoding", "; give another `charset`"),
    (
        r"is compressed; give its name the ending \.gz",
        "is compressed; send it with `Content-Encoding: gzip`, or with `format=csv.gz` or `jsonl.gz`",
    ),
    (r"is compressed; give its name the ending \.\w+", "is compressed; send it without compression, or as gzip"),
)
"""What messages say of options of the command line, and what it is in a request."""


class ApiProblem(Exception):  # noqa: N818 - the term of RFC 9457
    """An error that a request or a job ends with.

    Args:
        status: HTTP status.
        kind: Short name of the kind of error, part of its type.
        detail: What is wrong and what to do, for people; no text of the request is repeated.
        headers: Headers of the response, for example `Retry-After`.
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
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def too_busy(status: int, kind: str, detail: str, seconds: float = RETRY_SECONDS) -> ApiProblem:
    """Return a problem that is over after some seconds."""
    return ApiProblem(status, kind, detail, headers={"Retry-After": str(max(1, round(seconds + 0.5)))})


def problem_of(error: Exception) -> ApiProblem:
    """Return the problem that an error is reported as; errors that conpet does not raise deliberately say nothing."""
    match error:
        case ApiProblem():
            return error
        case DataError():
            return _data_problem(error)
        case ReviewConflictError():
            return ApiProblem(409, "review-conflict", str(error))
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


def _data_problem(error: DataError) -> ApiProblem:
    errors = [
        {"source": problem.file, "row": problem.row, "detail": of_a_request(problem.reason)}
        for problem in error.in_order()[:SHOWN]
    ]
    more = f" (the first {SHOWN} are listed)" if len(error.problems) > SHOWN else ""
    return ApiProblem(422, "invalid-data", of_a_request(error.summary) + more, errors=errors)


def of_a_request(message: str) -> str:
    """Return a message about data as someone needs it who has sent them in a request, without a command line."""
    for pattern, replacement in _OF_A_REQUEST:
        message = re.sub(pattern, replacement, message)
    return message


def document(problem: ApiProblem, request_id: str) -> dict[str, Any]:
    """Return a problem as a JSON-ready dictionary."""
    return {
        "type": f"urn:conpet:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.extra,
    }
