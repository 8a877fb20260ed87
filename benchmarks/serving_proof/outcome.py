"""What a fault did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving_proof.answers import Expected
from benchmarks.serving_proof.load import Load
from benchmarks.serving_proof.results import row
from benchmarks.serving_proof.servers import Server

MOST_MIB = 200.0
"""Memory that a fault may add to the server's."""


@dataclass
class Outcome:
    """What a fault did.

    Attributes:
        what: The fault.
        tries: How often it was caused.
        failures: What must not happen and did.
        answers: Number of answers to other clients that were compared.
        longest_wait_ms: Longest time that another client waited for an answer, all its attempts together.
        memory: Memory of the server, in MiB: before, meanwhile, and afterwards.
        noted: How often something that may happen did.
        skipped: Why it was not tried, or "".
        remark: A sentence about what was found, or "".
    """

    what: str
    tries: int = 0
    failures: list[str] = field(default_factory=list)
    answers: int = 0
    longest_wait_ms: float = 0.0
    memory: list[float] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    skipped: str = ""
    remark: str = ""

    def rows(self) -> list[Any]:
        """Return the rows of the result file."""
        if self.skipped:
            return [row(self.what, f"not tried: {self.skipped}")]
        rows = [
            row(self.what, self.tries, "times"),
            row(f"{self.what}: failures", len(self.failures), "", "0", held=not self.failures),
        ]
        if not self.memory:
            return rows
        gained = max(self.memory) - self.memory[0]
        return [
            *rows,
            row(f"{self.what}: longest wait of another client", self.longest_wait_ms, "ms"),
            row(f"{self.what}: memory gained", gained, "MiB", f"< {MOST_MIB:g} MiB", held=gained < MOST_MIB),
        ]

    def check(self, holds: bool, failure: str) -> None:
        """Take note of a failure unless something holds."""
        if not holds:
            self.failures.append(failure)


@contextmanager
def watched(outcome: Outcome, server: Server, expected: Expected, *, may_wait: bool = True) -> Iterator[Load]:
    """Ask all the time during the block, and compare the answers afterwards.

    Args:
        outcome: Gets what is wrong.
        server: The server.
        expected: The right answers; generations may still be added in the block.
        may_wait: Whether clients may be told to come back (503) and may lose their connections.
    """
    outcome.memory.append(server.mebibytes())
    load = Load(server.port, expected.texts, top_n=expected.top_n, pause=0.01, seed=len(outcome.what))
    with load:
        time.sleep(0.5)
        yield load
        time.sleep(0.5)
    outcome.memory.append(server.mebibytes())
    faults = expected.faults(load.asked)
    outcome.answers += faults.answers
    outcome.longest_wait_ms = max(outcome.longest_wait_ms, 1000 * max(one.seconds for one in load.asked))
    for kind in ("mixed", "wrong", "outdated", "unknown"):
        outcome.check(not getattr(faults, kind), f"{getattr(faults, kind)} answers: {kind}")
    for status in faults.failed:
        outcome.check(False, f"an answer with status {status}")
    lost, busy = sum(one.lost for one in load.asked), sum(one.busy for one in load.asked)
    outcome.noted.update({"connections lost by clients": lost, "clients told to come back": busy})
    outcome.check(may_wait or not lost + busy, f"{lost} connections were lost, {busy} clients were told to come back")
    for error in server.errors():
        outcome.check(False, f"an unexpected error: {error.get('exception', '')[-300:]}")
