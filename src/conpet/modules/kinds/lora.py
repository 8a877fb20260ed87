"""LoRA (Hu et al. 2021) and its variants rsLoRA (Kalajdzievski 2023) and DoRA (Liu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.config import ModuleConfig
from conpet.errors import ConfigError
from conpet.modules.adapter import Adapter, MapUpdate
from conpet.modules.kinds.base import (
    ADAPTER,
    PREFIX,
    InjectedModule,
    ModuleKind,
    checked_targets,
    config_document,
    grouped_tensors,
    inject_with_peft,
    paths_named,
    uniform,
)
from conpet.modules.kinds.settings import LoraConfig
from conpet.modules.low_rank import LowRankLinear, low_rank_maps
from conpet.modules.sublayers import adapted_layers

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Suffixes of the names of A `[r, in]` and B `[out, r]` in PEFT's files."""
_MAGNITUDE = ".lora_magnitude_vector"


class Lora(ModuleKind):
    """A low-rank update of linear maps: W x + s B A x where A `[r, in]` starts random and B `[out, r]` zero.

    s is alpha / r, or alpha / sqrt(r) with `rslora`. With `dora`, each row of W + s B A is rescaled to a trained norm
    m, initially that of the row of W: m (W + s B A) x / |W + s B A|.
    """

    name = "lora"
    peft_type = "LORA"
    in_peft = True
    Config = LoraConfig

    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return PEFT's configuration of a LoRA module on the suffix."""
        from peft import LoraConfig as PeftLoraConfig

        assert isinstance(config, LoraConfig)  # noqa: S101 - see `Config`
        targets = checked_targets(backbone, config.targets)
        layers: dict[str, Any] = {}
        if backbone.cut.path:
            layers["layers_to_transform"] = adapted_layers(backbone)
            layers["layers_pattern"] = backbone.cut.path.rpartition(".")[2]
        document = PeftLoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            use_rslora=config.rslora,
            use_dora=config.dora,
            target_modules=targets,
            task_type="FEATURE_EXTRACTION",
            inference_mode=True,
            base_model_name_or_path=backbone.name,
            **layers,
        )
        return config_document(document)

    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Insert `LowRankLinear` maps, or PEFT's own with DoRA."""
        if document.get("use_dora"):
            return _inject_with_peft(backbone, suffix, document, generator)
        parameters: dict[str, nn.Parameter] = {}
        dropouts = []
        rank, rate = int(document["r"]), float(document["lora_dropout"])
        for path in paths_named(backbone, document["target_modules"]):
            base = suffix.shell.get_submodule(path)
            assert isinstance(base, nn.Linear)  # noqa: S101
            down = nn.Parameter(uniform((rank, base.in_features), generator).to(backbone.device))
            up = nn.Parameter(torch.zeros(base.out_features, rank, device=backbone.device, dtype=torch.float32))
            dropout = nn.Dropout(rate) if rate else nn.Identity()
            suffix.shell.set_submodule(path, LowRankLinear(base, down, up, scale_of(document), dropout))
            parameters |= {f"{PREFIX}{path}{DOWN}": down, f"{PREFIX}{path}{UP}": up}
            dropouts.append(dropout)
        return InjectedModule(parameters, dropouts)

    def trains_batched(self, config: ModuleConfig) -> bool:
        """Return True for plain LoRA without dropout. DoRA uses PEFT's maps; dropout draws for all rows at once."""
        return isinstance(config, LoraConfig) and not config.dora and not config.dropout

    def updates(self, adapter: Adapter, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate]:
        """Return A and s B of each map; with DoRA also the scale of its output."""
        scale = scale_of(adapter.document)
        ends = (DOWN, UP, _MAGNITUDE) if adapter.document.get("use_dora") else (DOWN, UP)
        return {
            path: _update(tensors, scale, bases[path])
            for path, tensors in grouped_tensors(adapter.tensors, ends, bases, PREFIX).items()
        }


def _update(tensors: Mapping[str, Tensor], scale: float, base: nn.Linear) -> MapUpdate:
    down, up = tensors[DOWN], tensors[UP] * scale
    if _MAGNITUDE not in tensors:
        return MapUpdate(down=down, up=up)
    weight = base.weight.detach()
    norm = torch.linalg.norm(weight + (up @ down).to(weight), dim=1).float().cpu()
    ratio = tensors[_MAGNITUDE] / norm
    shift = None if base.bias is None else (base.bias.detach().float().cpu() * (1 - ratio)).unsqueeze(0)
    return MapUpdate(down=down, up=up * ratio.unsqueeze(1), scale_out=ratio.unsqueeze(0), shift=shift)


def scale_of(document: Mapping[str, Any]) -> float:
    """Return the scale s of an update s B A: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    rank = int(document["r"])
    return float(document["lora_alpha"]) / (rank**0.5 if document.get("use_rslora") else rank)


def _inject_with_peft(
    backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
) -> InjectedModule:
    """Inject a module with PEFT and redraw its A maps with `generator`."""
    from peft import PeftConfig
    from peft.tuners.lora import LoraLayer

    parameters = inject_with_peft(PeftConfig.from_peft_type(**document), suffix, backbone.device)
    layers = [module for module in suffix.shell.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        # Under autocast, weights must take the dtype of the states, not the reverse.
        layer.cast_input_dtype_enabled = False
        weight = layer.lora_A[ADAPTER].weight
        weight.data.copy_(uniform(weight.shape, generator))
    return InjectedModule(parameters, [layer.lora_dropout for layer in layers])


def freeze_beneath(suffix: Suffix, past: Adapter) -> None:
    """Add a frozen LoRA to the maps of an inserted one: W x + past(x) + current(x), as in O-LoRA (Wang et al. 2023).

    Raises:
        ConfigError: The past module is not a plain LoRA, or adapts other maps.
    """
    maps = _plain(past)
    layers = low_rank_maps(suffix.shell)
    if maps.keys() != layers.keys():
        raise ConfigError(
            f"a past LoRA must adapt the same maps as the new one; only one adapts: {_difference(maps, layers)}"
        )
    for path, layer in layers.items():
        layer.add_frozen_update(*maps[path])


def concatenated(adapters: Sequence[Adapter]) -> Adapter:
    """Join LoRA modules on the same maps into one whose rank is the sum of theirs, and whose update is too.

    Raises:
        ConfigError: There is no module, one is not a plain LoRA (DoRA is not), or they adapt different maps.
    """
    if not adapters:
        raise ConfigError("there is no LoRA to join: pass at least one")
    parts = [_plain(adapter) for adapter in adapters]
    if any(part.keys() != parts[0].keys() for part in parts):
        other = next(part for part in parts if part.keys() != parts[0].keys())
        raise ConfigError(
            f"only LoRA modules on the same maps can be joined; only one adapts: {_difference(parts[0], other)}"
        )
    tensors = {}
    for path in parts[0]:
        tensors[f"{PREFIX}{path}{DOWN}"] = torch.cat([part[path][0] for part in parts])
        tensors[f"{PREFIX}{path}{UP}"] = torch.cat([part[path][1] for part in parts], dim=1)
    rank = sum(int(adapter.document["r"]) for adapter in adapters)
    scale = {"r": rank, "lora_alpha": float(rank), "use_rslora": False}  # B already includes the scale
    return Adapter(tensors, {**adapters[0].document, **scale})


def _plain(adapter: Adapter) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and s B by path."""
    if adapter.document.get("peft_type") != Lora.peft_type or adapter.document.get("use_dora"):
        raise ConfigError(
            "only plain LoRA modules can be joined, or trained on top of: use module.kind=lora with module.dora=false"
        )
    scale = scale_of(adapter.document)
    stems = [name.removesuffix(DOWN) for name in adapter.tensors if name.endswith(DOWN)]
    return {
        stem.removeprefix(PREFIX): (adapter.tensors[stem + DOWN], adapter.tensors[stem + UP] * scale) for stem in stems
    }


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    return ", ".join(sorted(first.keys() ^ second.keys()))
