"""What surrounds every request: its id, allowed hosts, security headers, limits of its body, its line in the log."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conpet.problem_details import ApiProblem, problem_of
from conpet.serve.buffer import Buffer
from conpet.serve.context import ServerContext
from conpet.serve.problems import SERVER_ERROR, answer_of
from conpet.serve.settings import ServeSettings

REQUEST_ID = "X-Request-ID"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that are asked all the time; they are logged at the level "debug"."""
_EXPECTED = frozenset({"read-only", "disk-full", "workspace-busy"})
"""Kinds of problems that come from the machine, not from a fault in the program: a reason says enough."""
_DISCARD_SECONDS = 2.0
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RequestMiddleware:
    """Gives each request an id, checks its host, answers errors that no handler has answered, logs and counts it.

    Args:
        app: The application.
        context: What the endpoints share.
    """

    def __init__(self, app: ASGIApp, context: ServerContext) -> None:
        self._app = app
        self._context = context
        self._hosts = _allowed_hosts(context.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        status, start = 0, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(scope=message)
                added[REQUEST_ID] = request_id
                for name, value in SECURITY_HEADERS.items():
                    added.setdefault(name, value)  # pages have others
            await send(message)

        try:
            self._check_host(headers)
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            problem = problem_of(error)
            if problem.kind in _EXPECTED:
                self._context.log.warning(problem.kind, request_id=request_id, reason=str(error))
            elif problem.status >= SERVER_ERROR:
                self._context.log.exception("error", request_id=request_id)
            if status:
                raise
            await answer_of(problem, Request(scope))(scope, receive, send_with_headers)
        finally:
            self._done(scope, status, time.perf_counter() - start)

    def _done(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count a request; status 0 stands for one whose client is gone."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._context.metrics.request_done(method, route, status, seconds)
        quiet = route in _QUIET and status < SERVER_ERROR
        write = self._context.log.debug if quiet else self._context.log.info
        state = scope["state"]
        write(
            "request",
            request_id=state["request_id"],
            method=method,
            route=route,
            status=status,
            milliseconds=round(1000 * seconds, 2),
            caller=state.get("caller"),
            **state.get("logged", {}),
        )

    def _check_host(self, headers: Headers) -> None:
        if self._hosts and _host(headers) not in self._hosts:
            raise ApiProblem(421, "unknown-host", "this server does not answer under this host name")


class BodyMiddleware:
    """Limits the body of a request in size, also after decompression, and in time; and those of all requests together.

    Args:
        app: The application.
        settings: The server's settings.
        buffer: Counts the bodies in memory.
        uploads: Paths whose bodies may have `upload_bytes`; they are stored as they arrive, and are not in memory.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, buffer: Buffer, uploads: tuple[str, ...] = ()) -> None:
        self._app = app
        self._seconds = settings.body_seconds
        self._limit = settings.body_bytes
        self._limits: Mapping[str, int] = dict.fromkeys(uploads, settings.upload_bytes)
        self._buffer = buffer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limits.get(scope["path"], self._limit)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > limit:
            if "expect" not in headers:  # otherwise the client waits for leave to send
                await _discard(receive)
            raise _too_large(limit)
        buffer = None if scope["path"] in self._limits else self._buffer
        body = _Body(receive, limit, time.monotonic() + self._seconds, _decompressor(headers), buffer)
        try:
            await self._app(scope, body, send)
        finally:
            body.forget()


class _Body:
    """Receives the body of a request within its limits.

    Args:
        receive: Receives the messages of the connection.
        limit: Most bytes, compressed and decompressed.
        deadline: When the body must have arrived, on the monotonic clock.
        decompressor: Decompresses the body, or None.
        buffer: Counts its bytes until it is forgotten, or None.
    """

    def __init__(
        self, receive: Receive, limit: int, deadline: float, decompressor: _Gzip | None, buffer: Buffer | None
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._deadline = deadline
        self._decompressor = decompressor
        self._buffer = buffer
        self._raw = 0
        self._size = 0
        self._complete = False

    async def __call__(self) -> Message:
        """Return the next message."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise ApiProblem(
                408, "body-too-slow", "the body did not arrive in time", headers={"Connection": "close"}
            ) from None
        if message["type"] != "http.request":
            return message
        self._complete = not message.get("more_body", False)
        try:
            return {**message, "body": self._counted(message.get("body", b""))}
        except ApiProblem:
            if not self._complete:
                await _discard(self._receive)
            raise

    def _counted(self, body: bytes) -> bytes:
        """Return bytes as they were before compression.

        Raises:
            ApiProblem: The body is too large, or no gzip.
        """
        self._raw += len(body)
        if self._raw > self._limit:
            raise _too_large(self._limit)
        if self._decompressor is not None:
            body = self._decompressor.decompress(body, self._size, self._limit, last=self._complete)
        if self._buffer is not None:
            self._buffer.take(len(body), self._size)
        self._size += len(body)
        return body

    def forget(self) -> None:
        """Take note that the request is over."""
        if self._buffer is not None:
            self._buffer.give_back(self._size)


async def _discard(receive: Receive) -> None:
    """Receive the rest of a body for a moment: a client that is still sending could not read the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while (await receive()).get("more_body", False):
                pass


class _Gzip:
    """Decompresses a gzip body up to a limit."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes, size: int, limit: int, *, last: bool) -> bytes:
        """Return the next bytes, after `size` others.

        Raises:
            ApiProblem: They are together more than `limit`, or no gzip.
        """
        room = limit - size
        try:
            body = self._stream.decompress(data, room + 1)
        except zlib.error:
            raise ApiProblem(400, "broken-gzip", "the body is not valid gzip") from None
        if len(body) > room or self._stream.unconsumed_tail:
            raise _too_large(limit, " when decompressed")
        if (last and not self._stream.eof) or self._stream.unused_data:
            raise ApiProblem(400, "broken-gzip", "the body is not one complete gzip stream")
        return body


def _decompressor(headers: Headers) -> _Gzip | None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding == "gzip":
        return _Gzip()
    raise ApiProblem(
        415,
        "unsupported-encoding",
        "this content encoding is not supported; send gzip, or none",
        headers={"Accept-Encoding": "gzip"},
    )


def _too_large(limit: int, when: str = "") -> ApiProblem:
    detail = f"the body is too large: send at most {limit:,} bytes{when}"
    return ApiProblem(413, "body-too-large", detail, headers={"Connection": "close"})


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if _SAFE_ID.fullmatch(given) else secrets.token_hex(12)


def _host(headers: Headers) -> str:
    host = headers.get("host", "").lower()
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _allowed_hosts(settings: ServeSettings) -> frozenset[str]:
    """Return the hosts that requests may name; none stands for any.

    Without this check, a page whose name resolves to this machine could call a server on loopback.
    """
    named = frozenset(host.lower() for host in settings.allowed_hosts)
    return named | frozenset(_LOOPBACK_HOSTS) if named or settings.loopback else named
