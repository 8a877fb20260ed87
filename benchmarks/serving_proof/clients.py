"""Clients that send slowly, read slowly, or do nothing."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.serving_proof.answers import Expected
from benchmarks.serving_proof.outcome import Outcome, watched
from benchmarks.serving_proof.servers import Server

SETTINGS = {
    "header_seconds": 2,
    "body_seconds": 3,
    "response_seconds": 3,
    "body_bytes": 16 << 20,
    "buffer_bytes": 64 << 20,
    "max_connections": 2000,
}
_GRACE_SECONDS = 3.0
_HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BODY = b'{"inputs": "hello"}'
_ECHOED = 8 << 20


def send_slowly(server: Server, expected: Expected, tries: int) -> Outcome:
    """Send one byte a second: half of the clients within the headers, half within the body."""
    outcome = Outcome("clients that send one byte a second")

    async def client(number: int) -> None:
        begun, rest = (_HEAD[:20], _HEAD[20:]) if number % 2 else (_HEAD + b"Content-Length: 99\r\n\r\n", b" " * 99)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        start, limit = time.monotonic(), max(SETTINGS["header_seconds"], SETTINGS["body_seconds"]) + _GRACE_SECONDS
        writer.write(begun)
        answer = asyncio.ensure_future(reader.read(12))
        for byte in rest:
            done, _ = await asyncio.wait([answer], timeout=1)
            if done or time.monotonic() - start > limit:
                break
            writer.write(bytes([byte]))
        outcome.check(answer.done() and answer.result().endswith(b"408"), f"client {number} was not ended")
        answer.cancel()
        writer.close()

    return run(outcome, server, expected, tries, client)


def half_open(server: Server, expected: Expected, tries: int) -> Outcome:
    """Leave connections open after a request, or in the middle of one, as if the client's machine were gone."""
    outcome = Outcome("half-open connections")

    async def client(number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        whole = _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY
        writer.write(whole[: len(whole) if number % 3 == 0 else number % len(whole)])
        await asyncio.sleep(6)
        socket_ = writer.get_extra_info("socket")
        with suppress(OSError):
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
        writer.close()

    return run(outcome, server, expected, tries, client)


def idle(server: Server, expected: Expected, tries: int) -> Outcome:
    """Open many connections and send nothing; the server ends them."""
    outcome = Outcome("idle connections")

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            async with asyncio.timeout(SETTINGS["header_seconds"] + 20):
                await reader.read()
        except TimeoutError:
            outcome.check(False, f"connection {number} stayed open")
        except OSError:
            outcome.noted["ended by a reset"] += 1
        writer.close()

    return run(outcome, server, expected, tries, client)


def read_slowly(server: Server, expected: Expected, tries: int) -> Outcome:
    """Ask for large answers and read one byte a second of them; the server ends or refuses the connections."""
    outcome = Outcome("clients that read one byte a second")
    body = json.dumps({"inputs": {"text": "a", "id": "x" * _ECHOED}}).encode()
    head = _HEAD + b"Content-Length: %d\r\n\r\n" % len(body)

    async def client(number: int) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", server.port))
        await loop.sock_sendall(raw, head + body)
        try:
            begun = b""
            for _ in range(len("HTTP/1.1 200")):
                begun += await loop.sock_recv(raw, 1)
                await asyncio.sleep(1)
            outcome.noted["refused (503)"] += begun.endswith(b"503")
            received = 0
            while part := await loop.sock_recv(raw, 1 << 20):
                received += len(part)
            outcome.check(received < _ECHOED, f"client {number} got {received} bytes")
        except OSError:
            outcome.noted["ended by a reset"] += 1
        raw.close()

    return run(outcome, server, expected, tries, client)


def run(
    outcome: Outcome, server: Server, expected: Expected, tries: int, client: Callable[[int], Awaitable[None]]
) -> Outcome:
    """Run clients at once, beside those that must be answered."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    outcome.tries = tries

    async def all_clients() -> None:
        own = [asyncio.ensure_future(client(number)) for number in range(tries)]
        running = True
        while running:
            _, pending = await asyncio.wait(own, timeout=0.5)
            running = bool(pending)
            outcome.memory.append(server.mebibytes())
        for number, one in enumerate(own):
            error = one.exception()
            outcome.check(error is None, f"client {number}: {error!r}")

    with watched(outcome, server, expected, may_wait=False):
        asyncio.run(all_clients())
    return outcome
