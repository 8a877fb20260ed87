"""Frozen linear maps that hold their weights in the memory layout of the CPU's matrix kernels.

Torch converts a 16-bit weight to that layout in every product, which costs most when few rows are multiplied. A frozen
weight can be converted once. The kernel is the same, so results are identical to the bit. The plain weight is not kept.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from conpet.backbone.cut import sharing
from conpet.errors import check_memory

MAX_WEIGHT_BYTES = 1024**3
"""Models whose linear maps are larger stay as they are: loading them, and training, would take too much memory."""


class _PackedWeight:
    """A weight `[out, in]` in the kernels' layout. Copies of a module tree share it."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = _packed(weight)
        self._transposed: Tensor | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> _PackedWeight:
        return self

    @property
    def transposed(self) -> Tensor:
        """The transposed weight, packed on first use: only training needs it."""
        if self._transposed is None:
            self._transposed = _packed(self.packed.to_dense().T)
        return self._transposed


def _packed(weight: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return packed


def _product(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return rows W^T + bias `[..., out]`."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return output


class FrozenLinear(nn.Linear):
    """A linear map W x + b that is never trained.

    Args:
        plain: The map with the weights. Its bias is shared.
    """

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.bias = plain.bias
        self._weight = _PackedWeight(plain.weight)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """A plain copy of the weight W `[out, in]`, made on each access."""
        return self._weight.packed.to_dense()

    @property
    def stored(self) -> Tensor:
        """The weight as it is stored."""
        return self._weight.packed

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        dtype = self.stored.dtype
        if hidden.dtype is not dtype:
            if not torch.is_autocast_enabled("cpu"):
                return super().forward(hidden)  # which says what is wrong
            hidden = hidden.to(dtype)
        if torch.is_grad_enabled() and hidden.requires_grad:
            output: Tensor = _Recorded.apply(hidden, self)  # type: ignore[no-untyped-call]
            return output
        return _product(hidden, self.stored, self.bias)

    def pulled_back(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the input `[..., in]`, given that of the output `[..., out]`."""
        return _product(gradient, self._weight.transposed, None)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


class _Recorded(torch.autograd.Function):
    """A pass through a frozen map that gradients of its input go back through."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, base: FrozenLinear) -> Tensor:
        ctx.base = base
        return _product(hidden, base.stored, base.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.base.pulled_back(gradient), None


def stored_weight(base: nn.Linear) -> Tensor:
    """Return a map's weight as it is stored: for its dtype, device and size, because its layout may be packed."""
    return base.stored if isinstance(base, FrozenLinear) else base.weight


def pulled_back(base: nn.Linear, gradient: Tensor) -> Tensor:
    """Return the gradient of a map's input `[n, in]`, given that of its output `[n, out]`."""
    return base.pulled_back(gradient) if isinstance(base, FrozenLinear) else gradient @ base.weight


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters of a model, those of `FrozenLinear` included."""
    packed = [module.stored for module in model.modules() if isinstance(module, FrozenLinear)]
    return sum(tensor.numel() for tensor in (*model.parameters(), *packed))


def with_maps(model: nn.Module, maps: Mapping[nn.Linear, nn.Linear]) -> nn.Module:
    """Return a copy of a model's module tree, over the same weights, with other linear maps in the place of some."""
    return copy.deepcopy(model, sharing(model) | {id(old): new for old, new in maps.items()})


def with_frozen_maps(model: nn.Module) -> nn.Module:
    """Return a copy of a model's module tree, over the same other weights, whose linear maps are `FrozenLinear`.

    Returns the model itself if they would not be faster (float32 weights, a GPU, a processor without such kernels) or
    would take too much memory.
    """
    maps = [module for module in model.modules() if type(module) is nn.Linear]
    weights = [module.weight for module in maps]
    suitable = all(weight.dtype is torch.bfloat16 and weight.device.type == "cpu" for weight in weights)
    if not maps or not suitable or sum(weight.nbytes for weight in weights) > MAX_WEIGHT_BYTES or not _has_kernels():
        return model
    return with_maps(model, {plain: FrozenLinear(plain) for plain in maps})


@cache
def _has_kernels() -> bool:
    """Tell whether torch has the kernels on this processor and they compute what a plain map computes."""
    plain = nn.utils.skip_init(nn.Linear, 32, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(-1, 1, 32 * 16, dtype=torch.float32).view(16, 32))
        plain.bias.copy_(torch.linspace(1, 2, 16, dtype=torch.float32))
        rows = torch.linspace(-2, 1, 3 * 32, dtype=torch.float32).view(3, 32).to(torch.bfloat16)
        try:
            frozen = FrozenLinear(plain)
            output = frozen(rows)
            exact = torch.equal(frozen.weight, plain.weight)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            check_memory(error, "the kernels for frozen weights were tried")
            return False
        return exact and torch.allclose(output, plain(rows), rtol=1e-2, atol=1e-2)
