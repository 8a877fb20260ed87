"""Prefix states as stored in latent-only mode: n examples in five tensors, without texts or tokens.

For each subset: `hidden` `[sum of T, d]` (the states after the frozen layers, examples concatenated), `lengths` `[n]`,
`slots` `[n]`, `spans` `[n, 2, 2]` and `features` `[n, F]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from conpet.backbone.states import Encoded, States, spans_of


def pack(states: States) -> dict[str, Tensor]:
    """Return the tensors that hold the states of n examples, computed with at least one frozen layer."""
    hidden = states.hidden
    assert hidden is not None, "latent-only needs frozen layers"  # noqa: S101 - refused at `create`
    return {
        "hidden": torch.cat(hidden) if hidden else torch.zeros(0, 0, dtype=torch.float32),
        "lengths": torch.tensor([len(example) for example in hidden], dtype=torch.int64),
        "slots": torch.tensor([example.slot for example in states.encoded], dtype=torch.int64),
        "spans": spans_of(states.encoded),
        "features": states.features,
    }


def selected(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors of these examples only; `rows` ascending, without duplicates."""
    if len(rows) == len(tensors["lengths"]):
        return dict(tensors)
    hidden, chosen = _hidden(tensors), list(rows)
    return {
        "hidden": torch.cat([hidden[row] for row in chosen]) if chosen else tensors["hidden"][:0],
        **{name: tensors[name][chosen] for name in ("lengths", "slots", "spans", "features")},
    }


def unpack(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> States:
    """Return the states of these examples; their token ids are placeholders, their keys hashes of the states."""
    hidden = _hidden(tensors)
    slots, spans = tensors["slots"].tolist(), tensors["spans"].tolist()
    chosen = tuple(hidden[row].clone() for row in rows)  # copies, because views would hold the whole file in memory
    encoded = tuple(
        Encoded((0,) * len(states), slots[row], _spans(spans[row]), _key(states, slots[row]))
        for row, states in zip(rows, chosen, strict=True)
    )
    return States(encoded, chosen, tensors["features"][list(rows)])


def latent_rows(tensors: Mapping[str, Tensor]) -> Iterator[tuple[bytes, int]]:
    """Iterate over the examples: bytes that identify each, and its size in bytes."""
    features = tensors["features"]
    fixed = features.shape[1] * features.element_size() + 48  # features; length, slot and spans are six int64
    for states, slot in zip(_hidden(tensors), tensors["slots"].tolist(), strict=True):
        yield _key(states, slot).encode(), states.numel() * states.element_size() + fixed


def _spans(stored: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in stored if end > start)


def _hidden(tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    lengths: list[int] = tensors["lengths"].tolist()
    return tuple(tensors["hidden"].split(lengths))


def _key(states: Tensor, slot: int) -> str:
    content = states.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(content + slot.to_bytes(4, "little"), digest_size=16).hexdigest()
