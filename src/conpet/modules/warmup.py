"""Warm-up: a module tuned on all layers with the first task, then folded into the backbone and frozen for ever."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.states import States
from conpet.config import TaskSettings
from conpet.modules.adapter import ADAPTER_TENSORS, digest_tensors
from conpet.modules.kinds.lora import Lora
from conpet.modules.module import StoredModule, module_artifact
from conpet.modules.training import TrainedModule, Watch, train_module
from conpet.modules.warmup_info import WARMUP, WarmupNote
from conpet.readable import Readable


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
    states: States,
    targets: Tensor,
    labels: Sequence[str],
    settings: TaskSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    watch: Watch | None = None,
) -> TrainedModule:
    """Tune a LoRA on all layers (first-session adaptation: McDonnell et al. 2023, RanPAC, section 3).

    Args:
        backbone: See `all_layers`.
        states: Its states of the n training examples.
        targets: Index of each one's label `[n]`.
        labels: The labels.
        settings: Rank, targets, epochs, rates; the kind is plain LoRA whatever they say, for it can be folded in.
        seed: Seed of the first weights and of the order of examples.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called with the number of steps done and of all steps.
        watch: As in `train_module`.
    """
    lora = settings.model_copy(update={"pet": Lora.name, "dora": False})
    return train_module(
        backbone, states, targets, len(labels), lora, seed, checkpoint=checkpoint, on_step=on_step, watch=watch
    )


def warmup_artifact(trained: TrainedModule, task: str, labels: Sequence[str]) -> Artifact:
    """Return what is stored of a warm-up: a module in PEFT's format, and its digest."""
    artifact = module_artifact(trained.module, trained.head, {"labels": list(labels)})
    note = WarmupNote(task, digest_tensors(artifact.tensors[ADAPTER_TENSORS]))
    return replace(artifact, documents={**artifact.documents, WARMUP: note.to_json()})


def warmed(loaded: Loaded, stored: Readable) -> Loaded:
    """Return a copy of a model with a warm-up folded into its weights; the model itself stays as it is.

    Every adapted map becomes `W + scale B A`, added in float32. The fingerprint changes with the warm-up's digest, so
    no state computed before is ever taken for one computed after.
    """
    model: nn.Module = copy.deepcopy(loaded.model)
    maps = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    with torch.no_grad():
        for path, update in StoredModule.of(stored).weights(maps).maps.items():
            assert update.down is not None and update.up is not None, "a warm-up is a LoRA"  # noqa: S101, PT018
            weight = maps[path].weight
            change = update.up.float() @ update.down.float()
            weight.copy_((weight.float() + change.to(weight.device)).to(weight.dtype))
    fingerprint = loaded.fingerprint.changed_by(WarmupNote.of(stored).digest)
    return replace(loaded, model=model, fingerprint=fingerprint)
