"""Failures of requests: which are tried again, and as which errors the others are raised."""

from __future__ import annotations

import random
from typing import Any

import httpx2

from conpet.errors import (
    AccessError,
    ConfigError,
    ConpetError,
    DamagedModuleError,
    DataError,
    DiskFullError,
    IdempotencyError,
    JobFailedError,
    Problem,
    ReadOnlyError,
    ServerBusyError,
    ServerError,
    ServerUnreachableError,
    UnknownNameError,
)
from conpet.jobs.records import Job, JobState

_AGAIN = frozenset({429, 503})
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 60.0
_BY_STATUS: dict[int, type[ConpetError]] = {
    401: AccessError,
    403: AccessError,
    404: UnknownNameError,
    408: ServerBusyError,
    409: DataError,
    429: ServerBusyError,
    503: ServerBusyError,
    504: ServerBusyError,
}
_BY_KIND: dict[str, type[ConpetError]] = {
    "read-only": ReadOnlyError,
    "disk-full": DiskFullError,
    "idempotency-key-reused": IdempotencyError,
}


class Attempts:
    """The attempts of one request.

    Args:
        retries: How often it may be tried again.
    """

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._pause = _FIRST_PAUSE

    def pause_after(self, response: httpx2.Response) -> float | None:
        """Return the seconds to wait before the request is tried again; None if the response counts."""
        if response.status_code not in _AGAIN or self._left <= 0 or _lasts(response):
            return None
        return max(_seconds(response.headers.get("Retry-After", "")), self._next())

    def pause_after_error(self, error: httpx2.TransportError, url: str) -> float:
        """Return the seconds to wait before the request is tried again.

        Raises:
            ServerUnreachableError: It was tried often enough.
            ServerBusyError: The server does not answer in time.
        """
        if self._left > 0:
            return self._next()
        if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout | httpx2.PoolTimeout):
            raise ServerBusyError(f"{url} did not answer in time; try again later, or allow more time") from error
        raise ServerUnreachableError(
            f"no connection to {url} ({error or type(error).__name__}); check the address, and that the server runs"
        ) from error

    def _next(self) -> float:
        self._left -= 1
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.5)  # noqa: S311 - so that clients do not return all at once


def answer_of(response: httpx2.Response) -> Any:
    """Return the JSON of a response.

    Raises:
        ConpetError: It reports an error; `request_id` is that of the request.
    """
    if response.is_success:
        try:
            return response.json()
        except ValueError as reason:
            raise ServerError("the server's answer is not JSON; is this the address of `conpet serve`?") from reason
    error = _error_of(response)
    error.request_id = response.headers.get("X-Request-ID")
    raise error


def failure_of(job: Job) -> ConpetError | None:
    """Return the error of a job that did not succeed, or None."""
    if job.state is JobState.CANCELLED:
        return JobFailedError(f"job {job.id} was cancelled")
    if job.state is not JobState.FAILED:
        return None
    document = job.error or {}
    rows = "".join(f"\n  {problem}" for problem in _problems(document)[: DataError.SHOWN])
    error = JobFailedError(f"job {job.id} failed: {document.get('detail', 'for an unknown reason')}{rows}")
    error.request_id = document.get("request_id")
    return error


def _error_of(response: httpx2.Response) -> ConpetError:
    try:
        document = response.json()
        detail, kind = str(document["detail"]), str(document["type"]).rpartition(":")[2]
    except (ValueError, TypeError, KeyError):
        return ServerError(f"the server answered {response.status_code} {response.reason_phrase}")
    if kind == "damaged-module":
        return DamagedModuleError(detail, [one.row for one in _problems(document) if one.row is not None])
    known = _BY_KIND.get(kind) or _BY_STATUS.get(response.status_code)
    if known is not None:
        return known(detail)
    problems = _problems(document)
    if problems and kind in ("invalid-data", "invalid-inputs"):
        return DataError(detail, problems)
    if response.is_client_error:
        return ConfigError("\n".join([detail, *(f"  {problem}" for problem in problems)]))
    return ServerError(detail)


def _lasts(response: httpx2.Response) -> bool:
    """Return whether the server reports a problem that does not pass: it names no time to try again."""
    reported = response.headers.get("Content-Type", "").startswith("application/problem+json")
    return reported and "Retry-After" not in response.headers


def _problems(document: Any) -> list[Problem]:
    problems = []
    for one in document.get("errors") or ():
        source, row = one.get("source"), one.get("row")
        if source is None:
            source, row = _place(str(one.get("pointer", "")))
        problems.append(Problem(source, row, str(one.get("detail", ""))))
    return problems


def _place(pointer: str) -> tuple[str, int | None]:
    """Return source and row of a JSON pointer: "/inputs/3" is the fourth input."""
    _, _, rest = pointer.partition("/inputs/")
    number = rest.partition("/")[0]
    return ("inputs", int(number) + 1) if number.isdecimal() else (pointer or "the request", None)


def _seconds(header: str) -> float:
    try:
        return min(max(0.0, float(header)), _LONGEST_PAUSE)
    except ValueError:  # a date: the clocks may differ
        return 0.0
