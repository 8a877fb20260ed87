"""Pooling: the last hidden states of an example become one representation vector."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from conpet.backbone.states import Batch


class Pooling(StrEnum):
    """How the last hidden states become a representation.

    - `SLOT`, width d: the state at the slot, as in the paper.
    - `SLOT_MEAN`, 2d: slot and mean over the tokens, because the slot of a causal model alone carries little beyond
      next-token prediction.
    - `MARKED`, 3d: for a relation, the means over head, tail (entity states: Baldini Soares et al. 2019) and the text
      between them, 0 if there is none; for a mention, slot, mean over the mention and mean over all tokens; for plain
      text, slot, mean and zeros.
    """

    SLOT = "slot"
    SLOT_MEAN = "slot+mean"
    MARKED = "marked"

    def width(self, hidden_size: int) -> int:
        """Return the width R of a representation."""
        return hidden_size * {Pooling.SLOT: 1, Pooling.SLOT_MEAN: 2, Pooling.MARKED: 3}[self]

    def __call__(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the representations `[n, R]`, float32, of a batch from its last hidden states `[n, T, d]`."""
        rows = torch.arange(len(batch.slots), device=hidden.device)
        slot = hidden[rows, batch.slots].float()
        if self is Pooling.SLOT:
            return slot
        mean = mean_of_tokens(hidden, batch.mask)
        if self is Pooling.SLOT_MEAN:
            return torch.cat([slot, mean], dim=1)
        return _marked(slot, mean, hidden, batch)


def _marked(slot: Tensor, mean: Tensor, hidden: Tensor, batch: Batch) -> Tensor:
    count = number_of_spans(batch.spans).unsqueeze(1)
    marked = torch.cat([batch.spans, span_between(batch.spans)], dim=1)
    first_span, second_span, between = mean_of_spans(hidden, marked).unbind(dim=1)
    first = torch.where(count == 2, first_span, slot)
    second = torch.where(count == 2, second_span, torch.where(count == 1, first_span, mean))
    third = torch.where(count == 1, mean, between)
    return torch.cat([first, second, third], dim=1)


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean `[n, d]`, float32, of states `[n, T, d]` over all tokens but the first (a single token counts).

    The first token of a causal model is an attention sink: its state dwarfs the others and carries no meaning.
    """
    weight = mask.float()
    weight[:, 0] *= mask.sum(1) <= 1
    weight = weight / weight.sum(1, keepdim=True)
    return torch.einsum("nt,ntd->nd", weight, hidden.float())


def mean_of_spans(hidden: Tensor, spans: Tensor) -> Tensor:
    """Return the mean `[n, s, d]`, float32, of states `[n, T, d]` over each span `[n, s, 2]`; 0 for a missing span."""
    at = torch.arange(hidden.shape[1], device=hidden.device)
    inside = ((at >= spans[..., :1]) & (at < spans[..., 1:])).float()
    weight = inside / inside.sum(dim=2, keepdim=True).clamp(min=1)
    return torch.einsum("nst,ntd->nsd", weight, hidden.float())


def span_between(spans: Tensor) -> Tensor:
    """Return the span `[n, 1, 2]` between two spans `[n, 2, 2]`; 0, 0 if they touch, overlap or are fewer."""
    start, end = spans[..., 1].amin(dim=1), spans[..., 0].amax(dim=1)
    exists = (end > start) & (start > 0)
    return (torch.stack([start, end], dim=1) * exists.unsqueeze(1)).unsqueeze(1)


def number_of_spans(spans: Tensor) -> Tensor:
    """Return the number of spans of each example `[n]`, 0 to 2, given spans `[n, 2, 2]`."""
    return (spans[..., 1] > spans[..., 0]).sum(dim=1)
