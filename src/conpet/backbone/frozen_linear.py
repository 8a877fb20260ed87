"""Frozen linear maps whose weights also lie in memory in the order in which the CPU's matrix kernels read them.

Torch brings a weight of a half format into that order anew in every product, which tells most where few rows are
multiplied. A frozen weight can be brought there once. The kernel, and so every bit of the result, stays the same.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.cut import sharing
from conpet.errors import check_memory

MOST_BYTES = 1024**3
"""Linear maps of more bytes are not held twice: a model of such a size gains less than the memory is worth."""


class _Order:
    """A weight `[out, in]` in the kernels' order, made when it is first used; copies of a module tree share it."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._packed: Tensor | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Order:
        return self

    def product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        """Return rows W^T + bias `[..., out]`."""
        if self._packed is None:
            with torch.inference_mode(False), torch.no_grad():
                self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.detach().contiguous())
        found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")
        return found


class FrozenLinear(nn.Linear):
    """A linear map W x + b that is never trained, over the weights of another one.

    Args:
        plain: The map whose weights it shares.
    """

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias
        self._forwards, self._backwards = _Order(plain.weight), _Order(plain.weight.T)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        recorded = torch.is_grad_enabled() and hidden.requires_grad
        if recorded or hidden.dtype is not self.weight.dtype:
            return super().forward(hidden)
        return self._forwards.product(hidden, self.bias)

    def pulled_back(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the input `[n, in]` from that of the output `[n, out]`."""
        return self._backwards.product(gradient, None)


def pulled_back(base: nn.Linear, gradient: Tensor) -> Tensor:
    """Return the gradient of a map's input `[n, in]` from that of its output `[n, out]`."""
    return base.pulled_back(gradient) if isinstance(base, FrozenLinear) else gradient @ base.weight


def with_frozen_maps(model: nn.Module) -> nn.Module:
    """Return a copy of a model's tree, over the same weights, whose linear maps are `FrozenLinear`.

    It is the model itself where those are no quicker (weights of float32, a GPU, a processor without such kernels), or
    where they would take too much memory.
    """
    maps = [module for module in model.modules() if type(module) is nn.Linear]
    weights = [one.weight for one in maps]
    suited = all(weight.dtype is torch.bfloat16 and weight.device.type == "cpu" for weight in weights)
    if not suited or sum(weight.nbytes for weight in weights) > MOST_BYTES or not _has_kernels():
        return model
    return copy.deepcopy(model, sharing(model) | {id(plain): FrozenLinear(plain) for plain in maps})


@cache
def _has_kernels() -> bool:
    """Tell whether this build of torch on this processor has the kernels, and they give what a plain map gives."""
    plain = nn.utils.skip_init(nn.Linear, 32, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(-1, 1, 32 * 16).view(16, 32))
        plain.bias.copy_(torch.linspace(1, 2, 16))
        rows = torch.linspace(-2, 1, 3 * 32).view(3, 32).to(torch.bfloat16)
        try:
            found = FrozenLinear(plain)(rows)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            check_memory(error, "the kernels for frozen weights were tried")
            return False
        return torch.allclose(found, plain(rows), rtol=1e-2, atol=1e-2)
