"""Frozen features: what closed forms, selectors and k-means read of an example, standardised once and for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conpet.backbone.pooling import mean_of_spans, mean_of_tokens, number_of_spans

MAX_SPANS = 2
"""Marked spans an example may have: head and tail."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Mean and deviation of each dimension `[d]` over general sentences."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, sample: Tensor) -> _Scale:
        return cls(sample.mean(0), sample.std(0).clamp(min=1e-6))

    def __call__(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.deviation


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Features `[n, F]` of examples from the states behind some layers, with F = d times the number of layers k.

    A plain text: the mean over its tokens at every layer. An example with marked spans: with k of three or more, the
    means of its spans' tokens at the middle layer stand in place of the token means at the lowest layers, as many as it
    has spans (head and tail of a relation, or the mention to be typed).

    Every dimension is standardised by what the backbone gives for general sentences: it depends on the backbone alone,
    so features never change as tasks come and go.

    Attributes:
        layers: The k layers, ascending.
        means: Scale of the token means at each.
        tokens: Scale of single tokens at the middle one.
    """

    layers: tuple[int, ...]
    means: tuple[_Scale, ...]
    tokens: _Scale

    @classmethod
    def fitted(cls, layers: Sequence[int], sample: Sequence[tuple[Mapping[int, Tensor], Tensor]]) -> FrozenFeatures:
        """Take the scales from batches of general sentences: their states by layer `[n, T, d]` and masks `[n, T]`."""
        middle = layers[len(layers) // 2]
        tokens = torch.cat([seen[middle][mask.bool()].float() for seen, mask in sample])
        means = [torch.cat([mean_of_tokens(seen[layer], mask) for seen, mask in sample]) for layer in layers]
        return cls(tuple(layers), tuple(_Scale.of(one) for one in means), _Scale.of(tokens))

    def __call__(self, seen: Mapping[int, Tensor], mask: Tensor, spans: Tensor) -> Tensor:
        """Return the features `[n, F]`, float32, of a batch from its states by layer, mask and spans `[n, 2, 2]`."""
        means = [scale(mean_of_tokens(seen[layer], mask)) for layer, scale in zip(self.layers, self.means, strict=True)]
        count = number_of_spans(spans)
        if len(self.layers) <= MAX_SPANS or not int(count.max()):
            return torch.cat(means, dim=1)
        spanned = self.tokens(mean_of_spans(seen[self.layers[len(self.layers) // 2]], spans))
        rows = []
        for row, spans_of_row in enumerate(count.tolist()):
            blocks = [mean[row] for mean in means[spans_of_row:]]
            rows.append(torch.cat([*blocks, *spanned[row, :spans_of_row]]))
        return torch.stack(rows)
