"""One PET module: made and trained through Hugging Face PEFT, kept in PEFT's own format."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch
from conpet.config import TaskSettings
from conpet.errors import ConfigError, CorruptionError
from conpet.readable import Readable
from conpet.registry import Registry

ADAPTER_TENSORS = "adapter_model"
ADAPTER_CONFIG = "adapter_config"
"""Stems of the files in which PEFT keeps an adapter."""

EAGER_TOKENS = 256
"""Up to this length plain attention trains faster than the fused kernel on a CPU in bfloat16 (5 times at 16 tokens)."""

_PREFIX = "base_model.model."
_ADAPTER = "default"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def linear_maps(backbone: Backbone) -> tuple[str, ...]:
    """Return the leaf names of the linear maps in the suffix, sorted (`("down_proj", "gate_proj", ...)`)."""
    path, adapted = backbone.cut.path, _adapted_layers(backbone)
    inside = tuple(f"{path}.{index}." for index in adapted)
    names = {
        name.rpartition(".")[2]
        for name, module in backbone.cut.model.named_modules()
        if isinstance(module, nn.Linear) and (path is None or name.startswith(inside))
    }
    return tuple(sorted(names))


def _adapted_layers(backbone: Backbone) -> list[int]:
    return list(range(backbone.split, backbone.cut.layers))


def lora_config(backbone: Backbone, settings: TaskSettings) -> LoraConfig:
    """Build PEFT's configuration of a LoRA module on the suffix.

    Raises:
        ConfigError: A target is no linear map of the suffix, or the suffix has none.
    """
    have = linear_maps(backbone)
    if not have:
        raise ConfigError(
            f"{backbone.name} has no linear maps (torch.nn.Linear) above layer {backbone.split} for LoRA to sit on: "
            "use a lower split or another backbone"
        )
    targets = have if settings.targets == "all-linear" else settings.targets
    unknown = sorted(set(targets) - set(have))
    if unknown:
        raise ConfigError(f"targets: no linear map {', '.join(unknown)} in {backbone.name}; have: {', '.join(have)}")
    layers: dict[str, Any] = {}
    if backbone.cut.path:
        layers["layers_to_transform"] = _adapted_layers(backbone)
        layers["layers_pattern"] = backbone.cut.path.rpartition(".")[2]
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(targets),
        task_type="FEATURE_EXTRACTION",
        inference_mode=True,
        base_model_name_or_path=backbone.name,
        **layers,
    )


PET_KINDS = Registry("PET kind", {"lora": "conpet.pet.module:lora_config"})


def check_settings(backbone: Backbone, settings: TaskSettings) -> None:
    """Raise `ConfigError` unless a module of these settings can sit on the backbone's suffix."""
    PET_KINDS[settings.pet](backbone, settings)


class PetModule:
    """A module that can be trained: PET layers in a suffix of its own, over the shared frozen weights.

    Args:
        backbone: The frozen model.
        settings: Kind, rank, targets, ...
        seed: Seed of the initial weights.
    """

    def __init__(self, backbone: Backbone, settings: TaskSettings, seed: int) -> None:
        self.backbone = backbone
        self.config: PeftConfig = PET_KINDS[settings.pet](backbone, settings)
        self._suffix = backbone.suffix()
        _take_quickest_attention(self._suffix.shell, backbone)
        with torch.random.fork_rng(devices=[backbone.device] if backbone.device.type == "cuda" else []):
            inject_adapter_in_model(self.config, self._suffix.shell, adapter_name=_ADAPTER)
        self._layers = {n: m for n, m in self._suffix.shell.named_modules() if isinstance(m, LoraLayer)}
        generator = torch.Generator().manual_seed(seed)
        for layer in self._layers.values():
            layer.cast_input_dtype_enabled = (
                False  # autocast brings weights to the states' format, not states to theirs
            )
            # PEFT drew these from the global generator; ours is an argument, so that equal seeds give equal modules.
            weight = layer.lora_A[_ADAPTER].weight
            bound = 1 / weight.shape[1] ** 0.5
            weight.data.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
        self._parameters = {
            self._peft_name(name): parameter
            for name, parameter in self._suffix.shell.named_parameters()
            if f".{_ADAPTER}." in name
        }
        for parameter in self._parameters.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    @staticmethod
    def _peft_name(name: str) -> str:
        return _PREFIX + name.replace(f".{_ADAPTER}.", ".")

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The trained parameters, float32, by their names in PEFT's files."""
        return self._parameters

    def train(self, mode: bool = True) -> None:
        """Switch the module's own dropout on or off; the frozen layers never drop anything."""
        for layer in self._layers.values():
            layer.lora_dropout.train(mode)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights of a module of the same shape.

        Raises:
            CorruptionError: A tensor is missing, surplus or of another shape.
        """
        if _shapes(tensors) != _shapes(self._parameters):
            raise CorruptionError("the stored module is not of these settings: its tensors have other names or shapes")
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the weights under PEFT's names."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}

    def represent(self, batch: Batch) -> Tensor:
        """Return the representations `[n, R]`, float32, of a batch."""
        tokens = int(batch.mask.sum()) * self.backbone.suffix_share
        self.backbone.meter.tokens += tokens
        if torch.is_grad_enabled():
            self.backbone.meter.trained_tokens += tokens
        with self.backbone.autocast():
            hidden = self._suffix(batch.ids, batch.mask, batch.hidden)
        return self.backbone.pooling(hidden, batch)


def _take_quickest_attention(shell: nn.Module, backbone: Backbone) -> None:
    """Switch a suffix to be trained to plain attention where torch's fused kernel has a slow backward pass."""
    quick = backbone.device.type != "cpu" or backbone.dtype == torch.float32 or backbone.max_tokens > EAGER_TOKENS
    if not quick and isinstance(shell, PreTrainedModel):
        shell.set_attn_implementation("eager")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True)
class ModuleWeights:
    """A trained module with its head, as the bank wants it.

    Attributes:
        maps: Path of a linear map in the backbone to its (A `[r, in]`, B `[out, r]`), B scaled by alpha / r.
        weight: The head's weight `[labels, R]`.
        bias: The head's bias `[labels]`.
    """

    maps: Mapping[str, tuple[Tensor, Tensor]]
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any], head: Mapping[str, Tensor]) -> ModuleWeights:
        """Read a module from the tensors and the document of PEFT's format and a linear head's tensors.

        Raises:
            CorruptionError: A tensor is missing or surplus.
        """
        scale = float(config["lora_alpha"]) / int(config["r"])
        stems = [name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)]
        expected = {f"{stem}{end}" for stem in stems for end in (_DOWN, _UP)}
        if expected != tensors.keys() or head.keys() != {"weight", "bias"}:
            wrong = sorted((expected ^ tensors.keys()) | (head.keys() ^ {"weight", "bias"}))
            raise CorruptionError(f"a stored module has missing or surplus tensors: {', '.join(wrong)}")
        maps = {
            stem.removeprefix(_PREFIX): (tensors[f"{stem}{_DOWN}"], tensors[f"{stem}{_UP}"] * scale) for stem in stems
        }
        return cls(maps, head["weight"], head["bias"])


HEAD = "head"
"""Stem of a module's head: its tensors, and a document that says of what kind it is."""


@dataclass(frozen=True, slots=True)
class StoredModule:
    """A module in the store, read when it is needed.

    Attributes:
        name: What identifies it: equal names are the same module.
        reader: The object with the adapter and the head.
    """

    name: Hashable
    reader: Readable = field(compare=False)

    @classmethod
    def of(cls, reader: Readable) -> StoredModule:
        """Name a module by the object it lies in."""
        return cls(reader.folder, reader)

    def weights(self) -> ModuleWeights:
        """Read the module.

        Raises:
            CorruptionError: A tensor is missing or surplus.
        """
        head = self.reader.tensors(HEAD)
        return ModuleWeights.of(self.reader.tensors(ADAPTER_TENSORS), self.reader.document(ADAPTER_CONFIG), head)


def module_artifact(module: PetModule, head: nn.Linear, head_document: Mapping[str, Any], **more: Any) -> Artifact:
    """Put a trained module and its linear head into an artifact.

    Args:
        module: The module.
        head: The head.
        head_document: What its outputs stand for; stored beside its kind.
        more: Further tensors, by stem.
    """
    head_tensors = {"weight": head.weight.detach().cpu().clone(), "bias": head.bias.detach().cpu().clone()}
    return Artifact(
        tensors={ADAPTER_TENSORS: module.tensors(), HEAD: head_tensors, **more},
        documents={ADAPTER_CONFIG: config_document(module.config), HEAD: {"kind": "linear", **head_document}},
    )


def config_document(config: PeftConfig) -> dict[str, Any]:
    """Return PEFT's configuration as it writes it, sets as sorted lists."""
    document = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in document.items()}
