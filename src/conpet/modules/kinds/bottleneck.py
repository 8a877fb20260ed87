"""Bottleneck adapters (Houlsby et al. 2019, Pfeiffer et al. 2020), which PEFT does not have."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.backbone.frozen_linear import stored_weight
from conpet.config import ModuleConfig
from conpet.modules.adapter import Adapter, MapUpdate
from conpet.modules.kinds.base import InjectedModule, ModuleKind, grouped_tensors, uniform
from conpet.modules.kinds.settings import BottleneckConfig
from conpet.modules.sublayers import Sublayer, find_sublayers

_DOWN, _UP = ".adapter_down", ".adapter_up"
_ENDS = tuple(f"{stem}.{leaf}" for stem in (_DOWN, _UP) for leaf in ("weight", "bias"))


class AdaptedLinear(nn.Module):
    """A frozen map followed by a bottleneck: h + up(gelu(down(h))), where h is the output of the map.

    Args:
        base: The frozen map, the last of a sublayer.
        width: Width m of the bottleneck.
        generator: Initialises `adapter_down`; `adapter_up` and both biases start as zeros.
    """

    def __init__(self, base: nn.Linear, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        size, device = base.out_features, stored_weight(base).device
        self.adapter_down: nn.Linear = nn.utils.skip_init(nn.Linear, size, width, device=device)
        self.adapter_up: nn.Linear = nn.utils.skip_init(nn.Linear, width, size, device=device)
        with torch.no_grad():
            self.adapter_down.weight.copy_(uniform(self.adapter_down.weight.shape, generator))
            for zeros in (self.adapter_down.bias, self.adapter_up.weight, self.adapter_up.bias):
                zeros.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        output: Tensor = self.base(hidden)
        update: Tensor = self.adapter_up(nn.functional.gelu(self.adapter_down(output)))
        return output + update


class _Bottleneck(ModuleKind):
    """A narrow two-layer network with a residual, after sublayers, before the residual sum and norm of the layer."""

    Config = BottleneckConfig

    @staticmethod
    @abstractmethod
    def ends(part: Sublayer) -> list[str]:
        """Return the maps of a layer that an adapter follows."""

    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return the document: the kind, the width and the maps that the adapters follow."""
        assert isinstance(config, BottleneckConfig)  # noqa: S101 - see `Config`
        return {
            "peft_type": self.peft_type,
            "base_model_name_or_path": backbone.name,
            "bottleneck": config.width,
            "target_modules": sorted(path for part in find_sublayers(backbone, self.name) for path in self.ends(part)),
        }

    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Insert an adapter after each map."""
        parameters: dict[str, nn.Parameter] = {}
        for path in document["target_modules"]:
            adapted = AdaptedLinear(suffix.shell.get_submodule(path), document["bottleneck"], generator)  # type: ignore[arg-type]
            suffix.shell.set_submodule(path, adapted)
            parameters |= {f"{path}{end}": adapted.get_parameter(end.removeprefix(".")) for end in _ENDS}
        return InjectedModule(parameters)

    def updates(self, adapter: Adapter, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate]:
        """Return the adapter after each map."""
        return {
            path: MapUpdate(
                narrow=tensors[f"{_DOWN}.weight"].T,
                narrow_bias=tensors[f"{_DOWN}.bias"].unsqueeze(0),
                widen=tensors[f"{_UP}.weight"].T,
                widen_bias=tensors[f"{_UP}.bias"].unsqueeze(0),
            )
            for path, tensors in grouped_tensors(adapter.tensors, _ENDS, bases).items()
        }


class Houlsby(_Bottleneck):
    """Adapters after the attention and the feed-forward sublayer (Houlsby et al. 2019, section 2.1)."""

    name = "houlsby"
    peft_type = "CONPET_HOULSBY"

    @staticmethod
    def ends(part: Sublayer) -> list[str]:
        """Return the last map of both sublayers."""
        return [part.attention_out, part.feed_forward_out]


class Pfeiffer(_Bottleneck):
    """Adapters after the feed-forward sublayer only (Pfeiffer et al. 2020)."""

    name = "pfeiffer"
    peft_type = "CONPET_PFEIFFER"

    @staticmethod
    def ends(part: Sublayer) -> list[str]:
        """Return the last map of the feed-forward sublayer."""
        return [part.feed_forward_out]
