"""Orthogonal low-rank adaptation: every task in directions of its own, nothing replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from conpet.config import MethodConfig, Settings, TaskSettings
from conpet.errors import ConfigError
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.static import StaticMethod
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS, Adapter
from conpet.modules.kinds.lora import DOWN, LoraConfig, concatenated
from conpet.modules.module import PetModule


class OLoraConfig(MethodConfig):
    """Options of the method.

    Attributes:
        orthogonality: The paper's lambda_1.
    """

    orthogonality: Annotated[float, Field(ge=0)] = 0.5


class OLoraMethod(StaticMethod):
    """Orthogonal LoRA, O-LoRA (Wang et al. 2023, arXiv 2310.14152, section 3), replay-free.

    Every task t trains a LoRA (A_t, B_t) of its own; those before it are frozen, and all updates are summed in every
    adapted map: W x + s sum_{i <= t} B_i A_i x. The rows of A_t are kept orthogonal to those of the A before it (the
    paper's L_orth), so that the new task reads directions of its input that the old ones do not:

        L = -1/n sum_j log softmax(W f(x_j) + b)[y_j] + lambda sum_{i < t} |A_i A_t^T|_F^2, summed over the maps

    Stored: all LoRA modules, as one of rank r t (`concatenated`), and the head. So the trained parameters of a task
    stay as few as ever, but the served module, and what it costs to run it, grow slowly with t. The paper merges the
    updates into the weights instead, which a frozen backbone that is shared with other workspaces forbids. A task
    that is removed or learned anew leaves its LoRA in the sum: later ones were trained over it.

    Not comparable: the paper tunes a model that generates its answers, where no output belongs to a task. Here one
    head over all labels is trained on new examples alone, and orthogonal updates do nothing against its forgetting.
    """

    name = "o-lora"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

    Config = OLoraConfig
    config: OLoraConfig

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` unless modules are plain LoRA, of one shape."""
        super().check_task(settings, task)
        module = settings.module
        if not isinstance(module, LoraConfig) or module.dora:
            raise ConfigError(
                f"method {cls.name!r} sums LoRA modules: use module.kind=lora without dora, or another method"
            )

    def started(self, seed: int) -> PetModule:
        """Return a new LoRA over the stored ones."""
        return PetModule(self.backbone, self.settings.for_task({}), seed, past=self.past)

    @property
    def past(self) -> Adapter | None:
        """The sum of the LoRA modules of all tasks so far, as one."""
        if self.last is None:
            return None
        return Adapter(self.last.tensors(ADAPTER_TENSORS), self.last.document(ADAPTER_CONFIG))

    def before(self, batches: ReplayBatches) -> None:
        """Note the directions that are taken: all earlier A of a map, one below the other `[r (t - 1), in]`."""
        taken = self.past.tensors if self.past else {}
        batches.notes = {name: a.to(batches.backbone.device) for name, a in taken.items() if name.endswith(DOWN)}

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy, and how far the new LoRA reads directions that are taken."""
        taken: Mapping[str, Tensor] = batches.notes
        return super().loss(batches, step) + self.config.orthogonality * overlap(taken, batches.module.parameters)

    def answering(self, batches: ReplayBatches) -> Adapter:
        """Return all LoRA modules as one."""
        new = batches.module.adapter()
        return concatenated([self.past, new] if self.past else [new])


def overlap(taken: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over maps of |A' A^T|_F^2, with all earlier A of a map in A': a scalar.

    Args:
        taken: A' of each map `[m, in]`, by the name of its A.
        parameters: A `[r, in]` by name, among others.
    """
    terms = [(earlier @ parameters[name].T).square().sum() for name, earlier in taken.items()]
    return torch.stack(terms).sum() if terms else torch.tensor(0.0)
