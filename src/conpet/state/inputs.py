"""Inputs that have passed the prefix, once for every template in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from conpet.backbone.states import States

EncodedInputs = Mapping[str | None, States]
"""The same n examples read through each template in use (None: the default of their kind)."""


def by_template(templates: Sequence[str | None], inputs: EncodedInputs, score: Callable[[States], Tensor]) -> Tensor:
    """Score columns (classes or tasks), each on the states its own template gives.

    Args:
        templates: The template each of C columns is read with.
        inputs: The examples' states by template; a column whose template is not among them gets -inf.
        score: States to scores of all columns `[n, C]`.
    """
    if len(set(templates)) == 1 and templates[0] in inputs:
        return score(inputs[templates[0]])
    scores = torch.full((count(inputs), len(templates)), -torch.inf)
    for template, states in inputs.items():
        columns = [index for index, used in enumerate(templates) if used == template]
        if columns:
            scores[:, columns] = score(states)[:, columns]
    return scores


def count(inputs: EncodedInputs) -> int:
    """Return the number of examples."""
    return len(next(iter(inputs.values())))
