"""A module folded into the frozen backbone: a LoRA on all layers, trained by a warm-up or a consolidation.

A backbone contains at most one: each is trained over the original weights and replaces the former one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from conpet.artifact import Artifact, ObjectReader
from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.frozen_linear import with_maps
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS, MapUpdate, digest_tensors
from conpet.modules.folded_info import FOLDED, FoldedNote, Producer
from conpet.modules.kinds.lora import UP
from conpet.modules.kinds.settings import LoraConfig
from conpet.modules.module import StoredModule
from conpet.modules.training import TrainedModule, TrainingJob, Watch, train_module


def all_layers(loaded: Loaded, like: Backbone) -> Backbone:
    """Return a backbone whose suffix is the whole model, for training a module to fold into it."""
    shallowest = (1,) if like.cut.layers else None
    return Backbone(
        loaded,
        frozen_layers=0,
        feature_layers=shallowest,
        max_tokens=like.max_tokens,
        pooling=like.pooling,
    )


def train_to_fold(
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


def folded_artifact(trained: TrainedModule, producer: Producer, tasks: Sequence[str], examples: int) -> Artifact:
    """Return the object to store: the module in PEFT's format and its `FoldedNote`, but not its head.

    Args:
        trained: The module.
        producer: The operation that trained it.
        tasks: Names of the tasks it was trained on.
        examples: Number of training examples that these tasks were learned from.
    """
    adapter = trained.module.adapter()
    note = FoldedNote(producer, tuple(tasks), examples, digest_tensors(adapter.tensors))
    return Artifact(
        tensors={ADAPTER_TENSORS: adapter.tensors},
        documents={ADAPTER_CONFIG: adapter.document, FOLDED: note.to_json()},
    )


def interpolated(module: Artifact, share: float) -> Artifact:
    """Return a module to fold that makes only a share of its change to the weights.

    The weights are then between the original and the tuned ones (Wortsman et al. 2022, arXiv 2109.01903).

    Args:
        module: See `folded_artifact`; a LoRA.
        share: Above 0 and up to 1.
    """
    tensors = {
        name: value * share if name.endswith(UP) else value for name, value in module.tensors[ADAPTER_TENSORS].items()
    }
    note = {**module.documents[FOLDED], "digest": digest_tensors(tensors)}
    return Artifact({ADAPTER_TENSORS: tensors}, {**module.documents, FOLDED: note})


def folded(loaded: Loaded, stored: ObjectReader) -> Loaded:
    """Return a copy of a model with a module folded into its weights; the model itself is unchanged.

    Each adapted map becomes `W + scale B A`, added in float32. The new fingerprint includes the module's digest, so
    states computed before and after are never confused.
    """
    maps = {path: module for path, module in loaded.model.named_modules() if isinstance(module, nn.Linear)}
    updates = StoredModule.of(stored).weights(maps)
    model = with_maps(loaded.model, {maps[path]: _updated(maps[path], update) for path, update in updates.items()})
    fingerprint = loaded.fingerprint.changed_by(FoldedNote.of(stored).digest)
    return replace(loaded, model=model, fingerprint=fingerprint)


def _updated(base: nn.Linear, update: MapUpdate) -> nn.Linear:
    """Return a map with a LoRA added to its weight; the bias is shared."""
    assert update.down is not None and update.up is not None, "only a LoRA is folded"  # noqa: S101, PT018
    weight = base.weight.detach()
    change = update.up.float() @ update.down.float()
    updated = nn.Linear(base.in_features, base.out_features, device="meta")
    updated.weight = nn.Parameter((weight.float() + change.to(weight.device)).to(weight.dtype), requires_grad=False)
    updated.bias = base.bias
    return updated.eval()
