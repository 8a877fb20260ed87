"""Clients that ask a server without a pause, and note every answer."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

GIVE_UP_SECONDS = 300.0
"""A client that gets no answer for so long counts as one that is not answered."""
_BUSY = frozenset({429, 503})
_PAUSE_SECONDS = 0.02
_LONGEST_ANSWER = 64 << 20


@dataclass(slots=True)
class Asked:
    """One question of a client, with the answer that it got in the end.

    Attributes:
        start: When it was first sent, on the monotonic clock.
        end: When the answer had arrived.
        status: Its status; 0 if there was none.
        texts: Index of its first text, and the number of texts.
        body: The answer.
        lost: How often the connection broke before.
        busy: How often the server said that it is busy (429, 503) before.
        least: The oldest generation that may answer.
    """

    start: float
    end: float = 0.0
    status: int = 0
    texts: tuple[int, int] = (0, 0)
    body: bytes = b""
    lost: int = 0
    busy: int = 0
    least: int = 0

    @property
    def seconds(self) -> float:
        """How long the client waited, all attempts together."""
        return self.end - self.start


@dataclass
class Load:
    """Clients in a thread of their own, each with one connection and one question at a time.

    A client whose connection breaks, or that is told that the server is busy, tries again, as programs do.

    Args:
        port: The server's port.
        texts: What they ask.
        sizes: Numbers of texts in a question, one for each client.
        top_n: Number of labels with each answer.
        pause: Most seconds between an answer and the next question of a client.
        seed: Of the choice of texts.
    """

    port: int
    texts: Sequence[str]
    sizes: Sequence[int] = (1, 1, 1, 16)
    top_n: int = 10
    pause: float = 0.0
    seed: int = 0
    asked: list[Asked] = field(default_factory=list)
    least: int = 0
    """The oldest generation that may answer questions from now on."""

    def __enter__(self) -> Load:
        self._done = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()

    def during(self, start: float, end: float) -> list[Asked]:
        """Return the questions that were open at a moment between two."""
        return [one for one in list(self.asked) if one.start <= end and one.end >= start]

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number, size) for number, size in enumerate(self.sizes)))

    async def _client(self, number: int, size: int) -> None:
        draw, connection = random.Random(f"{self.seed}|{number}"), Connection(self.port)
        while not self._done:
            first = draw.randrange(len(self.texts))
            self.asked.append(await self._answered(connection, first, size))
            if self.pause:
                await asyncio.sleep(draw.uniform(0, self.pause))
        connection.close()

    async def _answered(self, connection: Connection, first: int, size: int) -> Asked:
        asked = Asked(time.monotonic(), texts=(first, size), least=self.least)
        inputs = [self.texts[(first + offset) % len(self.texts)] for offset in range(size)]
        content = json.dumps({"inputs": inputs, "top_n": self.top_n}).encode()
        while time.monotonic() - asked.start < GIVE_UP_SECONDS:
            try:
                status, body = await connection.post("/v1/predict", content)
            except (OSError, asyncio.IncompleteReadError, ValueError):
                asked.lost += 1
            else:
                if status not in _BUSY:
                    asked.status, asked.body = status, body
                    break
                asked.busy += 1
            await asyncio.sleep(_PAUSE_SECONDS)
        asked.end = time.monotonic()
        return asked


class Connection:
    """A connection that is opened when it is needed. It does less than an HTTP client, so that it takes little time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, content: bytes) -> tuple[int, bytes]:
        """Send JSON; return status and body of the answer.

        Raises:
            OSError: The connection broke, or nothing came in time.
            IncompleteReadError: It ended in the middle of the answer.
            ValueError: The answer is not complete.
        """
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                return await self._post(path, content)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _post(self, path: str, content: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LONGEST_ANSWER)
        reader, writer = self._streams
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), body


def scores_of(prediction: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a prediction's labels, as it stands in an answer."""
    return {one["label"]: one["score"] for one in (prediction, *prediction["runners_up"])}
