"""Split held-out examples off the training set, for tasks without validation or test sets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from conpet.data.example import Example, digest_examples
from conpet.errors import plural

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
MIN_INPUTS = 3
"""A label with fewer distinct inputs keeps them all for training."""


def split_off(examples: Sequence[Example], share: float, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Divide labelled examples into (kept, split off), label by label; both keep their order.

    For each label with at least `MIN_INPUTS` distinct inputs, a share of them is split off, rounded, at least one. All
    copies of an input stay together. The choice depends only on the seed and on the inputs of that label, not on the
    order of rows or on other labels.
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


def with_held_out(
    subsets: Mapping[str, Sequence[Example]], seed: int | None
) -> tuple[dict[str, tuple[Example, ...]], list[str]]:
    """Return training, validation and test examples, and notes on those split off and on empty files.

    Args:
        subsets: The examples by subset; a missing validation or test set is split off the training set.
        seed: The seed, or None to split nothing off.
    """
    complete = {subset: tuple(examples) for subset, examples in subsets.items()}
    notes = []
    for subset, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if subset in complete:
            if not complete[subset]:
                use = "accuracy is not measured" if subset == "test" else "nothing is calibrated or chosen on it"
                notes.append(f"the {subset} file is empty: {use}; add rows, or remove the file to split some off")
            continue
        if seed is None:
            complete[subset] = ()
            continue
        complete["train"], complete[subset] = split_off(complete["train"], share, seed)
        if off := len(complete[subset]):
            rows = f"{off:,} of {plural(off + len(complete['train']), 'training row')}"
            notes.append(f"no {subset} set: {rows} {'was' if off == 1 else 'were'} split off with seed {seed}")
        else:
            few = f"every label has fewer than {MIN_INPUTS} distinct inputs"
            notes.append(f"no {subset} set, and none was split off: {few}")
    return complete, notes


def halves(examples: Sequence[Example], seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Divide labelled examples into two halves with as many distinct inputs of each label; both keep their order.

    Of a label with an odd number of inputs, one half gets one more, the halves in turn. All copies of an input stay
    together. The choice depends only on the seed and on the examples, not on their order.
    """
    inputs = {example.input_key: example for example in examples}
    ranked = sorted(inputs, key=lambda key: (inputs[key].label or "", _rank(inputs[key], seed)))
    second = set(ranked[1::2])
    return (
        tuple(example for example in examples if example.input_key not in second),
        tuple(example for example in examples if example.input_key in second),
    )


def _rank(example: Example, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{digest_examples((example,))}".encode()).hexdigest()
