"""Orthogonal low-rank adaptation: each task trains in its own directions, without replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from conpet.config import Settings, TaskSettings
from conpet.errors import ConfigError
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.settings import OLoraConfig
from conpet.methods.static import StaticMethod, stored_module
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS, Adapter
from conpet.modules.kinds.lora import DOWN, concatenated
from conpet.modules.kinds.settings import LoraConfig
from conpet.modules.module import PetModule
from conpet.state.state import State


class OLoraMethod(StaticMethod):
    """Orthogonal LoRA, O-LoRA (Wang et al. 2023, arXiv 2310.14152, section 3), replay-free.

    Each task t trains a new LoRA (A_t, B_t); earlier ones are frozen, and every adapted map sums all updates:
    W x + s sum_{i <= t} B_i A_i x. The loss keeps the rows of A_t orthogonal to those of all earlier A (the paper's
    L_orth), so that the new task reads directions of its input that the earlier ones do not:

        L = -1/n sum_j log softmax(W f(x_j) + b)[y_j] + lambda sum_{i < t} |A_i A_t^T|_F^2, summed over the maps

    Stored: all LoRA modules, as one of rank r t (`concatenated`), and the head. A task's number of trained parameters
    does not grow, but the module that answers, and the cost of running it, grow with t. The paper merges the updates
    into the weights instead, which is not possible here because workspaces share the frozen backbone. The LoRA of a
    task that is removed or learned again remains in the sum, because later ones were trained on top of it.

    Not comparable with the paper: there the model generates its answers, so no output belongs to a task. Here one head
    over all labels is trained on new examples only, and orthogonal updates do not prevent the head from forgetting.
    """

    name = "o-lora"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

    Config = OLoraConfig
    config: OLoraConfig

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` unless the module is a plain LoRA of the workspace's shape."""
        super().check_task(settings, task)
        module = settings.module
        if not isinstance(module, LoraConfig) or module.dora:
            raise ConfigError(
                f"method {cls.name!r} sums LoRA modules: use module.kind=lora without dora, or another method"
            )

    def initial_module(self, state: State, seed: int) -> PetModule:
        """Return a new LoRA on top of the stored ones."""
        return PetModule(self.backbone, self.settings.for_task({}), seed, past=past_updates(state))

    def before_training(self, batches: ReplayBatches) -> None:
        """Read the directions of earlier tasks: all earlier A of each map, stacked `[r (t - 1), in]`."""
        past = past_updates(batches.state)
        taken = past.tensors if past else {}
        batches.method_data = {name: a.to(batches.backbone.device) for name, a in taken.items() if name.endswith(DOWN)}

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy plus the overlap of the new LoRA with the directions of earlier tasks."""
        taken: Mapping[str, Tensor] = batches.method_data
        return super().loss(batches, step) + self.config.orthogonality * overlap(taken, batches.module.parameters)

    def answering_adapter(self, batches: ReplayBatches) -> Adapter:
        """Return all LoRA modules as one."""
        past, new = past_updates(batches.state), batches.module.adapter()
        return concatenated([past, new] if past else [new])


def past_updates(state: State) -> Adapter | None:
    """Return the LoRA modules of all tasks so far as one module, or None before the first task."""
    stored = stored_module(state)
    return Adapter(stored.tensors(ADAPTER_TENSORS), stored.document(ADAPTER_CONFIG)) if stored else None


def overlap(taken: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over maps of |A' A^T|_F^2, a scalar; A' stacks all earlier A of a map.

    Args:
        taken: A' `[m, in]` by the name of its A.
        parameters: The module's parameters by name; among them every A `[r, in]`.
    """
    terms = [(earlier @ parameters[name].T).square().sum() for name, earlier in taken.items()]
    return torch.stack(terms).sum() if terms else torch.tensor(0.0, dtype=torch.float32)
