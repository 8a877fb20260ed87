"""Prepare a generation for its first requests."""

from __future__ import annotations

from collections.abc import Callable

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


def warm(live: Live, on_damage: Callable[[OSError], None]) -> None:
    """Fit what predictions need, load the modules, and answer an input of each kind.

    Args:
        live: The generation.
        on_damage: Called if a module cannot be read; requests that need it will fail, all others will not.

    Raises:
        OSError: What all predictions need cannot be read.
    """
    live.method.prepare(live.state)
    for kind, probe in _PROBES.items():
        owners = [index for index, task in enumerate(live.state.tasks) if task.kind is kind]
        if owners:
            try:
                _answer(live, kind, probe, owners[:_MODULES])
            except OSError as error:
                on_damage(error)


def _answer(live: Live, kind: Kind, probe: Example, owners: list[int]) -> None:
    inputs = live.method.encode(live.state, [probe] * len(owners), kind, keep=False)
    live.method.within_task(live.state.refitted, inputs, torch.tensor(owners))
    answer(live, [probe], top_n=1)
