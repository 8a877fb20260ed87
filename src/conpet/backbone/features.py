"""Frozen features: fixed, standardised vectors read by closed-form classifiers, selectors and k-means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from conpet.backbone.pooling import mean_of_spans, mean_of_tokens, number_of_spans, span_between

MIN_LAYERS = 4
"""Fewest feature layers with which marked spans take part."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Mean and standard deviation of each dimension `[d]` over general sentences."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, sample: Tensor) -> _Scale:
        return cls(sample.mean(0), sample.std(0).clamp(min=1e-6))

    def __call__(self, values: Tensor) -> Tensor:
        """Standardise values `[..., d]`, then scale each vector to the norm `sqrt(d)`; a zero vector stays zero."""
        empty = (values == 0).all(dim=-1, keepdim=True)
        standardised = ((values - self.mean) / self.deviation).masked_fill(empty, 0.0)
        return normalize(standardised, dim=-1) * math.sqrt(values.shape[-1])


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Features `[n, F]` of examples, from the states after k layers: k blocks of width d, F = k d.

    - Plain text: the mean over all tokens at each layer.
    - A mention, if k is 4 or more: its span replaces the token mean at the two lowest layers, so its own words and the
      sentence are both there.
    - A relation, if k is 4 or more: the first four blocks are head and tail at the second layer, and what stands
      between them at the first and third. Head and tail have fixed places, and the text between contains the marks of
      both in their order, so the direction of a relation is visible.

    Every dimension is standardised by its mean and deviation over general sentences, and each block is then scaled to
    the norm `sqrt(d)`. The scales depend on the backbone alone, so features do not change as tasks are added or
    removed.

    Attributes:
        layers: The k layers, ascending; a model with few layers repeats some.
        means: Scale of the token means at each layer.
        tokens: Scale of single tokens at each layer.
    """

    layers: tuple[int, ...]
    means: tuple[_Scale, ...]
    tokens: tuple[_Scale, ...]

    @classmethod
    def fitted(cls, layers: Sequence[int], sample: Sequence[tuple[Mapping[int, Tensor], Tensor]]) -> FrozenFeatures:
        """Compute the scales from batches of general sentences: states `[n, T, d]` by layer, and masks `[n, T]`."""

        def tokens_at(layer: int) -> Tensor:
            return torch.cat([states[layer][mask.bool()].float() for states, mask in sample])

        def means_at(layer: int) -> Tensor:
            return torch.cat([mean_of_tokens(states[layer], mask) for states, mask in sample])

        means, tokens = ([_Scale.of(read(layer)) for layer in layers] for read in (means_at, tokens_at))
        return cls(tuple(layers), tuple(means), tuple(tokens))

    def __call__(self, states: Mapping[int, Tensor], mask: Tensor, spans: Tensor) -> Tensor:
        """Return the features `[n, F]`, float32, of a batch, given its states by layer, mask and spans `[n, 2, 2]`."""
        blocks = [
            scale(mean_of_tokens(states[layer], mask)) for layer, scale in zip(self.layers, self.means, strict=True)
        ]
        count = number_of_spans(spans)
        if len(self.layers) >= MIN_LAYERS and int(count.max()):
            for number, read in ((1, self._of_mention), (2, self._of_relation)):
                rows = (count == number).unsqueeze(1)
                of_spans = read(states, spans) if rows.any() else {}
                blocks = [
                    torch.where(rows, of_spans[index], block) if index in of_spans else block
                    for index, block in enumerate(blocks)
                ]
        return torch.cat(blocks, dim=1)

    def _of_mention(self, states: Mapping[int, Tensor], spans: Tensor) -> dict[int, Tensor]:
        """Return the blocks that a mention replaces, by index."""
        return {index: self.tokens[index](mean_of_spans(states[self.layers[index]], spans)[:, 0]) for index in (0, 1)}

    def _of_relation(self, states: Mapping[int, Tensor], spans: Tensor) -> dict[int, Tensor]:
        """Return the blocks that a relation replaces, by index: head, tail, between, between."""
        at = [states[layer] for layer in self.layers[:3]]
        head, tail = mean_of_spans(at[1], spans).unbind(dim=1)
        early, late = (mean_of_spans(at[index], span_between(spans))[:, 0] for index in (0, 2))
        return {0: self.tokens[1](head), 1: self.tokens[1](tail), 2: self.means[0](early), 3: self.means[2](late)}
