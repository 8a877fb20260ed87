"""A PET module: inserted into its own suffix, trained there, and stored with its head."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from conpet.artifact import Artifact, ObjectReader
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch
from conpet.config import TaskSettings
from conpet.cost import meter
from conpet.errors import ConfigError, CorruptionError
from conpet.heads.base import HEAD
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS, Adapter, MapUpdate
from conpet.modules.kinds import MODULE_KINDS, kind_of_document
from conpet.modules.kinds.base import ModuleKind
from conpet.modules.kinds.lora import freeze_beneath
from conpet.modules.kinds.settings import LoraConfig
from conpet.modules.low_rank import LowRankLinear, low_rank_maps

EAGER_TOKENS = 256
"""Up to this length, eager attention trains faster than the fused kernel on a CPU in bfloat16 (5x at 16 tokens)."""


class PetModule:
    """A module that can be trained: PET layers in its own suffix, over the shared frozen weights.

    Args:
        backbone: The frozen model.
        settings: Settings of the module and its training.
        seed: Seed of the initial weights.
        past: A frozen LoRA on the same maps whose update is added to this LoRA's. It is not part of `parameters` or
            `tensors` (`conpet.modules.kinds.lora.concatenated` joins the two for the store).

    Raises:
        ConfigError: The module does not fit the suffix, or `past` does not fit the module.
    """

    _micro_batch_tokens: int | None = None
    _offloads = False

    def __init__(self, backbone: Backbone, settings: TaskSettings, seed: int, *, past: Adapter | None = None) -> None:
        config, training = settings.module, settings.training
        kind: ModuleKind = MODULE_KINDS[config.kind]()
        self._inject(backbone, kind, kind.document(backbone, config), seed)
        self._micro_batch_tokens, self._offloads = training.micro_batch_tokens, training.offload_activations
        if past is not None:
            if not isinstance(config, LoraConfig) or config.dora:
                raise ConfigError(
                    "only a plain LoRA can be trained on top of a past one: use module.kind=lora with module.dora=false"
                )
            freeze_beneath(self._suffix, past)

    def _inject(self, backbone: Backbone, kind: ModuleKind, document: Mapping[str, Any], seed: int) -> None:
        self.backbone = backbone
        self.document = document
        self._suffix = backbone.suffix()
        _use_fastest_attention(self._suffix.shell, backbone)
        injected = kind.inject(backbone, self._suffix, document, torch.Generator().manual_seed(seed))
        self._parameters, self._dropouts = injected.parameters, injected.dropouts
        self.train(False)  # dropout layers start active, but a module that only runs must not drop anything
        for parameter in self._parameters.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    @classmethod
    def of(cls, backbone: Backbone, adapter: Adapter) -> Self:
        """Insert a stored module into its own suffix.

        Raises:
            CorruptionError: Its kind is unknown, or a tensor is missing, unexpected or of the wrong shape.
        """
        module = cls.__new__(cls)
        module._inject(backbone, kind_of_document(adapter.document), adapter.document, seed=0)
        module.load(adapter.tensors)
        return module

    def batch_with(self, others: Sequence[PetModule]) -> None:
        """Run other modules in this module's passes, each on its own rows; `share` sets how many.

        Args:
            others: Modules whose kind and settings allow it (`ModuleKind.trains_batched`); empty to stop.
        """
        maps = [other._low_rank_maps for other in others]
        for path, layer in self._low_rank_maps.items():
            layer.batch_with([other_maps[path] for other_maps in maps])

    def share(self, examples: Sequence[int]) -> None:
        """Set how many examples of the next batch belong to this module and to each other one, in this order."""
        for layer in self._low_rank_maps.values():
            layer.share(examples)

    @cached_property
    def _low_rank_maps(self) -> Mapping[str, LowRankLinear]:
        return low_rank_maps(self._suffix.shell)

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The trained parameters, float32, by their names on disk."""
        return self._parameters

    def train(self, mode: bool = True) -> None:
        """Switch the module's own dropout on or off; the frozen layers never drop anything."""
        for dropout in self._dropouts:
            dropout.train(mode)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the weights of a module of the same shape.

        Raises:
            CorruptionError: A tensor is missing, unexpected or of the wrong shape.
        """
        if _shapes(tensors) != _shapes(self._parameters):
            raise CorruptionError(
                "the tensors of a stored module do not match its settings (other names or shapes); restore the "
                "workspace from a backup"
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the weights, by their names on disk."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}

    def adapter(self) -> Adapter:
        """Return a copy of the module, in stored form."""
        return Adapter(self.tensors(), self.document)

    def represent(self, batch: Batch) -> Tensor:
        """Return the representations `[n, R]`, float32, of a batch."""
        tokens = batch.tokens * self.backbone.suffix_share
        meter().tokens += tokens
        meter().module_tokens += tokens
        if not torch.is_grad_enabled():
            return self._forward(batch)
        meter().trained_tokens += tokens
        rows, width = batch.ids.shape
        rows_per_pass = max(1, (self._micro_batch_tokens or batch.ids.numel()) // width)
        with _saved_activations(self.backbone.device, offload=self._offloads):
            if rows <= rows_per_pass:
                return self._forward(batch)
            meter().tokens += tokens  # each part runs again in the backward pass
            meter().module_tokens += tokens
            parts = [batch.rows(start, start + rows_per_pass) for start in range(0, rows, rows_per_pass)]
            return torch.cat([checkpoint(self._forward, part, use_reentrant=False) for part in parts])

    def _forward(self, batch: Batch) -> Tensor:
        with self.backbone.autocast():
            hidden = self._suffix(batch.ids, batch.padding, batch.hidden)
        return self.backbone.pooling(hidden, batch)


def _saved_activations(device: torch.device, *, offload: bool) -> AbstractContextManager[object]:
    """Return a context in which activations stay on the device, or are offloaded to host memory.

    Copies overlap with computation.
    """
    return save_on_cpu(pin_memory=True) if offload and device.type != "cpu" else nullcontext()


def _use_fastest_attention(shell: nn.Module, backbone: Backbone) -> None:
    """Use eager attention in a suffix where the backward pass of torch's fused kernel is slower."""
    fused_is_faster = (
        backbone.device.type != "cpu" or backbone.dtype == torch.float32 or backbone.max_tokens > EAGER_TOKENS
    )
    if not fused_is_faster and isinstance(shell, PreTrainedModel):
        shell.set_attn_implementation("eager")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


@dataclass(frozen=True)
class StoredModule:
    """A module in the store, read on demand.

    Attributes:
        name: Identity: equal names are the same module.
        reader: The object with the adapter and the head.
    """

    name: Hashable
    reader: ObjectReader = field(compare=False)

    @classmethod
    def of(cls, reader: ObjectReader) -> StoredModule:
        """Return the module in a stored object, named by the object's key."""
        return cls(reader.key, reader)

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The configuration."""
        document: Mapping[str, Any] = self.reader.document(ADAPTER_CONFIG)
        return document

    @cached_property
    def kind(self) -> ModuleKind:
        """The kind of module.

        Raises:
            CorruptionError: The kind is unknown.
        """
        return kind_of_document(self.document)

    def adapter(self) -> Adapter:
        """Read the module without its head."""
        return Adapter(self.reader.tensors(ADAPTER_TENSORS), self.document)

    def weights(self, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate]:
        """Read the updates of a batched kind of module to the linear maps of a suffix, by path.

        Raises:
            CorruptionError: A tensor is missing or unexpected, or belongs to a map that does not exist.
        """
        maps = self.kind.updates(self.adapter(), bases)
        assert maps is not None, f"{self.kind.name} is not batched"  # noqa: S101
        return maps


def module_artifact(
    adapter: Adapter, head: Mapping[str, Tensor], document: Mapping[str, Any], **more: Mapping[str, Tensor]
) -> Artifact:
    """Return the artifact of a module and its head.

    Args:
        adapter: The module.
        head: The head's tensors.
        document: The head's document (see `conpet.heads.base`).
        more: Further tensors, by stem.
    """
    return Artifact(
        tensors={ADAPTER_TENSORS: adapter.tensors, HEAD: head, **more},
        documents={ADAPTER_CONFIG: adapter.document, HEAD: dict(document)},
    )
