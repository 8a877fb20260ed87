"""What the prefix computed for some examples, and the batches made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids.

    Attributes:
        ids: Token ids with the special tokens, as the backbone reads them.
        slot: Index of the token whose last hidden state represents the example.
        spans: First token and token behind the last of each marked span: head and tail, the mention, or none.
        key: What tells the example from others where `ids` only hold its length, because no more may be kept of it:
            a hash of its prefix states; empty elsewhere.
    """

    ids: tuple[int, ...]
    slot: int
    spans: tuple[tuple[int, int], ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples padded to one length T (padding on the right).

    Attributes:
        ids: Token ids `[n, T]`, int64.
        mask: 1 for tokens, 0 for padding `[n, T]`, int64.
        slots: Index of the slot `[n]`, int64.
        spans: First token and token behind the last of up to two marked spans `[n, 2, 2]`, int64; 0, 0 for none.
        hidden: Prefix states `[n, T, d]`, or None with `frozen_layers=0`.
        lengths: Tokens of each of the n examples: what `mask` says, without asking a device that is still at work.
    """

    ids: Tensor
    mask: Tensor
    slots: Tensor
    spans: Tensor
    hidden: Tensor | None
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens, padding left out."""
        return sum(self.lengths)

    @property
    def padding(self) -> Tensor | None:
        """The mask, or None where there is no padding: models are faster without one."""
        return self.mask if self.tokens < self.ids.numel() else None

    def rows(self, start: int, stop: int) -> Batch:
        """Return some of its examples, padded as they are here."""
        some = slice(start, stop)
        hidden = None if self.hidden is None else self.hidden[some]
        lengths = self.lengths[some]
        return Batch(self.ids[some], self.mask[some], self.slots[some], self.spans[some], hidden, lengths)


@dataclass(frozen=True, slots=True)
class States:
    """The prefix states of n examples.

    Attributes:
        encoded: The examples' ids and slots, n of them.
        hidden: Per example the states behind layer `frozen_layers` `[T, d]`, or None with `frozen_layers=0`.
        features: Frozen features `[n, F]`, float32: the mean over tokens at the feature layers, standardised.
    """

    encoded: tuple[Encoded, ...]
    hidden: tuple[Tensor, ...] | None
    features: Tensor

    def __len__(self) -> int:
        return len(self.encoded)

    def select(self, indices: Sequence[int]) -> States:
        """Return the states of some examples, in the order given."""
        hidden = None if self.hidden is None else tuple(self.hidden[index] for index in indices)
        return States(tuple(self.encoded[index] for index in indices), hidden, self.features[list(indices)])

    @classmethod
    def concatenated(cls, parts: Sequence[States]) -> States:
        """Return the states of all parts, one after the other."""
        encoded = tuple(one for part in parts for one in part.encoded)
        hidden = tuple(one for part in parts for one in part.hidden or ())
        return cls(encoded, hidden if parts[0].hidden is not None else None, torch.cat([p.features for p in parts]))

    def collate(self, indices: Sequence[int], *, pad: int, device: torch.device) -> Batch:
        """Pad some examples to the longest of them."""
        encoded = [self.encoded[index] for index in indices]
        ids, mask = pad_ids(encoded, pad)
        hidden = None
        if self.hidden is not None:
            rows = [self.hidden[index] for index in indices]
            hidden = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        slots = torch.tensor([one.slot for one in encoded])
        lengths = tuple(len(one.ids) for one in encoded)
        return Batch(ids.to(device), mask.to(device), slots.to(device), spans_of(encoded).to(device), hidden, lengths)


def pad_ids(encoded: Sequence[Encoded], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask `[n, T]`, int64, padded on the right with the id `pad`."""
    lengths = [len(one.ids) for one in encoded]
    inside = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.full(inside.shape, pad, dtype=torch.int64)
    ids.masked_scatter_(inside, torch.tensor([token for one in encoded for token in one.ids]))
    return ids, inside.long()


def spans_of(encoded: Sequence[Encoded]) -> Tensor:
    """Return the marked spans `[n, 2, 2]`, int64, 0 to 0 in place of those an example does not have."""
    spans = torch.zeros((len(encoded), 2, 2), dtype=torch.int64)
    for row, one in enumerate(encoded):
        if one.spans:
            spans[row, : len(one.spans)] = torch.tensor(one.spans)
    return spans


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples are put into batches.

    Attributes:
        tokens: Padded tokens of a batch, at most: enough to fill the cores, few enough to stay in their caches.
        per_pass: What a pass costs beside its tokens, in tokens: more padding than that is worth another pass.
    """

    tokens: int
    per_pass: int

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Cut examples, shortest first, into batches of like length, of one example or more."""
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
"""Measured on two cores with `minilm-l6` and `smollm2-135m`: 512 to 2048 tokens, and 16 to 64 a pass, are alike."""
ON_GPU = Batching(tokens=16384, per_pass=4096)
"""A GPU is idle in passes of few tokens."""
