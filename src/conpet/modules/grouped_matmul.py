"""Products in which rows of one batch have matrices of their own, out of a stack of them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from conpet.errors import check_memory


class Run(NamedTuple):
    """Rows of a batch that matrices following one another have equal shares in.

    Attributes:
        part: The rows.
        matrices: How many.
        rows: How many rows each has.
    """

    part: slice
    matrices: int
    rows: int

    def of(self, rows: Tensor) -> Tensor:
        """Return the run's part of rows `[n, d]`, by matrix `[matrices, rows, d]` if there are several; no copy."""
        part = rows if self.matrices * self.rows == len(rows) else rows[self.part]
        return part if self.matrices == 1 else part.view(self.matrices, self.rows, -1)

    def apart(self, stacked: Tensor) -> Sequence[Tensor]:
        """Return what there is for each matrix."""
        return (stacked,) if self.matrices == 1 else stacked.unbind()


def runs_of(shares: Sequence[int]) -> list[Run]:
    """Return the runs of matrices that have so many rows each, one after the other."""
    runs, start = [], 0
    for rows, some in groupby(shares):
        count = len(list(some))
        runs.append(Run(slice(start, start + count * rows), count, rows))
        start += count * rows
    return runs


RUN_BYTES = 2_000_000
"""A run more takes as long as gathering so many bytes of matrices does.

Measured on two cores in passes of `smollm2-135m` for 128 texts by 3 and 10 modules: pieces of several rows gained
nothing up to rank 32, and some hundredths of the pass at rank 64.
"""


def piece_size(counts: Sequence[int], matrix_bytes: float) -> int:
    """Return into pieces of how many rows those of each matrix are best cut, what is over into single rows.

    Every piece has its matrix gathered, and the pieces of one size are one run: large pieces gather less, all of one
    size make one run less.

    Args:
        counts: Rows of each matrix.
        matrix_bytes: Size of a matrix.
    """

    def cost(size: int) -> float:
        whole, single = sum(count // size for count in counts), sum(count % size for count in counts)
        return RUN_BYTES * (bool(whole) + bool(single)) + matrix_bytes * (whole + single)

    return min((1 << bit for bit in range(max(counts).bit_length())), key=cost)


def add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """Add `scale left @ right`, with one `right` for all rows or one for each, into a tensor that is nobody else's.

    Nothing else of its size is written: on a CPU that would cost more than the product.
    """
    if right.dim() == 2:
        total.view(-1, total.shape[-1]).addmm_(left.reshape(-1, left.shape[-1]), right, alpha=scale)
    else:
        total.baddbmm_(left, right, alpha=scale)


class GroupedMatmul(ABC):
    """How n examples of a batch, `[n, T, d]`, are multiplied by the matrices of their slots in a stack `[s, in, out]`.

    Attributes:
        examples: n, or None for any number.
    """

    examples: int | None = None

    @abstractmethod
    def of_rows(self, stack: Tensor) -> Tensor:
        """Return each example's own row of a stack `[s, 1, d]`, to be broadcast over its tokens."""

    @abstractmethod
    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Return the products `[n, T, out]` of `left` `[n, T, in]`."""

    @abstractmethod
    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Add the products into `total` `[n, T, out]`, a tensor that is nobody else's."""


class OneForAll(GroupedMatmul):
    """All examples have the matrix of one slot."""

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def of_rows(self, stack: Tensor) -> Tensor:
        """Return the slot's."""
        return stack[self._slot]

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply all tokens as one matrix."""
        return left @ stack[self._slot]

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply all tokens as one matrix."""
        add_product(total, left, stack[self._slot])


class _ByPiece(GroupedMatmul):
    """Examples of one slot follow one another in pieces.

    Args:
        pieces: Slot and number of examples of each piece, in order.
        device: Where the stacks are.
    """

    def __init__(self, pieces: Sequence[tuple[int, int]], device: torch.device) -> None:
        self._sizes = [size for _, size in pieces]
        self.examples = sum(self._sizes)
        self._slots = torch.tensor([slot for slot, _ in pieces], device=device)

    def of_rows(self, stack: Tensor) -> Tensor:
        """Gather a row for each example."""
        return stack[self._slot_of_example]

    @cached_property
    def _slot_of_example(self) -> Tensor:
        sizes = torch.tensor(self._sizes, device=self._slots.device)
        return self._slots.repeat_interleave(sizes, output_size=self.examples)


class InRuns(_ByPiece):
    """A batched product for every run of pieces of one size: `[m, k T, in]` by `[m, in, out]`.

    So a matrix is gathered once for all examples of a piece, and all pieces of one size are multiplied at once.
    """

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply run by run."""
        out = left.new_empty(*left.shape[:-1], stack.shape[-1])
        for run, slots in self._runs:
            torch.bmm(_tokens(run, left), stack[slots], out=_tokens(run, out))
        return out

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply run by run."""
        for run, slots in self._runs:
            _tokens(run, total).baddbmm_(_tokens(run, left), stack[slots])

    @cached_property
    def _runs(self) -> list[tuple[Run, Tensor]]:
        runs = runs_of(self._sizes)
        return list(zip(runs, self._slots.split([run.matrices for run in runs]), strict=True))


def _tokens(run: Run, examples: Tensor) -> Tensor:
    """Return the tokens of a run's examples by matrix `[m, k T, d]`; no copy."""
    return examples[run.part].view(run.matrices, -1, examples.shape[-1])


class Grouped(_ByPiece):
    """One product of torch's kernel for groups of rows of any size (`torch.nn.functional.grouped_mm`)."""

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply all pieces in one kernel."""
        ends = self._ends * left.shape[1]
        found: Tensor = nn.functional.grouped_mm(left.flatten(0, 1), stack[self._slots], offs=ends)
        return found.view(*left.shape[:-1], -1)

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply all pieces in one kernel, then add."""
        total.add_(self.multiply(left, stack))

    @cached_property
    def _ends(self) -> Tensor:
        """The number of examples up to the end of each piece, as the kernel wants it."""
        return torch.tensor(self._sizes, device=self._slots.device).cumsum(0).to(torch.int32)


WAYS: Sequence[type[InRuns | Grouped]] = (InRuns, Grouped)
"""The ways to multiply pieces; the first does what every device and number format can."""


class Quickest(_ByPiece):
    """Whichever of `WAYS` is quickest for products of such a size, as found by trying all when the first one is due."""

    def __init__(self, pieces: Sequence[tuple[int, int]], device: torch.device) -> None:
        super().__init__(pieces, device)
        self._ways = [way(pieces, device) for way in WAYS]

    def multiply(self, left: Tensor, stack: Tensor) -> Tensor:
        """Multiply in the quickest way."""
        return self._quickest(left, stack).multiply(left, stack)

    def add(self, total: Tensor, left: Tensor, stack: Tensor) -> None:
        """Multiply in the quickest way."""
        self._quickest(left, stack).add(total, left, stack)

    def _quickest(self, left: Tensor, stack: Tensor) -> GroupedMatmul:
        size = (stack.device, stack.dtype, *stack.shape[1:], left.numel().bit_length(), len(self._sizes).bit_length())
        return self._ways[_quickest(size, lambda: [seconds_of(way, left, stack) for way in self._ways])]


_found: dict[Hashable, int] = {}


def _quickest(size: Hashable, seconds: Callable[[], Sequence[float]]) -> int:
    """Return the index of the way that takes least for a size; `seconds` is asked once a size."""
    if size not in _found:
        found = seconds()
        _found[size] = found.index(min(found))
    return _found[size]


def seconds_of(way: GroupedMatmul, left: Tensor, stack: Tensor, times: int = 5) -> float:
    """Return how long a way takes to multiply; infinity if the device or the shapes are not for it.

    Raises:
        OutOfMemoryError: The device's memory is full.
    """
    try:
        way.multiply(left, stack)
    except (NotImplementedError, RuntimeError) as error:
        check_memory(error, "the ways to multiply a mixed batch were timed")
        return float("inf")
    _synchronise(left.device)
    started = time.perf_counter()
    for _ in range(times):
        way.multiply(left, stack)
    _synchronise(left.device)
    return (time.perf_counter() - started) / times


def _synchronise(device: torch.device) -> None:
    """Wait until a device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def mixed(pieces: Sequence[tuple[int, int]], device: torch.device) -> GroupedMatmul:
    """Return how a batch is multiplied whose pieces, of some slot and number of examples each, follow one another.

    On a CPU in runs: there the kernel for groups takes them one by one, and was slower at every size measured but for
    a single group.
    """
    return (InRuns if device.type == "cpu" else Quickest)(pieces, device)
