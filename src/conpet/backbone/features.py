"""Frozen features: fixed, standardised vectors read by closed-form classifiers, selectors and k-means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conpet.backbone.pooling import mean_of_spans, mean_of_tokens, number_of_spans

MAX_SPANS = 2
"""Most marked spans in an example: head and tail."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Mean and standard deviation of each dimension `[d]` over general sentences."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, sample: Tensor) -> _Scale:
        return cls(sample.mean(0), sample.std(0).clamp(min=1e-6))

    def __call__(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.deviation


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Features `[n, F]` of examples, from the states after k layers: F = k d.

    Plain text: the mean over all tokens at each layer. An example with marked spans, if k is 3 or more: the mean over
    each span at the middle layer replaces the token mean at one of the lowest layers (head and tail of a relation, or
    the mention to be typed).

    Every dimension is standardised by its mean and deviation over general sentences. These depend on the backbone
    alone, so features do not change as tasks are added or removed.

    Attributes:
        layers: The k layers, ascending.
        means: Scale of the token means at each layer.
        tokens: Scale of single tokens at the middle layer.
    """

    layers: tuple[int, ...]
    means: tuple[_Scale, ...]
    tokens: _Scale

    @classmethod
    def fitted(cls, layers: Sequence[int], sample: Sequence[tuple[Mapping[int, Tensor], Tensor]]) -> FrozenFeatures:
        """Compute the scales from batches of general sentences: states `[n, T, d]` by layer, and masks `[n, T]`."""
        middle = layers[len(layers) // 2]
        tokens = torch.cat([states[middle][mask.bool()].float() for states, mask in sample])
        means = [torch.cat([mean_of_tokens(states[layer], mask) for states, mask in sample]) for layer in layers]
        return cls(tuple(layers), tuple(_Scale.of(mean) for mean in means), _Scale.of(tokens))

    def __call__(self, states: Mapping[int, Tensor], mask: Tensor, spans: Tensor) -> Tensor:
        """Return the features `[n, F]`, float32, of a batch, given its states by layer, mask and spans `[n, 2, 2]`."""
        means = [
            scale(mean_of_tokens(states[layer], mask)) for layer, scale in zip(self.layers, self.means, strict=True)
        ]
        count = number_of_spans(spans)
        if len(self.layers) <= MAX_SPANS or not int(count.max()):
            return torch.cat(means, dim=1)
        spanned = self.tokens(mean_of_spans(states[self.layers[len(self.layers) // 2]], spans))
        rows = []
        for row, spans_of_row in enumerate(count.tolist()):
            blocks = [mean[row] for mean in means[spans_of_row:]]
            rows.append(torch.cat([*blocks, *spanned[row, :spans_of_row]]))
        return torch.stack(rows)
