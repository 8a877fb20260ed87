"""Splitting held-out examples off, where a task brings none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from conpet.data.example import Example, digest_examples

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
MIN_INPUTS = 3
"""A label with fewer distinct inputs keeps them all for training."""


def split_off(examples: Sequence[Example], share: float, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Divide labelled examples into (kept, split off), label by label; both in the order given.

    Of a label's n distinct inputs `share` * n, rounded, are split off, one at least if there are `MIN_INPUTS` or more.
    All copies of an input go the same way. Which inputs go depends on the seed and on the inputs of that label alone:
    not on the order of rows, nor on other labels.
    """
    ranks: dict[str | None, dict[str, Example]] = {}
    for example in examples:
        ranks.setdefault(example.label, {})[_rank(example, seed)] = example
    taken = set()
    for ranked in ranks.values():
        if len(ranked) >= MIN_INPUTS:
            number = max(1, round(share * len(ranked)))
            taken |= {ranked[rank].input_key for rank in sorted(ranked)[:number]}
    kept = tuple(example for example in examples if example.input_key not in taken)
    return kept, tuple(example for example in examples if example.input_key in taken)


def _rank(example: Example, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{digest_examples((example,))}".encode()).hexdigest()
