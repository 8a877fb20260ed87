"""The rivals: code that a careful user of Transformers and PEFT would write, without conpet's engine.

They share with conpet what makes the work equal: weights, token ids, batches, pooling and schedule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from benchmarks.speed.timing import timed
from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.load import find_folder
from conpet.backbone.states import Encoded, pad_ids
from conpet.config import TaskSettings
from conpet.modules.optimisation import epoch_batches


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch of token ids: ids `[n, T]`, their mask (None without padding), and the row numbers."""

    ids: Tensor
    mask: Tensor | None
    slots: Tensor
    rows: list[int]


def padded(encoded: Sequence[Encoded], rows: Sequence[int], backbone: Backbone) -> Padded:
    """Return some examples as a batch on the backbone's device."""
    chosen = [encoded[row] for row in rows]
    ids, mask = pad_ids(chosen, backbone.encoder.pad)
    slots = torch.tensor([example.slot for example in chosen])
    needed = None if bool(mask.all()) else mask.to(backbone.device)
    return Padded(ids.to(backbone.device), needed, slots.to(backbone.device), list(rows))


def by_length(encoded: Sequence[Encoded], backbone: Backbone) -> list[Padded]:
    """Return all examples in batches of similar length, the same batches as conpet."""
    return [padded(encoded, rows, backbone) for rows in backbone.batching.batches([len(row.ids) for row in encoded])]


def hidden_of(model: nn.Module, batch: Padded, **more: Any) -> Tensor:
    """Return a model's last hidden states `[n, T, d]`."""
    hidden: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask, **more).last_hidden_state
    return hidden


def plain_model(loaded: Loaded) -> Any:
    """Return a model with these weights as Transformers makes it: conpet's has other linear maps."""
    folder = find_folder(loaded.name)
    model: Any = AutoModel.from_pretrained(folder, dtype=loaded.dtype, attn_implementation="sdpa").to(loaded.device)
    model.load_state_dict(loaded.model.state_dict())
    return model.eval().requires_grad_(False)


def plain_forward(model: nn.Module, batches: Sequence[Padded]) -> list[Tensor]:
    """Run a model over batches and return only its last states."""
    with torch.inference_mode():
        return [hidden_of(model, batch, **no_cache(model)) for batch in batches]


def no_cache(model: Any) -> dict[str, bool]:
    """Return the arguments that keep a causal model from collecting unused keys and values."""
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


def represent(hidden: Tensor, batch: Padded) -> Tensor:
    """Return the state at the slot, the mean over all tokens except the first, and zeros `[n, 3d]`, float32."""
    rows = torch.arange(len(batch.slots), device=hidden.device)
    mask = torch.ones_like(batch.ids) if batch.mask is None else batch.mask
    inner = mask.float()
    inner[inner.sum(1) > 1, 0] = 0
    mean = (hidden.float() * inner.unsqueeze(2)).sum(1) / inner.sum(1, keepdim=True)
    return torch.cat([hidden[rows, batch.slots].float(), mean, torch.zeros_like(mean)], dim=1)


class PeftLoop:
    """LoRA by PEFT and a linear head, trained by the usual loop: AdamW, warm-up and linear decay, clipped gradients.

    Tuned for speed: batches of similar length, frozen weights in their number format under autocast, trained weights in
    float32, fused AdamW, no keys and values collected, and the faster of two kinds of attention.

    Args:
        backbone: Source of weights and token ids; its model is copied.
        settings: Rank, epochs, learning rate.
        layers: Layers that get LoRA; None for all.
    """

    def __init__(self, backbone: Backbone, settings: TaskSettings, layers: Sequence[int] | None) -> None:
        self.backbone = backbone
        self.settings = settings
        self.layers = layers
        self.base: Any = plain_model(backbone.loaded)
        self.attention = "sdpa"

    def choose_attention(self, encoded: Sequence[Encoded], targets: Tensor) -> None:
        """Choose the attention with the fastest training steps."""
        seconds: dict[str, list[float]] = {"sdpa": [], "eager": []}
        for _ in range(3):  # the first round includes one-time setup
            for attention, measured in seconds.items():
                self.attention = attention
                measured.append(timed(lambda: self.train(encoded, targets, steps=4))[1])
        self.attention = min(seconds, key=lambda attention: min(seconds[attention]))

    def train(
        self,
        encoded: Sequence[Encoded],
        targets: Tensor,
        *,
        seed: int = 0,
        start: dict[str, Tensor] | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        save: Path | None = None,
        done: Callable[[Callable[[Sequence[Encoded]], Tensor]], None] | None = None,
    ) -> list[float]:
        """Train a new module and head; return the loss of every step.

        Args:
            encoded: n examples.
            targets: Their labels `[n]`, as indices from 0.
            seed: Seed of the order of the examples.
            start: Initial weights by PEFT's names; None for PEFT's initialisation.
            epochs: Number of epochs; None for the settings' value.
            steps: Number of steps, instead of whole epochs.
            save: Folder to save the module to.
            done: Called after training, with a function from examples to logits.
        """
        training, device = self.settings.training, self.backbone.device
        self.base.set_attn_implementation(self.attention)
        model: Any = get_peft_model(self.base, self._config())
        if start is not None:
            set_peft_model_state_dict(model, start)
        head = nn.Linear(self.backbone.representation_size, int(targets.max()) + 1, device=device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        trained = [*(weight for weight in model.parameters() if weight.requires_grad), *head.parameters()]
        optimizer = torch.optim.AdamW(
            trained, lr=training.learning_rate, weight_decay=training.weight_decay, eps=1e-6, fused=True
        )
        lengths = [len(example.ids) for example in encoded]
        per_epoch = -(-len(encoded) // training.batch_size)
        total = steps or (epochs or training.epochs) * per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, total))
        losses: list[float] = []
        model.eval()  # there is no dropout
        for epoch in range(-(-total // per_epoch)):
            order = epoch_batches(lengths, training.batch_size, torch.Generator().manual_seed(seed + epoch))
            for rows in order[: total - len(losses)]:
                logits = head(self._represented(model, padded(encoded, rows, self.backbone)))
                loss = nn.functional.cross_entropy(logits, targets[rows].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
        if done is not None:
            done(lambda examples: self._logits(model, head, examples))
        if save is not None:
            model.save_pretrained(save)
        self.base = model.unload()
        return losses

    def _config(self) -> LoraConfig:
        module: Any = self.settings.module
        where: dict[str, Any] = {}
        if self.layers is not None:
            assert self.backbone.cut.path is not None
            where = {
                "layers_to_transform": list(self.layers),
                "layers_pattern": self.backbone.cut.path.rpartition(".")[2],
            }
        return LoraConfig(r=module.rank, lora_alpha=module.alpha, target_modules=_maps(self.backbone), **where)

    def _represented(self, model: nn.Module, batch: Padded) -> Tensor:
        half = self.backbone.dtype is not torch.float32
        with torch.autocast(self.backbone.device.type, self.backbone.dtype) if half else nullcontext():
            hidden = hidden_of(model, batch, **no_cache(self.base))
        return represent(hidden, batch)

    def _logits(self, model: nn.Module, head: nn.Linear, encoded: Sequence[Encoded]) -> Tensor:
        logits = torch.zeros(len(encoded), head.out_features)
        with torch.inference_mode():
            for batch in by_length(encoded, self.backbone):
                logits[batch.rows] = head(self._represented(model, batch)).cpu()
        return logits


def _maps(backbone: Backbone) -> list[str]:
    """Return the leaf names of all linear maps in the layers."""
    layers = backbone.cut.model.get_submodule(str(backbone.cut.path))
    return sorted({name.rpartition(".")[2] for name, module in layers.named_modules() if isinstance(module, nn.Linear)})


def _share(step: int, steps: int) -> float:
    """Return the fraction of the highest learning rate: warm-up over a tenth of the steps, then linear decay to 0."""
    warm = max(1, round(steps / 10))
    return (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)


class Mixed:
    """Many LoRA modules in one PEFT model; every row of a batch has its own module (`adapter_names`)."""

    def __init__(self, backbone: Backbone, config: dict[str, Any], modules: Sequence[dict[str, Tensor]]) -> None:
        peft_config = LoraConfig(**config)
        half = {} if backbone.dtype is torch.float32 else {"autocast_adapter_dtype": False}
        base = plain_model(backbone.loaded)
        self.names = [f"m{number}" for number in range(len(modules))]
        self.model: Any = PeftModel(base, peft_config, adapter_name=self.names[0], **half)
        for name in self.names[1:]:
            self.model.add_adapter(name, peft_config, **half)
        for name, tensors in zip(self.names, modules, strict=True):
            set_peft_model_state_dict(self.model, tensors, adapter_name=name)
        self.model.to(backbone.dtype).eval()

    def __call__(self, batch: Padded) -> Tensor:
        """Return the representations `[n, R]` of a batch whose row i uses module i."""
        with torch.inference_mode():
            return represent(hidden_of(self.model, batch, adapter_names=self.names, **no_cache(self.model)), batch)


def exported_logits(backbone: Backbone, folder: Path, encoded: Encoded) -> Tensor:
    """Return the logits of an example from an exported module loaded by PEFT."""
    model = PeftModel.from_pretrained(plain_model(backbone.loaded), folder).to(backbone.dtype).eval()
    batch = padded([encoded], [0], backbone)
    head = {name: value.to(backbone.device) for name, value in load_file(folder / "head.safetensors").items()}
    with torch.inference_mode():
        return nn.functional.linear(represent(hidden_of(model, batch), batch), head["weight"], head["bias"])[0].cpu()


def exported_labels(folder: Path) -> list[str]:
    """Return the labels of an exported head, in the order of its outputs."""
    labels: list[str] = json.loads((folder / "head.json").read_text(encoding="utf-8"))["labels"]
    return labels
