"""Warm-up: a LoRA trained on all layers with the first task, then merged into the frozen backbone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from conpet.artifact import Artifact, ObjectReader
from conpet.backbone.backbone import Backbone, Loaded
from conpet.modules.adapter import ADAPTER_TENSORS, digest_tensors
from conpet.modules.kinds.lora import LoraConfig
from conpet.modules.module import StoredModule
from conpet.modules.training import TrainedModule, TrainingJob, Watch, train_module
from conpet.modules.warmup_info import WARMUP, WarmupNote


def all_layers(loaded: Loaded, like: Backbone) -> Backbone:
    """Return a backbone whose suffix is the whole model, for training a warm-up."""
    shallowest = (1,) if like.cut.layers else None
    return Backbone(
        loaded,
        frozen_layers=0,
        feature_layers=shallowest,
        max_tokens=like.max_tokens,
        pooling=like.pooling,
    )


def train_warmup(
    backbone: Backbone,
    job: TrainingJob,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    watch: Watch | None = None,
) -> TrainedModule:
    """Train a LoRA on all layers (first-session adaptation: McDonnell et al. 2023, RanPAC, section 3).

    Args:
        backbone: See `all_layers`.
        job: The training job. Its module is replaced by a plain LoRA, which can be merged into the weights.
        checkpoint: As in `train_module`.
        on_step: As in `train_module`.
        watch: As in `train_module`.
    """
    module = job.settings.module
    plain = module.model_copy(update={"dora": False}) if isinstance(module, LoraConfig) else LoraConfig()
    lora = replace(job, settings=job.settings.model_copy(update={"module": plain}))
    return train_module(backbone, lora, checkpoint=checkpoint, on_step=on_step, watch=watch)


def warmup_artifact(trained: TrainedModule, task: str) -> Artifact:
    """Return the object to store for a warm-up: a module in PEFT's format, and its `WarmupNote`."""
    artifact = trained.artifact()
    note = WarmupNote(task, digest_tensors(artifact.tensors[ADAPTER_TENSORS]))
    return replace(artifact, documents={**artifact.documents, WARMUP: note.to_json()})


def warmed(loaded: Loaded, stored: ObjectReader) -> Loaded:
    """Return a copy of a model with a warm-up merged into its weights; the model itself is unchanged.

    Each adapted map becomes `W + scale B A`, added in float32. The new fingerprint includes the warm-up's digest, so
    states computed before and after are never confused.
    """
    model: nn.Module = copy.deepcopy(loaded.model)
    maps = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    with torch.no_grad():
        for path, update in StoredModule.of(stored).weights(maps).items():
            assert update.down is not None and update.up is not None, "a warm-up is a LoRA"  # noqa: S101, PT018
            weight = maps[path].weight
            change = update.up.float() @ update.down.float()
            weight.copy_((weight.float() + change.to(weight.device)).to(weight.dtype))
    fingerprint = loaded.fingerprint.changed_by(WarmupNote.of(stored).digest)
    return replace(loaded, model=model, fingerprint=fingerprint)
