"""A frozen linear map with a trained low-rank update, as one operation: W x + b + s B A x."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from conpet.backbone.frozen import pulled_back


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

    def stand_on(self, down: Tensor, up: Tensor) -> None:
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
            given = rows, self.base, self.down, self.up, self.scale
            output: Tensor = _Updated.apply(*given)  # type: ignore[no-untyped-call]
        else:
            output = nn.functional.linear(rows, self.base.weight, self.base.bias)
            if self._past is not None:
                output = torch.addmm(output, rows @ self._past[0].T, self._past[1].T)
            down, up = self.down.to(output.dtype), self.up.to(output.dtype)
            output = torch.addmm(output, dropped @ down.T, up.T, alpha=self.scale)
        return output.view(*hidden.shape[:-1], -1)


class _Updated(torch.autograd.Function):
    """n rows through map and update; the frozen map gets no gradient. Gradients of A and B are float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, base: nn.Linear, down: Tensor, up: Tensor, scale: float) -> Tensor:
        down, up = down.to(rows.dtype), up.to(rows.dtype)
        inner = rows @ down.T
        ctx.save_for_backward(rows, inner, down, up)
        ctx.base, ctx.scale = base, scale
        output: Tensor = base(rows)
        return output.addmm_(inner, up.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, down, up = ctx.saved_tensors
        narrow = gradient @ up
        of_down = (narrow.T @ rows).float().mul_(ctx.scale)
        of_up = (gradient.T @ inner).float().mul_(ctx.scale)
        of_rows = None
        if ctx.needs_input_grad[0]:
            of_rows = pulled_back(ctx.base, gradient).addmm_(narrow, down, alpha=ctx.scale)
        return of_rows, None, of_down, of_up, None
