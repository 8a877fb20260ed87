"""The server's log: every line arrives, lines of one turn of the event loop together, and failures stop nothing."""

from __future__ import annotations

import asyncio
import io
import json

from conpet.serve.logs import make_log


class Stream(io.StringIO):
    """Counts writes, and fails on request."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.full = False

    def write(self, text: str) -> int:
        self.writes += 1
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.getvalue().splitlines()]


def test_lines_of_one_turn_of_the_event_loop_are_written_together_and_in_order() -> None:
    stream = Stream()
    log = make_log("info", stream)

    async def answer() -> None:
        for number in range(3):
            log.info(f"request {number}")
        await asyncio.sleep(0)
        log.info("later")

    log.info("before")
    assert stream.events == ["before"]
    asyncio.run(answer())
    log.info("after")
    assert stream.events == ["before", "request 0", "request 1", "request 2", "later", "after"]
    assert stream.writes <= 4


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    stream = Stream()
    log = make_log("info", stream)
    stream.full = True
    log.error("lost")
    stream.full = False
    log.info("found")
    assert stream.events == ["found"]
