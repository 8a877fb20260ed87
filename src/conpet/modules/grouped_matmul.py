"""Matrix products in which each row of a batch uses its own matrix from a stack."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from conpet.backbone.few_sizes import in_few_sizes
from conpet.errors import check_memory


class Run(NamedTuple):
    """Consecutive matrices with the same number of rows, and their rows of a batch.

    Attributes:
        part: The rows of the batch.
        matrices: Number of matrices.
        rows: Number of rows per matrix.
    """

    part: slice
    matrices: int
    rows: int

    def of(self, rows: Tensor) -> Tensor:
        """Return a view of the run's rows of `[n, d]`, as `[matrices, rows, d]` if there are several matrices."""
        part = rows if self.matrices * self.rows == len(rows) else rows[self.part]
        return part if self.matrices == 1 else part.view(self.matrices, self.rows, -1)

    def parts(self) -> Iterator[Run]:
        """Divide the run into runs of few numbers of matrices."""
        first = self.part.start
        for part in in_few_sizes(self.matrices):
            rows = slice(first + part.start * self.rows, first + part.stop * self.rows)
            yield Run(rows, part.stop - part.start, self.rows)

    def unstack(self, stacked: Tensor) -> Sequence[Tensor]:
        """Return the tensor of each matrix."""
        return (stacked,) if self.matrices == 1 else stacked.unbind()


def runs_of(shares: Sequence[int]) -> list[Run]:
    """Return the runs of consecutive matrices with these numbers of rows."""
    runs, start = [], 0
    for rows, equal in groupby(shares):
        count = len(list(equal))
        runs.append(Run(slice(start, start + count * rows), count, rows))
        start += count * rows
    return runs


RUN_BYTES = 2_000_000
"""An additional run takes as long as gathering this many bytes of matrices.

Measured on two cores in passes of `smollm2-135m` for 128 texts with 3 and 10 modules: pieces of several rows gained
nothing up to rank 32, and a few percent of the pass at rank 64.
"""


def piece_size(counts: Sequence[int], matrix_bytes: float) -> int:
    """Return the best number of rows per piece; rows of a matrix that are left over become pieces of one row.

    A matrix is gathered once per piece, and all pieces of one size form one run: larger pieces gather less, while a
    single size saves one run.

    Args:
        counts: Number of rows of each matrix.
        matrix_bytes: Size of a matrix in bytes.
    """

    def cost(size: int) -> float:
        whole, single = sum(count // size for count in counts), sum(count % size for count in counts)
        return RUN_BYTES * (bool(whole) + bool(single)) + matrix_bytes * (whole + single)

    return min((1 << bit for bit in range(max(counts).bit_length())), key=cost)


def add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """Add `scale * left @ right` to `total` in place, with one `right` for all rows or one per row.

    `total` must not be shared with other code. No temporary of its size is written: on a CPU that would cost more than
    the product.
    """
    if right.dim() == 2:
        total.view(-1, total.shape[-1]).addmm_(left.reshape(-1, left.shape[-1]), right, alpha=scale)
    else:
        total.baddbmm_(left, right, alpha=scale)


class GroupedMatmul(ABC):
    """Multiplies n examples of a batch, `[n, T, d]`, by the matrices of their slots in a stack `[s, in, out]`.

    Attributes:
        examples: n, or None for any number.
    """

    examples: int | None = None

    @abstractmethod
    def gather(self, stack: Tensor) -> Tensor:
        """Return the row of each example in a stack `[s, 1, d]`, to be broadcast over its tokens."""

    @abstractmethod
    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Return the products `[n, T, out]` of `left` `[n, T, in]`."""

    @abstractmethod
    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Add the products to `total` `[n, T, out]` in place."""


class SingleMatmul(GroupedMatmul):
    """All examples use the matrix of one slot.

    Attributes:
        slot: The slot.
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def gather(self, stack: Tensor) -> Tensor:
        """Return the row of the slot."""
        return stack[self.slot]

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply all tokens as one matrix."""
        return left @ stack[self.slot]

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply all tokens as one matrix, then add."""
        add_product(total, left, stack[self.slot])


class _PiecewiseMatmul(GroupedMatmul):
    """Examples are divided into pieces; the examples of a piece use the same slot.

    Args:
        pieces: Slot and number of examples of each piece, in order.
        device: Device of the stacks.
    """

    def __init__(self, pieces: Sequence[tuple[int, int]], device: torch.device) -> None:
        self._sizes = [size for _, size in pieces]
        self.examples = sum(self._sizes)
        self._slots = torch.tensor([slot for slot, _ in pieces], device=device)

    def gather(self, stack: Tensor) -> Tensor:
        """Gather a row for each example."""
        return stack[self._slot_of_example]

    @cached_property
    def _slot_of_example(self) -> Tensor:
        sizes = torch.tensor(self._sizes, device=self._slots.device)
        return self._slots.repeat_interleave(sizes, output_size=self.examples)


class BatchedMatmul(_PiecewiseMatmul):
    """One batched product (`bmm`) per run of pieces of equal size: `[m, k T, in]` by `[m, in, out]`.

    A matrix is gathered once per piece, and all pieces of one size are multiplied at once; in 16 bits on a CPU, in
    products of few sizes.
    """

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply run by run."""
        out = left.new_empty(*left.shape[:-1], stack.shape[-1])
        for run, slots in self._runs_for(stack):
            torch.bmm(_tokens(run, left), stack[slots], out=_tokens(run, out))
        return out

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply run by run."""
        for run, slots in self._runs_for(stack):
            _tokens(run, total).baddbmm_(_tokens(run, left), stack[slots])

    def _runs_for(self, stack: Tensor) -> list[tuple[Run, Tensor]]:
        in_16_bits = stack.dtype in (torch.bfloat16, torch.float16)
        return self._small_runs if in_16_bits and stack.device.type == "cpu" else self._runs

    @cached_property
    def _runs(self) -> list[tuple[Run, Tensor]]:
        return self._with_slots(runs_of(self._sizes))

    @cached_property
    def _small_runs(self) -> list[tuple[Run, Tensor]]:
        return self._with_slots([part for run in runs_of(self._sizes) for part in run.parts()])

    def _with_slots(self, runs: Sequence[Run]) -> list[tuple[Run, Tensor]]:
        return list(zip(runs, self._slots.split([run.matrices for run in runs]), strict=True))


def _tokens(run: Run, examples: Tensor) -> Tensor:
    """Return a view of the tokens of a run's examples, by matrix: `[m, k T, d]`."""
    return examples[run.part].view(run.matrices, -1, examples.shape[-1])


class GroupedKernelMatmul(_PiecewiseMatmul):
    """A single call of torch's kernel for groups of any size (`torch.nn.functional.grouped_mm`)."""

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply all pieces in one kernel call."""
        ends = self._ends * left.shape[1]
        product: Tensor = nn.functional.grouped_mm(left.flatten(0, 1), stack[self._slots], offs=ends)
        return product.view(*left.shape[:-1], -1)

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply all pieces in one kernel call, then add."""
        total.add_(self.multiply(left, stack))

    @cached_property
    def _ends(self) -> Tensor:
        """Number of examples up to the end of each piece, as the kernel requires."""
        return torch.tensor(self._sizes, device=self._slots.device).cumsum(0).to(torch.int32)


IMPLEMENTATIONS: Sequence[type[BatchedMatmul | GroupedKernelMatmul]] = (BatchedMatmul, GroupedKernelMatmul)
"""Implementations for pieces; the first works on every device and with every dtype."""


class FastestMatmul(_PiecewiseMatmul):
    """The fastest of `IMPLEMENTATIONS`; all are timed when a product of a new size is first needed."""

    def __init__(self, pieces: Sequence[tuple[int, int]], device: torch.device) -> None:
        super().__init__(pieces, device)
        self._candidates = [implementation(pieces, device) for implementation in IMPLEMENTATIONS]

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply with the fastest implementation."""
        return self._fastest(left, stack).multiply(left, stack)

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply and add with the fastest implementation."""
        self._fastest(left, stack).add(total, left, stack)

    def _fastest(self, left: Tensor, stack: Tensor) -> GroupedMatmul:
        size = (stack.device, stack.dtype, *stack.shape[1:], left.numel().bit_length(), len(self._sizes).bit_length())
        index = _fastest_index(size, lambda: [time_multiply(matmul, left, stack) for matmul in self._candidates])
        return self._candidates[index]


_fastest_by_size: dict[Hashable, int] = {}


def _fastest_index(size: Hashable, seconds: Callable[[], Sequence[float]]) -> int:
    """Return the index of the fastest implementation for a size; `seconds` is called once per size."""
    if size not in _fastest_by_size:
        times = seconds()
        _fastest_by_size[size] = times.index(min(times))
    return _fastest_by_size[size]


def time_multiply(matmul: GroupedMatmul, left: Tensor, stack: Tensor, repeats: int = 5) -> float:
    """Return the seconds a product takes; infinity if it does not support the device or the shapes.

    Raises:
        OutOfMemoryError: The device's memory is full.
    """
    try:
        matmul.multiply(left, stack)
    except (NotImplementedError, RuntimeError) as error:
        check_memory(error, "the products of a mixed batch were timed")
        return float("inf")
    _synchronise(left.device)
    started = time.perf_counter()
    for _ in range(repeats):
        matmul.multiply(left, stack)
    _synchronise(left.device)
    return (time.perf_counter() - started) / repeats


def _synchronise(device: torch.device) -> None:
    """Wait until a device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_of(pieces: Sequence[tuple[int, int]], device: torch.device) -> GroupedMatmul:
    """Return the implementation for a batch of consecutive pieces, given as (slot, number of examples).

    On a CPU this is `BatchedMatmul`: there, torch's grouped kernel processes the groups one by one and was slower at
    every size measured except for a single group.
    """
    return (BatchedMatmul if device.type == "cpu" else FastestMatmul)(pieces, device)
