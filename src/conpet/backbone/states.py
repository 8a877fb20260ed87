"""Prefix states of examples, and the batches built from them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids.

    Attributes:
        ids: Token ids with the special tokens, as the backbone reads them.
        slot: Index of the token whose last hidden state represents the example.
        spans: Start and end (exclusive) of each marked span: head and tail, the mention, or none.
        key: Hash of the prefix states for an example stored without its text, whose `ids` hold only the length; else
            empty.
        cut: Number of tokens cut off because the example is too long; 0 if it was stored without its text.
    """

    ids: tuple[int, ...]
    slot: int
    spans: tuple[tuple[int, int], ...] = ()
    key: str = ""
    cut: int = field(default=0, compare=False)


class Shape(NamedTuple):
    """The padded shape of a batch: number of rows, and tokens per row."""

    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to a common length T. Rows after the first n examples are filled up and masked.

    Attributes:
        ids: Token ids `[n, T]`, int64.
        mask: 1 for tokens, 0 for padding `[n, T]`, int64.
        slots: Slot index of each example `[n]`, int64.
        spans: Start and end (exclusive) of up to two marked spans `[n, 2, 2]`, int64; 0, 0 for none.
        hidden: Prefix states `[n, T, d]`, or None with `frozen_layers=0`.
        lengths: Number of tokens of each example, without the rows that were added. Readable without waiting for the
            device.
    """

    ids: Tensor
    mask: Tensor
    slots: Tensor
    spans: Tensor
    hidden: Tensor | None
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens, without padding."""
        return sum(self.lengths)

    @property
    def padding(self) -> Tensor | None:
        """The mask, or None if there is no padding: models are faster without a mask."""
        return self.mask if self.tokens < self.ids.numel() else None

    def rows(self, start: int, stop: int) -> Batch:
        """Return the examples from `start` up to `stop`, with the same padding."""
        part = slice(start, stop)
        hidden = None if self.hidden is None else self.hidden[part]
        lengths = self.lengths[part]
        return Batch(self.ids[part], self.mask[part], self.slots[part], self.spans[part], hidden, lengths)


@dataclass(frozen=True, slots=True)
class States:
    """The prefix states of n examples.

    Attributes:
        encoded: Token ids and slots of the n examples.
        hidden: Per example, the states after layer `frozen_layers` `[T, d]`, or None with `frozen_layers=0`.
        features: Frozen features `[n, F]`, float32: the mean over tokens at the feature layers, standardised.
    """

    encoded: tuple[Encoded, ...]
    hidden: tuple[Tensor, ...] | None
    features: Tensor

    def __len__(self) -> int:
        return len(self.encoded)

    def select(self, indices: Sequence[int]) -> States:
        """Return the states of the examples at `indices`, in that order."""
        hidden = None if self.hidden is None else tuple(self.hidden[index] for index in indices)
        return States(tuple(self.encoded[index] for index in indices), hidden, self.features[list(indices)])

    @classmethod
    def concatenated(cls, parts: Sequence[States]) -> States:
        """Return the states of all parts, concatenated in order."""
        encoded = tuple(example for part in parts for example in part.encoded)
        hidden = tuple(states for part in parts for states in part.hidden or ())
        return cls(encoded, hidden if parts[0].hidden is not None else None, torch.cat([p.features for p in parts]))

    def collate(self, indices: Sequence[int], *, pad: int, device: torch.device, shape: Shape | None = None) -> Batch:
        """Return the examples at `indices` as a batch, padded to a shape (None: to the longest of them)."""
        encoded = [self.encoded[index] for index in indices]
        ids, mask = pad_ids(encoded, pad, shape)
        hidden = None
        if self.hidden is not None:
            rows = [self.hidden[index] for index in indices]
            hidden = rows[0].new_zeros(*ids.shape, rows[0].shape[-1])
            for row, states in enumerate(rows):
                hidden[row, : len(states)] = states
            hidden = hidden.to(device)
        slots = torch.zeros(len(ids), dtype=torch.int64)
        slots[: len(encoded)] = torch.tensor([example.slot for example in encoded])
        spans = spans_of(encoded, len(ids))
        lengths = tuple(len(example.ids) for example in encoded)
        return Batch(ids.to(device), mask.to(device), slots.to(device), spans.to(device), hidden, lengths)


class DeferredStates(States):
    """The features of n examples; token ids and hidden states are read when they are asked for.

    `select` reads those of the selected examples only.

    Args:
        features: As in `States`.
        read: Returns the states of the examples at some indices.
    """

    __slots__ = ("_read", "_whole")
    _read: Callable[[Sequence[int]], States]
    _whole: States | None

    def __init__(self, features: Tensor, read: Callable[[Sequence[int]], States]) -> None:
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_whole", None)

    def __len__(self) -> int:
        return len(self.features)

    def _all(self) -> States:
        whole = self._whole
        if whole is None:
            whole = self._read(range(len(self)))
            object.__setattr__(self, "_whole", whole)
        return whole

    @property
    def encoded(self) -> tuple[Encoded, ...]:
        """Token ids and slots of all examples."""
        return self._all().encoded

    @property
    def hidden(self) -> tuple[Tensor, ...] | None:
        """Hidden states of all examples."""
        return self._all().hidden

    def select(self, indices: Sequence[int]) -> States:
        """Return the states of the examples at `indices`, in that order."""
        return self._read(indices) if self._whole is None else self._whole.select(indices)


def pad_ids(encoded: Sequence[Encoded], pad: int, shape: Shape | None = None) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64, padded on the right with the id `pad` to `[n, T]`, or to a larger shape.

    An added row has one token, because attention over none is undefined.
    """
    lengths = [len(example.ids) for example in encoded]
    rows, tokens = shape or (len(lengths), max(lengths))
    ids = torch.full((rows, tokens), pad, dtype=torch.int64)
    inside = torch.arange(tokens) < torch.tensor(lengths + [1] * (rows - len(lengths))).unsqueeze(1)
    ids[: len(lengths)].masked_scatter_(
        inside[: len(lengths)], torch.tensor([token for example in encoded for token in example.ids])
    )
    return ids, inside.long()


def spans_of(encoded: Sequence[Encoded], rows: int | None = None) -> Tensor:
    """Return the marked spans `[rows, 2, 2]`, int64; 0, 0 where an example has fewer than two, and in added rows."""
    spans = torch.zeros((rows or len(encoded), 2, 2), dtype=torch.int64)
    for row, example in enumerate(encoded):
        if example.spans:
            spans[row, : len(example.spans)] = torch.tensor(example.spans)
    return spans


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples are grouped into batches, whose shapes come from a small set.

    Kernels for 16-bit products are compiled for each shape and stay in memory. The number of rows is therefore a power
    of two, and there are four lengths between a power of two and the next. What this costs in padding was small where
    it was measured; `benchmarks/memory.py` measures the memory.

    Attributes:
        tokens: Most padded tokens in a batch: enough to fill the cores, few enough to stay in their caches.
        per_pass: Fixed cost of a pass, in tokens.
        longest: Most tokens of an example, to which none is padded further; None for no limit.
    """

    tokens: int
    per_pass: int
    longest: int | None = None

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Divide examples, shortest first, into the batches that cost least; yield the indices of each batch."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        # The cheapest batches of the first k examples: their cost, and the number of examples in the last of them.
        cost, last = [0] * (len(order) + 1), [0] * (len(order) + 1)
        row_counts = [1 << bit for bit in range(len(order).bit_length() + 1)]
        for end in range(1, len(order) + 1):
            tokens = self._padded(lengths[order[end - 1]])
            choices = [
                (cost[end - size] + rows * tokens + self.per_pass, size)
                for rows in row_counts[: max(1, bisect(row_counts, self.tokens // tokens))]
                for size in (min(rows, end),)
            ]
            cost[end], last[end] = min(choices)
        ends = [len(order)]
        while ends[-1]:
            ends.append(ends[-1] - last[ends[-1]])
        for start, end in pairwise(ends[::-1]):
            yield order[start:end]

    def shape(self, lengths: Sequence[int]) -> Shape:
        """Return the shape that a batch of examples with these lengths is padded to."""
        return Shape(1 << (len(lengths) - 1).bit_length(), self._padded(max(lengths)))

    def _padded(self, length: int) -> int:
        step = max(1, (1 << (length.bit_length() - 1)) // 4)
        padded = -(-length // step) * step
        return padded if self.longest is None else max(length, min(padded, self.longest))


ON_CPU = Batching(tokens=2048, per_pass=96)
"""Measured once, with `minilm-l6`: 512-2048 tokens were equally fast."""
ON_GPU = Batching(tokens=16384, per_pass=4096)
"""A GPU is mostly idle in passes over few tokens."""
ALONE = Batching(tokens=1, per_pass=0)
"""Every example in a pass of its own."""
