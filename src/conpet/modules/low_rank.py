"""A frozen linear map with a trained low-rank update, as one operation: W x + b + s B A x."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from conpet.backbone.frozen_linear import pulled_back, stored_weight
from conpet.modules.grouped_matmul import Run, add_product, runs_of


class LowRankLinear(nn.Module):
    """A frozen map W x + b with a trained update s B A x (LoRA, Hu et al. 2021).

    The update is added to the output of the frozen map in place: writing and reading another tensor of that size would
    cost more on a CPU than computing the update.

    Args:
        base: The frozen map, `in` to `out`.
        down: A `[r, in]`, float32.
        up: B `[out, r]`, float32.
        scale: s.
        dropout: Applied to the input of A when active.
    """

    def __init__(self, base: nn.Linear, down: nn.Parameter, up: nn.Parameter, scale: float, dropout: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = down, up
        self.scale = scale
        self.dropout = dropout
        self._past: tuple[Tensor, Tensor] | None = None
        self._others: Sequence[LowRankLinear] = ()
        self._shares: Sequence[int] = ()

    def batch_with(self, others: Sequence[LowRankLinear]) -> None:
        """Train the updates of other maps in the passes of this one, each on its own rows; `share` sets how many.

        Args:
            others: Maps over the same frozen map with the same scale, without dropout; empty to stop.
        """
        self._others = others

    def share(self, examples: Sequence[int]) -> None:
        """Set how many examples of the next batch use this update and each of the others, possibly 0.

        Examples are ordered accordingly: first those of this update, then those of the first of the others, ...
        """
        self._shares = examples

    def add_frozen_update(self, down: Tensor, up: Tensor) -> None:
        """Add a frozen update: W x + b + B' A' x + s B A x, as in O-LoRA (Wang et al. 2023).

        Args:
            down: A' `[m, in]`.
            up: B' `[out, m]`, including the scale.
        """
        weight = stored_weight(self.base)
        self._past = down.to(weight.device, weight.dtype), up.to(weight.device, weight.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        rows = hidden.reshape(-1, hidden.shape[-1]).to(stored_weight(self.base).dtype)
        dropped = self.dropout(rows)
        if dropped is rows and self._past is None:
            arguments = rows, self.base, self.scale, *self._runs_and_updates(len(rows))
            output: Tensor = _LowRankFunction.apply(*arguments)  # type: ignore[no-untyped-call]
        else:
            output = self.base(rows)
            if self._past is not None:
                output = torch.addmm(output, rows @ self._past[0].T, self._past[1].T)
            down, up = self.down.to(output.dtype), self.up.to(output.dtype)
            output = torch.addmm(output, dropped @ down.T, up.T, alpha=self.scale)
        return output.view(*hidden.shape[:-1], -1)

    def _runs_and_updates(self, rows: int) -> list[Any]:
        """Return the runs of rows, then A and B of each update used."""
        if not self._others:
            return [[Run(slice(0, rows), 1, rows)], self.down, self.up]
        tokens = rows // sum(self._shares)
        layers = compress((self, *self._others), self._shares)
        return [
            runs_of([tokens * share for share in self._shares if share]),
            *(m for layer in layers for m in layer.maps),
        ]

    @property
    def maps(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B."""
        return self.down, self.up


def low_rank_maps(shell: nn.Module) -> dict[str, LowRankLinear]:
    """Return the `LowRankLinear` maps of a model, by path."""
    return {path: module for path, module in shell.named_modules() if isinstance(module, LowRankLinear)}


class _LowRankFunction(torch.autograd.Function):
    """Sends n rows through map and updates. The frozen map gets no gradient; gradients of A and B are float32.

    The updates of a run are stacked: `[m, r, in]` and `[m, out, r]`. A single update has no first axis, which is a
    little faster.
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
        rows_gradient = pulled_back(ctx.base, gradient) if ctx.needs_input_grad[0] else None
        map_gradients: list[Tensor] = []
        for number, run in enumerate(ctx.runs):
            inner, down, up = saved[3 * number : 3 * number + 3]
            output_gradient = run.of(gradient)
            narrow = output_gradient @ up
            down_gradient = (narrow.mT @ run.of(rows)).float().mul_(ctx.scale)
            up_gradient = (output_gradient.mT @ inner).float().mul_(ctx.scale)
            map_gradients += chain.from_iterable(zip(run.unstack(down_gradient), run.unstack(up_gradient), strict=True))
            if rows_gradient is not None:
                add_product(run.of(rows_gradient), narrow, down, ctx.scale)
        return rows_gradient, None, None, None, *map_gradients


def _by_run(runs: Sequence[Run], updates: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    ends = [2 * end for end in accumulate(run.matrices for run in runs)]
    return [updates[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def _stacked(maps: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return (torch.stack(list(maps)) if len(maps) > 1 else maps[0]).to(dtype)
