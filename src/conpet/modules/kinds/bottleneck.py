"""Bottleneck adapters of our own, since PEFT has none: Houlsby et al. 2019 and Pfeiffer et al. 2020."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.config import ModuleConfig, Positive
from conpet.modules.adapter import Adapter, MapUpdate
from conpet.modules.kinds.base import InjectedModule, ModuleKind, grouped, uniform
from conpet.modules.sublayers import Sublayer, find_sublayers

_NARROW, _WIDEN = ".adapter_down", ".adapter_up"
_ENDS = tuple(f"{stem}.{leaf}" for stem in (_NARROW, _WIDEN) for leaf in ("weight", "bias"))


class AdaptedLinear(nn.Module):
    """A frozen map with a bottleneck behind it: h + up(gelu(down(h))), h being what the map gives.

    Args:
        base: The frozen map, the last of a sublayer.
        width: Width m of the bottleneck.
        generator: Draws `adapter_down`; `adapter_up` and both biases begin with zeros.
    """

    def __init__(self, base: nn.Linear, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        size, device = base.out_features, base.weight.device
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


class BottleneckConfig(ModuleConfig):
    """Settings of bottleneck adapters.

    Attributes:
        width: Width of the bottleneck.
    """

    width: Positive = 16


class _Bottleneck(ModuleKind):
    """A narrow two-layer network with a residual behind sublayers, before the residual sum and norm of the layer."""

    Config = BottleneckConfig

    @staticmethod
    @abstractmethod
    def ends(part: Sublayer) -> list[str]:
        """Return the maps of a layer that get an adapter behind them."""

    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return our own document: the kind, the width and the maps the adapters stand behind."""
        assert isinstance(config, BottleneckConfig)  # noqa: S101 - as `Config` says
        return {
            "peft_type": self.peft_type,
            "base_model_name_or_path": backbone.name,
            "bottleneck": config.width,
            "target_modules": sorted(path for part in find_sublayers(backbone, self.name) for path in self.ends(part)),
        }

    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Put an adapter behind each map."""
        parameters: dict[str, nn.Parameter] = {}
        for path in document["target_modules"]:
            adapted = AdaptedLinear(suffix.shell.get_submodule(path), document["bottleneck"], generator)  # type: ignore[arg-type]
            suffix.shell.set_submodule(path, adapted)
            parameters |= {f"{path}{end}": adapted.get_parameter(end.removeprefix(".")) for end in _ENDS}
        return InjectedModule(parameters)

    def updates(self, adapter: Adapter, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate]:
        """Return the adapter behind each map."""
        return {
            path: MapUpdate(
                narrow=tensors[f"{_NARROW}.weight"].T,
                narrow_bias=tensors[f"{_NARROW}.bias"].unsqueeze(0),
                widen=tensors[f"{_WIDEN}.weight"].T,
                widen_bias=tensors[f"{_WIDEN}.bias"].unsqueeze(0),
            )
            for path, tensors in grouped(adapter.tensors, _ENDS, bases).items()
        }


class Houlsby(_Bottleneck):
    """Adapters behind the attention and behind the feed-forward sublayer (Houlsby et al. 2019, section 2.1)."""

    name = "houlsby"
    peft_type = "CONPET_HOULSBY"

    @staticmethod
    def ends(part: Sublayer) -> list[str]:
        """Both sublayers' last maps."""
        return [part.attention_out, part.feed_forward_out]


class Pfeiffer(_Bottleneck):
    """Adapters behind the feed-forward sublayer alone (Pfeiffer et al. 2020)."""

    name = "pfeiffer"
    peft_type = "CONPET_PFEIFFER"

    @staticmethod
    def ends(part: Sublayer) -> list[str]:
        """The feed-forward sublayer's last map."""
        return [part.feed_forward_out]
