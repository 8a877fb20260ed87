"""What tests of static methods ask of a workspace."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from conpet.data import Example
from conpet.learners.static import STATIC
from conpet.pet.module import ADAPTER_TENSORS, PetModule
from conpet.pet.train import represented
from conpet.workspace import ConPET


def representations(workspace: ConPET, examples: Sequence[Example]) -> Tensor:
    """Return how the stored module represents examples `[n, R]`."""
    module = PetModule(workspace.backbone, workspace.settings.for_task({}), seed=0)
    module.load(workspace.store.snapshot().shared[STATIC].tensors(ADAPTER_TENSORS))
    return represented(workspace.backbone, module, workspace.backbone.states(examples))
