"""A frozen linear map with a trained low-rank update, as one operation: W x + b + s B A x."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from conpet.backbone.frozen_linear import pulled_back
from conpet.modules.grouped_matmul import Run, add_product, runs_of


class LowRankLinear(nn.Module):
    """A frozen map W x + b with an update s B A x, trained (LoRA, Hu et al. 2021).

    The update is added into what the frozen map gives, so that no second tensor of that size is written and read: on a
    CPU that costs more than the update's arithmetic.

    Args:
        base: The frozen map, `in` to `out`.
        down: A `[r, in]`, float32.
        up: B `[out, r]`, float32.
        scale: s.
        dropout: Applied to what A reads, when it is switched on.
    """

    def __init__(self, base: nn.Linear, down: nn.Parameter, up: nn.Parameter, scale: float, dropout: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = down, up
        self.scale = scale
        self.dropout = dropout
        self._past: tuple[Tensor, Tensor] | None = None
        self._beside: Sequence[LowRankLinear] = ()
        self._shares: Sequence[int] = ()

    def batch_with(self, others: Sequence[LowRankLinear]) -> None:
        """Train the updates of others together with this one: each gets rows of its own, `share` says how many.

        Args:
            others: Updates of the same frozen map by the same scale, without dropout.
        """
        self._beside = others

    def share(self, examples: Sequence[int]) -> None:
        """Say how many examples of the next batch this update gets, and each of those beside it; 0 leaves one out.

        The examples of the first come first, then those of the second, ...
        """
        self._shares = examples

    def add_frozen_update(self, down: Tensor, up: Tensor) -> None:
        """Add a frozen update: W x + b + B' A' x + s B A x, as O-LoRA (Wang et al. 2023) trains.

        Args:
            down: A' `[m, in]`.
            up: B' `[out, m]`, scaled.
        """
        weight = self.base.weight
        self._past = down.to(weight), up.to(weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        rows = hidden.reshape(-1, hidden.shape[-1]).to(self.base.weight.dtype)
        dropped = self.dropout(rows)
        if dropped is rows and self._past is None:
            given = rows, self.base, self.scale, *self._given(len(rows))
            output: Tensor = _Updated.apply(*given)  # type: ignore[no-untyped-call]
        else:
            output = nn.functional.linear(rows, self.base.weight, self.base.bias)
            if self._past is not None:
                output = torch.addmm(output, rows @ self._past[0].T, self._past[1].T)
            down, up = self.down.to(output.dtype), self.up.to(output.dtype)
            output = torch.addmm(output, dropped @ down.T, up.T, alpha=self.scale)
        return output.view(*hidden.shape[:-1], -1)

    def _given(self, rows: int) -> list[Any]:
        """Return the runs of rows, then the maps of each update that has a share in them."""
        if not self._beside:
            return [[Run(slice(0, rows), 1, rows)], self.down, self.up]
        tokens = rows // sum(self._shares)
        layers = compress((self, *self._beside), self._shares)
        return [runs_of([tokens * share for share in self._shares if share]), *(m for one in layers for m in one.maps)]

    @property
    def maps(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B."""
        return self.down, self.up


def low_rank_maps(shell: nn.Module) -> dict[str, LowRankLinear]:
    """Return the maps with a trained low-rank update in a model, by path."""
    return {path: module for path, module in shell.named_modules() if isinstance(module, LowRankLinear)}


class _Updated(torch.autograd.Function):
    """n rows through map and updates; the frozen map gets no gradient. Gradients of A and B are float32.

    The updates of a run are multiplied as one, `[m, r, in]` and `[m, out, r]`; a single one without the first axis,
    which is a little quicker.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, base: nn.Linear, scale: float, runs: Sequence[Run], *updates: Tensor) -> Tensor:
        output: Tensor = base(rows)
        saved = []
        for run, maps in zip(runs, _by_run(runs, updates), strict=True):
            down, up = _stacked(maps[::2], rows.dtype), _stacked(maps[1::2], rows.dtype)
            inner = run.of(rows) @ down.mT
            add_product(run.of(output), inner, up.mT, scale)
            saved += [inner, down, up]
        ctx.save_for_backward(rows, *saved)
        ctx.base, ctx.scale, ctx.runs = base, scale, runs
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *saved = ctx.saved_tensors
        of_rows = pulled_back(ctx.base, gradient) if ctx.needs_input_grad[0] else None
        of_maps: list[Tensor] = []
        for number, run in enumerate(ctx.runs):
            inner, down, up = saved[3 * number : 3 * number + 3]
            of_output = run.of(gradient)
            narrow = of_output @ up
            of_down = (narrow.mT @ run.of(rows)).float().mul_(ctx.scale)
            of_up = (of_output.mT @ inner).float().mul_(ctx.scale)
            of_maps += chain.from_iterable(zip(run.apart(of_down), run.apart(of_up), strict=True))
            if of_rows is not None:
                add_product(run.of(of_rows), narrow, down, ctx.scale)
        return of_rows, None, None, None, *of_maps


def _by_run(runs: Sequence[Run], updates: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    ends = [2 * end for end in accumulate(run.matrices for run in runs)]
    return [updates[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def _stacked(maps: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return (torch.stack(list(maps)) if len(maps) > 1 else maps[0]).to(dtype)
