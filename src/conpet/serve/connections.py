"""Connections: how many, how long they may take over their headers, how large those may be, how slowly they read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conpet.problem_details import ApiProblem, too_busy
from conpet.serve.middleware import SECURITY_HEADERS
from conpet.serve.problems import response_of
from conpet.serve.settings import ServeSettings

HEADER_BYTES = 64 << 10
"""Most bytes of a request before its body."""
LEAST_BYTES_PER_SECOND = 1024
"""A client that takes a response more slowly than this, for `body_seconds`, loses its connection."""


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits that it lacks: on headers in time and size, connections, and slow readers."""

    settings: ClassVar[ServeSettings]
    _timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, if there are not too many."""
        super().connection_made(transport)
        # asyncio does it only for sockets that were made with this protocol's number; a response is several writes.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.settings.max_connections:
            self._refuse(too_busy(503, "too-many-connections", "too many connections; try again later"))
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        self._stop_reader_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what arrives."""
        super().data_received(data)
        self._header_bytes = self._header_bytes + len(data) if self._in_headers else 0
        if self._header_bytes > HEADER_BYTES and not self.transport.is_closing():
            self._refuse(ApiProblem(431, "headers-too-large", "the headers of the request are too large"))

    def on_message_begin(self) -> None:
        """Expect the headers of a request."""
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        """Handle a request, whose body may still arrive."""
        self._stop_timer()
        self._in_headers = False
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Hold the response back: the client does not take what was sent."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        """Go on with the response."""
        super().resume_writing()
        self._stop_reader_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(ApiProblem(400, "invalid-http", "this is not a valid HTTP request"))

    def _expect_headers(self) -> None:
        self._stop_timer()
        self._in_headers = True
        self._timer = self.loop.call_later(self.settings.header_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect_reader(self) -> None:
        """Look again later whether the client has taken enough; meanwhile nothing is added to what it must take."""
        seconds, left = self.settings.body_seconds, self.transport.get_write_buffer_size()
        least = LEAST_BYTES_PER_SECOND * seconds
        self._stop_reader_timer()
        self._reader_timer = self.loop.call_later(seconds, self._check_reader, left - least)

    def _check_reader(self, most: float) -> None:
        if self.transport.get_write_buffer_size() > most:
            self.transport.abort()
        else:
            self._expect_reader()

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self._refuse(ApiProblem(408, "headers-too-slow", "the headers of the request did not arrive in time"))

    def _refuse(self, problem: ApiProblem) -> None:
        """Answer without looking at the request, and close the connection."""
        self._stop_timer()
        response = response_of(problem, "none")
        headers = {**dict(response.headers), **SECURITY_HEADERS, "Connection": "close"}
        lines = [
            f"HTTP/1.1 {problem.status} Refused",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(response.body))
        self.transport.close()


def server_options(settings: ServeSettings) -> dict[str, Any]:
    """Return the options of uvicorn."""
    return {
        "http": type("Protocol", (LimitedProtocol,), {"settings": settings}),
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": settings.keep_alive_seconds,
        "timeout_graceful_shutdown": max(1, round(settings.drain_seconds)),
    }
