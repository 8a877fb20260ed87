"""Log-sum-exp over the labels of each task."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = -1e4
"""Used for the log of 0, because -inf would turn differences and gradients into NaN."""


def segment_logsumexp(values: Tensor, owner: Tensor, tasks: int) -> Tensor:
    """Sum probabilities over the labels of each task, in log space.

    Args:
        values: Logarithms of (possibly unnormalised) probabilities `[n, L]`; -inf for 0.
        owner: Task index of each label `[L]`, int64, in any order.
        tasks: Number of tasks, T.

    Returns:
        Log-sums `[n, T]`, differentiable; `FLOOR` for a task without labels or probability.
    """
    index = owner.expand(len(values), -1)
    top = values.new_full((len(values), tasks), -torch.inf).scatter_reduce(1, index, values.detach(), "amax")
    top = top.masked_fill(top == -torch.inf, 0.0)
    shares = (values - top.index_select(1, owner)).exp()
    return values.new_zeros(len(values), tasks).index_add(1, owner, shares).log().clamp(min=FLOOR) + top
