"""Where the time of two sides goes, by torch's operators: what a missed bound is explained by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.timing import timed

SHOWN = 6
OUTSIDE = "all else: Python, reading and writing files"


def profiled(sides: Sequence[Callable[[], Any]]) -> list[dict[str, Any]]:
    """Run each side once under the profiler, which slows both down.

    Returns:
        The operators in which the sides differ most, and all that is no operator: `name`, and `ms` of each side.
    """
    found = [_operators(run) for run in sides]
    names = sorted({name for one in found for name in one}, key=lambda name: -abs(found[0][name] - found[1][name]))
    names = [*[name for name in names if name != OUTSIDE][:SHOWN], OUTSIDE]
    return [{"name": name, "ms": [round(one[name], 2) for one in found]} for name in names]


def _operators(run: Callable[[], Any]) -> Counter[str]:
    """Return milliseconds by operator, its callees left out."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        _, seconds, _ = timed(run)
    spent = Counter({event.key: event.self_cpu_time_total / 1e3 for event in watched.key_averages()})
    spent[OUTSIDE] = 1e3 * seconds - spent.total()
    return spent
