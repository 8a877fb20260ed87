"""Count the parameters of modules and backbones from a model's configuration, without loading weights."""

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
    """Parameters that one task trains, and those that stay frozen.

    Attributes:
        backbone: Frozen parameters.
        module: Parameters of the task's PET module.
        head: Parameters of the task's linear head, including the bias.
        labels: Number of labels of the head.
    """

    backbone: int
    module: int
    head: int
    labels: int

    @property
    def ratio(self) -> float:
        """Backbone parameters divided by module parameters."""
        return self.backbone / self.module

    @property
    def ratio_with_head(self) -> float:
        """Backbone parameters divided by those of module and head together."""
        return self.backbone / (self.module + self.head)

    def __str__(self) -> str:
        return (
            f"{self.module:,} trained of {self.backbone:,} parameters: {self.ratio:,.0f} times fewer; "
            f"{self.module + self.head:,} with a head over {self.labels} labels: {self.ratio_with_head:,.0f} times"
        )


def backbone_parameters(config: PreTrainedConfig) -> int:
    """Count the parameters of the model a configuration describes; tied ones count once.

    The model class is the first in the configuration's `architectures`, else the base model without a head.
    """
    return sum(parameter.numel() for parameter in _without_weights(config).parameters())


def lora_parameters(
    config: PreTrainedConfig,
    targets: Collection[str],
    rank: int,
    layers: Collection[int] | None = None,
    *,
    dora: bool = False,
) -> int:
    """Count the parameters of a LoRA module: `rank` * (inputs + outputs) for each adapted linear map.

    Args:
        config: The model's configuration.
        targets: Leaf names of the linear maps to adapt ("q_proj").
        rank: Rank of each map's update, 1 or more.
        layers: Indices of the layers to adapt, from 0; None adapts all.
        dora: Whether each map also has a trained norm per output (DoRA).

    Raises:
        ConfigError: A target or a layer is not in the model.
    """
    maps = [linear for linear in _linear_maps(_without_weights(config)) if linear.name in targets]
    available_layers = {linear.layer for linear in maps}
    if unknown := sorted(set(targets) - {linear.name for linear in maps}):
        raise ConfigError(f"targets: a {config.model_type} model has no linear map {', '.join(unknown)}")
    if layers is not None and (outside := sorted(set(layers) - available_layers)):
        raise ConfigError(
            f"layers: a {config.model_type} model has no such map in layer {', '.join(map(str, outside))}"
        )
    adapted = [linear for linear in maps if layers is None or linear.layer in layers]
    return sum(rank * (linear.inputs + linear.outputs) + dora * linear.outputs for linear in adapted)


def ia3_parameters(config: PreTrainedConfig, layers: int) -> int:
    """Count the parameters of (IA)3: 2 * key width + feed-forward width for each of `layers` adapted layers.

    Assumes separate key and value maps, and the targets of the paper.
    """
    text: Any = config.get_text_config()
    return layers * (2 * _key_width(config) + int(text.intermediate_size))


def bottleneck_parameters(config: PreTrainedConfig, width: int, layers: int, per_layer: int) -> int:
    """Count the parameters of bottleneck adapters: 2dm + d + m each (Houlsby et al. 2019), for hidden size d.

    Args:
        config: The model's configuration.
        width: Width m of the bottleneck.
        layers: Number of adapted layers.
        per_layer: Adapters per layer: 2 (Houlsby et al.) or 1 (Pfeiffer et al.).
    """
    hidden = int(config.get_text_config().hidden_size)
    return layers * per_layer * (2 * hidden * width + hidden + width)


def prefix_parameters(config: PreTrainedConfig, tokens: int, layers: int) -> int:
    """Count the parameters of prefix tuning: `tokens` keys and values in each of `layers` adapted layers."""
    return layers * 2 * tokens * _key_width(config)


def _key_width(config: PreTrainedConfig) -> int:
    """Return the width of one token's keys over all heads; less than the hidden size if heads share keys."""
    text: Any = config.get_text_config()
    heads = int(text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return int((getattr(text, "num_key_value_heads", None) or heads) * width)


def count_parameters(
    config: PreTrainedConfig, targets: Collection[str], rank: int, labels: int, layers: Collection[int] | None = None
) -> ParameterCount:
    """Count the parameters of a task with LoRA and a linear head over `labels` labels (see `lora_parameters`)."""
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
    """Count the parameters of the paper's setting: LoRA of rank 4 on the query and key maps of LLaMA-7B.

    Args:
        labels: Number of labels of the task; the demo's tasks have 15.
    """
    return count_parameters(llama_7b_config(), ("q_proj", "k_proj"), rank=4, labels=labels)


@dataclass(frozen=True, slots=True)
class _LinearMap:
    """Leaf name, layer index (None outside the layers), inputs and outputs of a linear map."""

    name: str
    layer: int | None
    inputs: int
    outputs: int


def _linear_maps(model: nn.Module) -> Iterator[_LinearMap]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            index = re.search(r"(?:^|\.)(\d+)\.", path)
            layer = int(index[1]) if index else None
            yield _LinearMap(path.rpartition(".")[2], layer, module.in_features, module.out_features)


def _without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the model on torch's meta device: shapes only, no memory and no random numbers."""
    architecture = (config.architectures or [""])[0]
    build: Any = getattr(transformers, architecture, AutoModel.from_config)
    with torch.device("meta"):
        model: PreTrainedModel = build(config)
    return model
