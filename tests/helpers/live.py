"""What tests ask of a workspace's method directly."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.data import Example
from conpet.methods.base import Scores
from conpet.state.inputs import EncodedInputs
from conpet.state.live import Live


def encoded(live: Live, examples: Sequence[Example]) -> EncodedInputs:
    """Return examples of one kind as the prefix gives them; the state cache is left alone."""
    return live.method.encode(live.state, examples, examples[0].kind, keep=False)


def scored(live: Live, examples: Sequence[Example]) -> Scores:
    """Return the method's scores of examples of one kind."""
    return live.method.score(live.state, encoded(live, examples), examples[0].kind)
