"""Sums over the labels of each task, beside the same sums task by task."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conpet.features.grouped_logsumexp import FLOOR, segment_logsumexp


def owners(sizes: list[int], *, mixed: bool) -> Tensor:
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return owner[torch.randperm(len(owner), generator=torch.Generator().manual_seed(1))] if mixed else owner


def one_by_one(values: Tensor, owner: Tensor, tasks: int) -> Tensor:
    return torch.stack([values[:, owner == task].double().logsumexp(dim=1) for task in range(tasks)], dim=1)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("sizes", [[1], [2] * 5, [1] * 7, [3, 1, 40, 2, 2], [1 + index % 4 for index in range(260)]])
def test_each_task_has_the_sum_of_its_labels(sizes: list[int], mixed: bool) -> None:
    owner = owners(sizes, mixed=mixed)
    values = 300 * torch.randn(6, len(owner), generator=torch.Generator().manual_seed(0))
    found = segment_logsumexp(values, owner, len(sizes))
    torch.testing.assert_close(found, one_by_one(values, owner, len(sizes)).float())


def test_a_task_without_any_probability_has_next_to_none() -> None:
    values = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf], [-torch.inf, 1.0, 2.0, -3.0]])
    found = segment_logsumexp(values, torch.tensor([0, 0, 1, 2]), 4)
    assert found.tolist() == [[0.0, FLOOR, FLOOR, FLOOR], [1.0, 2.0, -3.0, FLOOR]]


def test_no_example_is_a_case_like_any_other() -> None:
    assert segment_logsumexp(torch.empty(0, 3), torch.tensor([0, 0, 1]), 2).shape == (0, 2)


def test_it_can_be_differentiated() -> None:
    owner = owners([2, 1, 3], mixed=True)
    values = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: segment_logsumexp(given, owner, 3), values)
