"""Profile two sides by torch operators, to explain a missed goal."""

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
        The operators with the largest differences, and the time outside of operators: `name`, and `ms` of each side.
    """
    spent = [_operators(run) for run in sides]
    names = sorted({name for side in spent for name in side}, key=lambda name: -abs(spent[0][name] - spent[1][name]))
    names = [*[name for name in names if name != OUTSIDE][:SHOWN], OUTSIDE]
    return [{"name": name, "ms": [round(side[name], 2) for side in spent]} for name in names]


def _operators(run: Callable[[], Any]) -> Counter[str]:
    """Return milliseconds by operator, without callees."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        _, seconds, _ = timed(run)
    spent = Counter({event.key: event.self_cpu_time_total / 1e3 for event in watched.key_averages()})
    spent[OUTSIDE] = 1e3 * seconds - spent.total()
    return spent
