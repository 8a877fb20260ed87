"""Sums of probabilities over the labels of each task."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = -1e4
"""Stands for the log of nothing, where -inf would make NaN of a difference or a gradient."""


def segment_logsumexp(values: Tensor, owner: Tensor, tasks: int) -> Tensor:
    """Sum probabilities over the labels of each task, in logs.

    Args:
        values: Logs of probabilities, or of what is proportional to them `[n, L]`; -inf where there is none.
        owner: Index of the task of each label, in any order `[L]`, int64.
        tasks: Number of tasks, T.

    Returns:
        The sums `[n, T]`, `FLOOR` for a task without any; they can be differentiated by `values`.
    """
    index = owner.expand(len(values), -1)
    top = values.new_full((len(values), tasks), -torch.inf).scatter_reduce(1, index, values.detach(), "amax")
    top = top.masked_fill(top == -torch.inf, 0.0)
    shares = (values - top.index_select(1, owner)).exp()
    return values.new_zeros(len(values), tasks).index_add(1, owner, shares).log().clamp(min=FLOOR) + top
