"""What takes long is computed beside the requests."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from conpet.serve.background import Background


def test_the_last_value_is_there_at_once_while_the_next_is_computed() -> None:
    go = threading.Semaphore(0)
    values = iter(range(10))

    def compute() -> int:
        assert go.acquire(timeout=10)
        return next(values)

    background = Background(compute, fresh_seconds=0.0)
    assert background.latest() is None
    assert background.latest(wait_seconds=0.01) is None  # the first computation goes on; no second one begins
    go.release()
    first = background.latest(wait_seconds=10)
    assert first is not None
    assert first.value == 0
    again = background.latest()  # not fresh: the next one begins
    assert again == first
    assert background.latest(since=datetime.now(UTC)) is None
    go.release(2)
    while (found := background.latest(10)) is not None and found.value == 0:
        pass
    assert found is not None
    assert found.value == 1


def test_a_failure_is_told_once_and_then_tried_again() -> None:
    results = iter([OSError("gone"), 5])

    def compute() -> int:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    background: Background[int] = Background(compute, fresh_seconds=60.0)
    with pytest.raises(OSError, match="gone"):
        background.latest(wait_seconds=10)
    found = background.latest(wait_seconds=10)
    assert found is not None
    assert (found.value, background.latest()) == (5, found)
