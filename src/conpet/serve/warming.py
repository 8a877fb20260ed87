"""Prepare a generation for its first requests."""

from __future__ import annotations

import torch

from conpet.data import Example, Kind, Span
from conpet.state.engine import answer
from conpet.state.live import Live

_MODULES = 128
"""Most modules of each kind of input that are loaded beforehand."""
_PROBES = {
    Kind.TEXT: Example.of_text("warm up"),
    Kind.RELATION: Example.of_relation(("warm", "up"), Span(0, 1), Span(1, 2)),
    Kind.TYPING: Example.of_mention(("warm", "up"), Span(0, 1)),
}


def warm(live: Live) -> None:
    """Fit what predictions need, load the modules, and answer an input of each kind."""
    live.method.prepare(live.state)
    for kind, probe in _PROBES.items():
        owners = [index for index, task in enumerate(live.state.tasks) if task.kind is kind]
        if owners:
            chosen = owners[:_MODULES]
            inputs = live.method.encode(live.state, [probe] * len(chosen), kind, keep=False)
            live.method.within_task(live.state, inputs, torch.tensor(chosen))
            answer(live, [probe], 0)
