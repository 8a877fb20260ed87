"""Prefix states as stored in latent-only mode: n examples in five tensors, and no token of their texts.

Per split: `hidden` `[sum of T, d]` (the states behind layer `subset`, one example after another), `lengths` `[n]`,
`slots` `[n]`, `spans` `[n, 2, 2]` and `features` `[n, F]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from conpet.backbone.states import Encoded, States, spans_of


def pack(states: States) -> dict[str, Tensor]:
    """Return the tensors that hold the states of n examples, which must have been computed with `subset` > 0."""
    hidden = states.hidden
    assert hidden is not None, "states without a prefix have nothing to store"  # noqa: S101 - refused at `create`
    return {
        "hidden": torch.cat(hidden) if hidden else torch.zeros(0, 0),
        "lengths": torch.tensor([len(one) for one in hidden], dtype=torch.int64),
        "slots": torch.tensor([one.slot for one in states.encoded], dtype=torch.int64),
        "spans": spans_of(states.encoded),
        "features": states.features,
    }


def selected(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors that hold some of the examples, `rows` ascending and without repeats."""
    if len(rows) == len(tensors["lengths"]):
        return dict(tensors)
    hidden, kept = _hidden(tensors), list(rows)
    return {
        "hidden": torch.cat([hidden[row] for row in kept]) if kept else tensors["hidden"][:0],
        **{name: tensors[name][kept] for name in ("lengths", "slots", "spans", "features")},
    }


def unpack(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> States:
    """Read some examples; their ids only hold their lengths, and a hash of their states tells them apart."""
    hidden = _hidden(tensors)
    slots, spans = tensors["slots"].tolist(), tensors["spans"].tolist()
    chosen = tuple(hidden[row].clone() for row in rows)  # not views that keep the whole file in memory
    encoded = tuple(
        Encoded((0,) * len(states), slots[row], _spans(spans[row]), _key(states, slots[row]))
        for row, states in zip(rows, chosen, strict=True)
    )
    return States(encoded, chosen, tensors["features"][list(rows)])


def latent_rows(tensors: Mapping[str, Tensor]) -> Iterator[tuple[bytes, int]]:
    """Iterate over the examples: bytes that tell each from others, and the bytes it takes."""
    features = tensors["features"]
    beside = features.shape[1] * features.element_size() + 48  # its length, slot and spans, six int64
    for states, slot in zip(_hidden(tensors), tensors["slots"].tolist(), strict=True):
        yield _key(states, slot).encode(), states.numel() * states.element_size() + beside


def _spans(stored: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in stored if end > start)


def _hidden(tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    lengths: list[int] = tensors["lengths"].tolist()
    return tuple(tensors["hidden"].split(lengths))


def _key(states: Tensor, slot: int) -> str:
    content = states.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(content + slot.to_bytes(4, "little"), digest_size=16).hexdigest()
