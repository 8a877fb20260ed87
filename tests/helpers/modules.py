"""PET modules of every kind on tiny backbones."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.config import Settings, TaskSettings
from conpet.heads.labels import LabelHead, label_document
from conpet.modules.kinds import MODULE_KINDS
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.pool import ModulePool
from conpet.modules.training import TrainingJob
from tests.helpers.backbones import EXAMPLES, tiny_backbone

TARGETS = torch.tensor([0, 1, 0, 1, 2])
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"module": "lora"},
    "rslora": {"module": {"rslora": True, "rank": 4}},
    "dora": {"module": {"dora": True}},
    "rsdora": {"module": {"dora": True, "rslora": True}},
    "ia3": {"module": "ia3"},
    "houlsby": {"module": {"kind": "houlsby", "width": 5}},
    "pfeiffer": {"module": {"kind": "pfeiffer", "width": 3}},
    "prefix": {"module": {"kind": "prefix", "tokens": 3}},
}
SMALL = Settings.parse({"module": {"rank": 2}, "training": {"epochs": 2, "batch_size": 2, "learning_rate": 0.01}})
IN_PEFT = [name for name, values in VARIANTS.items() if MODULE_KINDS[SMALL.changed(values).module.kind].in_peft]
ARCHITECTURES = ("llama", "bert")


def settings(variant: str, **values: Any) -> TaskSettings:
    """Return the settings of a variant, with small sizes; `values` are sections or dotted keys in their place."""
    return SMALL.changed(VARIANTS[variant]).for_task(values)


@cache
def bench(architecture: str, frozen_layers: int = 2) -> Backbone:
    return tiny_backbone(architecture, frozen_layers=frozen_layers)


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


def job(backbone: Backbone, settings: TaskSettings, seed: int = 0, **more: Any) -> TrainingJob:
    """Return the job of learning the labels of the examples."""
    answers = [str(target) for target in TARGETS.tolist()]
    job = TrainingJob.over_labels(backbone.states(EXAMPLES), answers, ["0", "1", "2"], settings, seed)
    return replace(job, **more)


def artifact(module: PetModule, head: nn.Linear) -> Artifact:
    """Return a module and its head as they are stored."""
    labels = [str(label) for label in range(head.out_features)]
    return module_artifact(module.adapter(), LabelHead().tensors(head), label_document(labels))


def stored(module: PetModule, head: nn.Linear) -> StoredModule:
    return StoredModule.of(InMemoryObject(artifact(module, head)))
