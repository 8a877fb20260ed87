"""Products with matrices of a stack: all implementations agree with one product per example; the fastest is used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from conpet.modules import grouped_matmul
from conpet.modules.grouped_matmul import (
    BatchedMatmul,
    FastestMatmul,
    GroupedKernelMatmul,
    GroupedMatmul,
    SingleMatmul,
    matmul_of,
    piece_size,
)

CPU = torch.device("cpu")
MIXTURES = [
    [(2, 1)],
    [(0, 1), (1, 1), (2, 1)],
    [(3, 4), (1, 4), (3, 2), (0, 1), (1, 1)],
    [(1, 3), (0, 5), (2, 5)],
]
IMPLEMENTATIONS: Sequence[type[BatchedMatmul | GroupedKernelMatmul | FastestMatmul]] = (
    BatchedMatmul,
    GroupedKernelMatmul,
    FastestMatmul,
)


def one_by_one(pieces: Sequence[tuple[int, int]], left: Tensor, stack: Tensor) -> Tensor:
    slots = [slot for slot, size in pieces for _ in range(size)]
    return torch.stack([rows.double() @ stack[slot].double() for rows, slot in zip(left, slots, strict=True)])


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pieces", MIXTURES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_multiplies_each_example_by_its_own_matrix(
    implementation: type[BatchedMatmul | GroupedKernelMatmul | FastestMatmul],
    pieces: list[tuple[int, int]],
    dtype: torch.dtype,
    tokens: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    examples = sum(size for _, size in pieces)
    left = torch.randn(examples, tokens, 16, generator=generator).to(dtype)
    stack = torch.randn(4, 8, 16, generator=generator).to(dtype).mT  # strides as in the pool
    total = torch.randn(examples, tokens, 8, generator=generator).to(dtype)
    expected = one_by_one(pieces, left, stack)
    near = {"rtol": 2e-2, "atol": 0.1} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    with torch.inference_mode():
        matmul = implementation(pieces, CPU)
        torch.testing.assert_close(matmul.multiply(left, stack).double(), expected, **near)
        added = total.clone()
        matmul.add(added, left, stack)
        torch.testing.assert_close(added.double(), total.double() + expected, **near)


@pytest.mark.parametrize("pieces", MIXTURES)
def test_each_example_has_the_row_of_its_slot(pieces: list[tuple[int, int]]) -> None:
    stack = torch.arange(4.0).view(4, 1, 1)
    expected = [slot for slot, size in pieces for _ in range(size)]
    assert matmul_of(pieces, CPU).gather(stack).flatten().tolist() == expected
    assert SingleMatmul(2).gather(stack).tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("counts", "matrix_bytes", "size"),
    [
        ([1, 1, 1], 1e6, 1),  # nothing can be shared
        ([5, 6, 7, 4], 1e3, 1),  # small matrices are gathered for every row
        ([5, 6, 7, 4], 1e6, 4),  # large ones once for four rows
        ([8, 8], 1e4, 8),  # pieces of one size are one run
        ([64, 1], 1e5, 64),
    ],
)
def test_large_matrices_are_gathered_for_several_rows(counts: list[int], matrix_bytes: float, size: int) -> None:
    assert piece_size(counts, matrix_bytes) == size


def test_the_fastest_implementation_is_determined_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped_matmul, "_fastest_by_size", {})
    timed: list[type[GroupedMatmul]] = []

    def seconds(matmul: GroupedMatmul, left: Tensor, stack: Tensor) -> float:
        timed.append(type(matmul))
        return 1.0 if isinstance(matmul, GroupedKernelMatmul) else 2.0

    monkeypatch.setattr(grouped_matmul, "time_multiply", seconds)
    multiplied: list[str] = []
    multiply = GroupedKernelMatmul.multiply
    monkeypatch.setattr(
        GroupedKernelMatmul,
        "multiply",
        lambda self, *operands: multiplied.append("grouped") or multiply(self, *operands),
    )
    left, stack = torch.ones(3, 2, 8), torch.ones(2, 8, 8)
    for _ in range(2):  # another batch of that size
        matmul = FastestMatmul([(0, 2), (1, 1)], CPU)
        matmul.multiply(left, stack)
        matmul.add(torch.zeros(3, 2, 8), left, stack)
    assert timed == [BatchedMatmul, GroupedKernelMatmul]
    assert multiplied == ["grouped"] * 4
    FastestMatmul([(0, 2), (1, 1)], CPU).multiply(left.repeat(1, 8, 1), stack)  # more tokens are another size
    assert timed == [BatchedMatmul, GroupedKernelMatmul] * 2


def test_an_implementation_the_device_does_not_support_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped_matmul, "_fastest_by_size", {})

    def refused(self: GroupedKernelMatmul, left: Tensor, stack: Tensor) -> Tensor:
        raise RuntimeError("strides should be multiple of 16 bytes")

    monkeypatch.setattr(GroupedKernelMatmul, "multiply", refused)
    pieces, left, stack = [(0, 1), (1, 1)], torch.ones(2, 3, 4), torch.ones(2, 4, 4)
    assert torch.equal(FastestMatmul(pieces, CPU).multiply(left, stack), torch.full((2, 3, 4), 4.0))
