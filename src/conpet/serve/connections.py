"""Connections: how many, how long a client may take to send its headers and to receive its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conpet.problem_details import ApiProblem, too_busy
from conpet.serve.buffer import Buffer
from conpet.serve.middleware import SECURITY_HEADERS
from conpet.serve.problems import response_of
from conpet.serve.settings import ServeSettings

HEADER_BYTES = 64 << 10
"""Most bytes of a request before its body."""


class LimitedTransport:
    """A transport that sends what is written in one turn of the event loop together, and drops a client that is slow.

    A response is two writes, and each would be a packet of its own. A client that receives a byte a second would hold
    its connection and the rest of its answer for hours.

    Args:
        transport: The connection's transport.
        seconds: Most seconds until what was written has been received.
    """

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, and close the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._written += len(data)
            self._transport.write(data)
            self._expect_receipt()

    def _expect_receipt(self) -> None:
        if self._timer is None and self._transport.get_write_buffer_size():
            self._timer = self._loop.call_later(self._seconds, self._check_receipt, self._written)

    def _check_receipt(self, written: int) -> None:
        """Drop the client if it has not received what had been written some time ago."""
        self._timer = None
        if self._written - self._transport.get_write_buffer_size() >= written:
            self._expect_receipt()
            return
        # The system drops what it holds as well, instead of sending it on.
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._transport.abort()


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits that it lacks: on headers in time and size, slow readers, and connections."""

    settings: ClassVar[ServeSettings]
    buffer: ClassVar[Buffer]
    _timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, if there are not too many."""
        limited = LimitedTransport(transport, self.settings.response_seconds)
        super().connection_made(cast("asyncio.Transport", limited))
        self.buffer.connections.add(self.transport)
        # asyncio does it only for sockets that were made with this protocol's number; a response may be many packets.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.settings.max_connections:
            self._refuse(too_busy(503, "too-many-connections", "too many connections; try again later"))
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        self.buffer.connections.discard(self.transport)
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


def server_options(settings: ServeSettings, buffer: Buffer) -> dict[str, Any]:
    """Return the options of uvicorn."""
    return {
        "http": type("Protocol", (LimitedProtocol,), {"settings": settings, "buffer": buffer}),
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
