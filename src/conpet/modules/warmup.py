"""Warm-up: a module tuned on all layers with the first task, then folded into the backbone and frozen for ever."""

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
    """Return the backbone whose suffix is the whole model: what a warm-up is trained in."""
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
    """Tune a LoRA on all layers (first-session adaptation: McDonnell et al. 2023, RanPAC, section 3).

    Args:
        backbone: See `all_layers`.
        job: What to learn. The module is a plain LoRA whatever its settings say, for it can be folded in.
        checkpoint: As in `train_module`.
        on_step: As in `train_module`.
        watch: As in `train_module`.
    """
    module = job.settings.module
    plain = module.model_copy(update={"dora": False}) if isinstance(module, LoraConfig) else LoraConfig()
    lora = replace(job, settings=job.settings.model_copy(update={"module": plain}))
    return train_module(backbone, lora, checkpoint=checkpoint, on_step=on_step, watch=watch)


def warmup_artifact(trained: TrainedModule, task: str) -> Artifact:
    """Return what is stored of a warm-up: a module in PEFT's format, and its digest."""
    artifact = trained.artifact()
    note = WarmupNote(task, digest_tensors(artifact.tensors[ADAPTER_TENSORS]))
    return replace(artifact, documents={**artifact.documents, WARMUP: note.to_json()})


def warmed(loaded: Loaded, stored: ObjectReader) -> Loaded:
    """Return a copy of a model with a warm-up folded into its weights; the model itself stays as it is.

    Every adapted map becomes `W + scale B A`, added in float32. The fingerprint changes with the warm-up's digest, so
    no state computed before is ever taken for one computed after.
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
