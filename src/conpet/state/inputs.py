"""Inputs encoded by the prefix, once for each template in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from conpet.backbone.states import States

EncodedInputs = Mapping[str | None, States]
"""Prefix states of the same n examples by template; None is the default template of their kind."""


def by_template(templates: Sequence[str | None], inputs: EncodedInputs, score: Callable[[States], Tensor]) -> Tensor:
    """Score columns (classes or tasks), each on the states of its own template.

    Args:
        templates: The template of each of the C columns.
        inputs: The examples' states by template; columns of other templates get -inf.
        score: Maps states to the scores of all columns `[n, C]`.
    """
    if len(set(templates)) == 1 and templates[0] in inputs:
        return score(inputs[templates[0]])
    scores = torch.full((count(inputs), len(templates)), -torch.inf, dtype=torch.float32)
    for template, states in inputs.items():
        columns = [index for index, used in enumerate(templates) if used == template]
        if columns:
            scores[:, columns] = score(states)[:, columns]
    return scores


def cut_tokens(inputs: EncodedInputs) -> list[int]:
    """Return the number of tokens cut off each example; with several templates, the largest."""
    return [max(encoded.cut for encoded in row) for row in zip(*(s.encoded for s in inputs.values()), strict=True)]


def count(inputs: EncodedInputs) -> int:
    """Return the number of examples."""
    return len(next(iter(inputs.values())))
