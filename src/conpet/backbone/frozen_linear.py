"""Frozen linear maps that also hold their weights in the memory layout of the CPU's matrix kernels.

Torch converts a 16-bit weight to that layout in every product, which costs most when few rows are multiplied. A frozen
weight can be converted once. The kernel is the same, so results are identical to the bit.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.cut import sharing
from conpet.errors import check_memory

MAX_WEIGHT_BYTES = 1024**3
"""Models whose linear maps are larger keep one copy: the gain would not be worth the memory."""


class _PackedWeight:
    """A weight `[out, in]` in the kernels' layout, packed on first use; copies of a module tree share it."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._packed: Tensor | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> _PackedWeight:
        return self

    def product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        """Return rows W^T + bias `[..., out]`."""
        if self._packed is None:
            with torch.inference_mode(False), torch.no_grad():
                self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.detach().contiguous())
        output: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")
        return output


class FrozenLinear(nn.Linear):
    """A linear map W x + b that is never trained.

    Args:
        plain: The map whose weights are shared.
    """

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias
        self._forward_weight, self._backward_weight = _PackedWeight(plain.weight), _PackedWeight(plain.weight.T)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        recorded = torch.is_grad_enabled() and hidden.requires_grad
        if recorded or hidden.dtype is not self.weight.dtype:
            return super().forward(hidden)
        return self._forward_weight.product(hidden, self.bias)

    def pulled_back(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the input `[n, in]`, given that of the output `[n, out]`."""
        return self._backward_weight.product(gradient, None)


def pulled_back(base: nn.Linear, gradient: Tensor) -> Tensor:
    """Return the gradient of a map's input `[n, in]`, given that of its output `[n, out]`."""
    return base.pulled_back(gradient) if isinstance(base, FrozenLinear) else gradient @ base.weight


def with_frozen_maps(model: nn.Module) -> nn.Module:
    """Return a copy of a model's module tree, over the same weights, whose linear maps are `FrozenLinear`.

    Returns the model itself if they would not be faster (float32 weights, a GPU, a processor without such kernels) or
    would take too much memory.
    """
    maps = [module for module in model.modules() if type(module) is nn.Linear]
    weights = [module.weight for module in maps]
    suitable = all(weight.dtype is torch.bfloat16 and weight.device.type == "cpu" for weight in weights)
    if not suitable or sum(weight.nbytes for weight in weights) > MAX_WEIGHT_BYTES or not _has_kernels():
        return model
    return copy.deepcopy(model, sharing(model) | {id(plain): FrozenLinear(plain) for plain in maps})


@cache
def _has_kernels() -> bool:
    """Tell whether torch has the kernels on this processor and they compute what a plain map computes."""
    plain = nn.utils.skip_init(nn.Linear, 32, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(-1, 1, 32 * 16, dtype=torch.float32).view(16, 32))
        plain.bias.copy_(torch.linspace(1, 2, 16, dtype=torch.float32))
        rows = torch.linspace(-2, 1, 3 * 32, dtype=torch.float32).view(3, 32).to(torch.bfloat16)
        try:
            output = FrozenLinear(plain)(rows)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            check_memory(error, "the kernels for frozen weights were tried")
            return False
        return torch.allclose(output, plain(rows), rtol=1e-2, atol=1e-2)
