"""From the last hidden states of an example to the one vector that represents it."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from conpet.backbone.states import Batch


class Pooling(StrEnum):
    """How an example is represented.

    `SLOT` is the paper's: the state at the slot, width d. `SLOT_MEAN` puts the mean over the tokens beside it, width
    2d: a causal model's slot alone says little of what it was not trained to say.
    """

    SLOT = "slot"
    SLOT_MEAN = "slot+mean"

    def width(self, hidden_size: int) -> int:
        """Return the width R of a representation."""
        return hidden_size * (2 if self is Pooling.SLOT_MEAN else 1)

    def __call__(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the representations `[n, R]`, float32, of a batch from its last hidden states `[n, T, d]`."""
        rows = torch.arange(len(batch.slots), device=hidden.device)
        slot = hidden[rows, batch.slots].float()
        return slot if self is Pooling.SLOT else torch.cat([slot, mean_of_tokens(hidden, batch.mask)], dim=1)


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean `[n, d]`, float32, of states `[n, T, d]` over tokens, without the first where there are more.

    The first token of a causal model is an attention sink whose state dwarfs the others and says nothing.
    """
    weight = mask.float()
    weight[mask.sum(1) > 1, 0] = 0
    weight = weight / weight.sum(1, keepdim=True)
    return torch.einsum("nt,ntd->nd", weight, hidden.float())
