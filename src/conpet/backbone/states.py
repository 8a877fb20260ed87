"""Prefix states of examples, and the batches built from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to a common length T.

    Attributes:
        ids: Token ids `[n, T]`, int64.
        mask: 1 for tokens, 0 for padding `[n, T]`, int64.
        slots: Slot index of each example `[n]`, int64.
        spans: Start and end (exclusive) of up to two marked spans `[n, 2, 2]`, int64; 0, 0 for none.
        hidden: Prefix states `[n, T, d]`, or None with `frozen_layers=0`.
        lengths: Number of tokens of each example. Same as the sums of `mask`, but readable without waiting for the
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

    def collate(self, indices: Sequence[int], *, pad: int, device: torch.device) -> Batch:
        """Return the examples at `indices` as a batch, padded to the longest of them."""
        encoded = [self.encoded[index] for index in indices]
        ids, mask = pad_ids(encoded, pad)
        hidden = None
        if self.hidden is not None:
            rows = [self.hidden[index] for index in indices]
            hidden = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        slots = torch.tensor([example.slot for example in encoded])
        lengths = tuple(len(example.ids) for example in encoded)
        return Batch(ids.to(device), mask.to(device), slots.to(device), spans_of(encoded).to(device), hidden, lengths)


def pad_ids(encoded: Sequence[Encoded], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask `[n, T]`, int64, padded on the right with the id `pad`."""
    lengths = [len(example.ids) for example in encoded]
    inside = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.full(inside.shape, pad, dtype=torch.int64)
    ids.masked_scatter_(inside, torch.tensor([token for example in encoded for token in example.ids]))
    return ids, inside.long()


def spans_of(encoded: Sequence[Encoded]) -> Tensor:
    """Return the marked spans `[n, 2, 2]`, int64; 0, 0 where an example has fewer than two."""
    spans = torch.zeros((len(encoded), 2, 2), dtype=torch.int64)
    for row, example in enumerate(encoded):
        if example.spans:
            spans[row, : len(example.spans)] = torch.tensor(example.spans)
    return spans


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples are grouped into batches.

    Attributes:
        tokens: Most padded tokens in a batch: enough to fill the cores, few enough to stay in their caches.
        per_pass: Fixed cost of a pass, in tokens: a batch is split when it would be padded by more than this.
    """

    tokens: int
    per_pass: int

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Divide examples, shortest first, into batches of similar length; yield the indices of each batch."""
        batch: list[int] = []
        filled = 0
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            length = lengths[index]
            padded = length * (len(batch) + 1)
            if batch and (padded > self.tokens or padded - filled - length > self.per_pass):
                yield batch
                batch, filled = [], 0
            batch.append(index)
            filled += length
        if batch:
            yield batch


ON_CPU = Batching(tokens=2048, per_pass=64)
"""Measured on two cores with `minilm-l6` and `smollm2-135m`: 512-2048 tokens and 16-64 per pass are equally fast."""
ON_GPU = Batching(tokens=16384, per_pass=4096)
"""A GPU is mostly idle in passes over few tokens."""
