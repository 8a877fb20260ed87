"""The client, a process of its own that imports nothing heavy: it shares the cores with the server.

python -m benchmarks.serving.client

Reads plans as JSON, one a line, and answers each with a line of JSON. It is a minimal HTTP/1.1 client on asyncio: the
server lacks what it takes of the cores.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LOST = 0
"""The status of a request whose connection was closed."""
UNANSWERED = -1
"""The status of a request without an answer in the time allowed."""


@dataclass
class Plan:
    """What to ask, and when.

    Attributes:
        port: Port of the server on loopback.
        texts: Texts by task. A request has texts of one task and names it in its address, for servers that need it.
        size: Texts in a request; in the body they are a list.
        seconds: Duration.
        requests: Without a rate: most requests.
        rate: Requests a second, at random times that do not depend on answers (a Poisson process); or None.
        clients: Without a rate: clients of which each asks again when it has its answer.
        seed: Seed of the times, and of the texts; the same seed gives the same requests.
        grace: Seconds to wait for answers after the duration.
        mixed: Whether the texts of a request come from all tasks; it then names none.
        words: The least and most words of a text, drawn on a logarithmic scale; or None to leave texts as they are.
    """

    port: int
    texts: Mapping[str, Sequence[str]]
    size: int
    seconds: float
    requests: int = sys.maxsize
    rate: float | None = None
    clients: int = 1
    seed: int = 0
    grace: float = 15.0
    mixed: bool = False
    words: tuple[int, int] | None = None


@dataclass
class Asked:
    """What happened.

    Attributes:
        milliseconds: The time to each answer (status 200); with a rate, since the request was due.
        statuses: Number of requests by status.
        late: With a rate: milliseconds by which each request was sent late.
        in_time: Answers within the duration; without a rate at least the first.
        seconds: The duration; without a rate until the last of these answers.
    """

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    in_time: int = 0
    seconds: float = 0.0


class Connection(asyncio.Protocol):
    """A connection that has one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._needed: int | None = None
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(LOST)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._needed is None and (end := self._received.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._received, 0, end)
            self._needed = end + 4 + (int(found[1]) if found else 0)
        if self._needed is not None and len(self._received) >= self._needed:
            status = int(self._received[9:12])
            self._received.clear()
            self._needed = None
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(status)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; return its status, when the whole answer has arrived."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer


class Connections:
    """Connections to a server; one is opened when all others are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []
        self._all: list[Connection] = []

    async def ask(self, request: bytes) -> int:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                break
        else:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
            self._all.append(connection)
        status = await connection.ask(request)
        self._idle.append(connection)
        return status

    def close(self) -> None:
        for connection in self._all:
            connection.close()


def requests(plan: Plan, count: int) -> Iterator[bytes]:
    """Yield requests in which no text occurs twice."""
    draw, numbers = random.Random(plan.seed), itertools.count()
    tasks = list(plan.texts)
    for _ in range(count):
        named = draw.choice(tasks)
        body = json.dumps(
            {"inputs": [fresh_text(plan, None if plan.mixed else named, draw, next(numbers)) for _ in range(plan.size)]}
        ).encode()
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTask: {'' if plan.mixed else quote(named)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def fresh_text(plan: Plan, task: str | None, draw: random.Random, number: int) -> str:
    """Return a text of a task, or of any, with a number that makes it new."""
    text = draw.choice(plan.texts[task or draw.choice(list(plan.texts))])
    return f"{sized(text, plan.words, draw)} {plan.seed}.{number}"


def sized(text: str, words: tuple[int, int] | None, draw: random.Random) -> str:
    """Return a text with a random number of words: its own, repeated."""
    if words is None:
        return text
    own, (low, high) = text.split(), words
    wanted = round(low * (high / low) ** draw.random())
    return " ".join((own * (wanted // len(own) + 1))[:wanted])


async def at_rate(plan: Plan, ask: Callable[[bytes], Awaitable[int]]) -> Asked:
    """Send requests at their times, whether or not those before were answered."""
    assert plan.rate is not None
    draw, due, times = random.Random(plan.seed), 0.0, []
    while (due := due + draw.expovariate(plan.rate)) < plan.seconds:
        times.append(due)
    asked, prepared = Asked(seconds=plan.seconds), list(requests(plan, len(times)))
    start = time.perf_counter() + 0.05

    async def one(due: float, request: bytes) -> None:
        asked.late.append(1000 * (time.perf_counter() - start - due))
        status = await ask(request)
        done = time.perf_counter() - start
        asked.statuses[status] += 1
        if status == 200:
            asked.milliseconds.append(1000 * (done - due))
            asked.in_time += done <= plan.seconds

    sent = set()
    for due, request in zip(times, prepared, strict=True):
        if (left := start + due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        sent.add(asyncio.create_task(one(due, request)))
    if sent:
        _, unanswered = await asyncio.wait(
            sent, timeout=max(0.0, start + plan.seconds - time.perf_counter()) + plan.grace
        )
        for task in unanswered:
            task.cancel()
        asked.statuses[UNANSWERED] += len(unanswered)
    return asked


async def in_turn(plan: Plan, ask: Callable[[bytes], Awaitable[int]]) -> Asked:
    """Let each client ask again as soon as it has its answer."""
    asked = Asked()
    prepared = requests(plan, plan.requests)
    start = time.perf_counter()
    end = start + plan.seconds

    async def client() -> None:
        while (sent := time.perf_counter()) < end and (request := next(prepared, None)):
            status = await ask(request)
            done = time.perf_counter()
            asked.statuses[status] += 1
            if status == 200:
                asked.milliseconds.append(1000 * (done - sent))
                if done <= end or not asked.in_time:
                    asked.in_time += 1
                    asked.seconds = done - start

    await asyncio.gather(*(client() for _ in range(plan.clients)))
    return asked


async def carried_out(plan: Plan) -> dict[str, Any]:
    """Carry out a plan; return what happened."""
    connections = Connections(plan.port)
    cpu = time.process_time()
    asked = await (in_turn if plan.rate is None else at_rate)(plan, connections.ask)
    connections.close()
    return {
        "seconds": asked.seconds,
        "answered_in_time": asked.in_time,
        "statuses": dict(asked.statuses),
        "milliseconds": sorted(asked.milliseconds),
        "late": sorted(asked.late),
        "client_cpu_seconds": time.process_time() - cpu,
    }


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asyncio.run(carried_out(Plan(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
