"""PET modules of every kind on tiny backbones."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from conpet.artifact import InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.config import Settings, TaskSettings
from conpet.modules.kinds import MODULE_KINDS
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.pool import ModulePool
from tests.helpers.backbones import EXAMPLES, tiny_backbone

TARGETS = torch.tensor([0, 1, 0, 1, 2])
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"pet": "lora"},
    "rslora": {"pet": "lora", "rslora": True, "rank": 4},
    "dora": {"pet": "lora", "dora": True},
    "rsdora": {"pet": "lora", "dora": True, "rslora": True},
    "ia3": {"pet": "ia3"},
    "houlsby": {"pet": "houlsby", "bottleneck": 5},
    "pfeiffer": {"pet": "pfeiffer", "bottleneck": 3},
    "prefix": {"pet": "prefix", "prefix_tokens": 3},
}
IN_PEFT = [name for name, values in VARIANTS.items() if MODULE_KINDS[values["pet"]].in_peft]
ARCHITECTURES = ("llama", "bert")


def settings(variant: str, **values: Any) -> TaskSettings:
    given = {"rank": 2, "epochs": 2, "batch_size": 2, "learning_rate": 0.01, **VARIANTS[variant], **values}
    return Settings.parse({}).for_task(given)


@cache
def bench(architecture: str, split: int = 2) -> Backbone:
    return tiny_backbone(architecture, split=split)


def digest(model: nn.Module) -> str:
    hasher = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


@torch.no_grad()
def represented(backbone: Backbone, module: PetModule) -> Tensor:
    return module.represent(backbone.states(EXAMPLES).collate(range(len(EXAMPLES)), pad=1, device=backbone.device))


def frozen(backbone: Backbone) -> Tensor:
    return ModulePool(backbone).represent(backbone.states(EXAMPLES), None)


def shaken(backbone: Backbone, variant: str, seed: int = 0, **values: Any) -> PetModule:
    """Return a module with every parameter moved away from where it began."""
    module = PetModule(backbone, settings(variant, **values), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters.values():
            parameter += torch.empty(parameter.shape).normal_(std=0.1, generator=generator)
    return module


def head_of(backbone: Backbone, seed: int, labels: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(backbone.representation_size, labels)


def stored(module: PetModule, head: nn.Linear) -> StoredModule:
    return StoredModule.of(InMemoryObject(module_artifact(module, head, {})))
