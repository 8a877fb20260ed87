"""How many parameters a module trains, beside those of its backbone: from a model's configuration, without weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModel, LlamaConfig, PreTrainedConfig, PreTrainedModel

from conpet.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """What one task trains against what stays frozen.

    Attributes:
        backbone: Frozen parameters.
        module: Parameters of the task's PET module.
        head: Parameters of the task's linear head, bias included.
        labels: Labels the head tells apart.
    """

    backbone: int
    module: int
    head: int
    labels: int

    @property
    def ratio(self) -> float:
        """How many times fewer parameters the module has than the backbone."""
        return self.backbone / self.module

    @property
    def ratio_with_head(self) -> float:
        """How many times fewer parameters module and head together have than the backbone."""
        return self.backbone / (self.module + self.head)

    def __str__(self) -> str:
        return (
            f"{self.module:,} trained of {self.backbone:,} parameters: {self.ratio:,.0f} times fewer; "
            f"{self.module + self.head:,} with a head over {self.labels} labels: {self.ratio_with_head:,.0f} times"
        )


def backbone_parameters(config: PreTrainedConfig) -> int:
    """Count the parameters of the model a configuration describes; tied ones count once.

    The model is the class the configuration names first in `architectures`, else the bare model without a head.
    """
    return sum(parameter.numel() for parameter in _without_weights(config).parameters())


def lora_parameters(
    config: PreTrainedConfig, targets: Collection[str], rank: int, layers: Collection[int] | None = None
) -> int:
    """Count the parameters of a LoRA module: `rank` * (inputs + outputs) for each adapted linear map.

    Args:
        config: The model's configuration.
        targets: Leaf names of the linear maps to adapt ("q_proj").
        rank: Rank of each map's update, 1 or more.
        layers: Indices of the layers to adapt, from 0; None adapts all.

    Raises:
        ConfigError: A target or a layer is not in the model.
    """
    maps = [one for one in _linear_maps(_without_weights(config)) if one.name in targets]
    have = {one.layer for one in maps}
    if unknown := sorted(set(targets) - {one.name for one in maps}):
        raise ConfigError(f"targets: a {config.model_type} model has no linear map {', '.join(unknown)}")
    if layers is not None and (outside := sorted(set(layers) - have)):
        raise ConfigError(
            f"layers: a {config.model_type} model has no such map in layer {', '.join(map(str, outside))}"
        )
    return sum(rank * one.size for one in maps if layers is None or one.layer in layers)


def count_parameters(
    config: PreTrainedConfig, targets: Collection[str], rank: int, labels: int, layers: Collection[int] | None = None
) -> ParameterCount:
    """Count what one task with LoRA and a linear head over `labels` labels trains (see `lora_parameters`)."""
    hidden = config.get_text_config().hidden_size
    return ParameterCount(
        backbone=backbone_parameters(config),
        module=lora_parameters(config, targets, rank, layers),
        head=labels * (hidden + 1),
        labels=labels,
    )


def llama_7b_config() -> LlamaConfig:
    """Return the configuration of LLaMA-7B (Touvron et al. 2023), the backbone of the ConPET paper."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        tie_word_embeddings=False,
    )


def llama_7b_count(labels: int = 15) -> ParameterCount:
    """Count the paper's setting: LoRA of rank 4 on the query and key maps of LLaMA-7B.

    Args:
        labels: Labels of the task; the demo's tasks have 15.
    """
    return count_parameters(llama_7b_config(), ("q_proj", "k_proj"), rank=4, labels=labels)


@dataclass(frozen=True, slots=True)
class _LinearMap:
    """A linear map: its leaf name, its layer's index (None outside the layers), its inputs plus outputs."""

    name: str
    layer: int | None
    size: int


def _linear_maps(model: nn.Module) -> Iterator[_LinearMap]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            index = re.search(r"(?:^|\.)(\d+)\.", path)
            size = module.in_features + module.out_features
            yield _LinearMap(path.rpartition(".")[2], int(index[1]) if index else None, size)


def _without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the model on torch's meta device: shapes only, no memory and no random numbers."""
    named = (config.architectures or [""])[0]
    build: Any = getattr(transformers, named, AutoModel.from_config)
    with torch.device("meta"):
        model: PreTrainedModel = build(config)
    return model
