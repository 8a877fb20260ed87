"""What tests of static methods ask of a workspace, and of the moment before a task is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conpet.api import ConPET
from conpet.context import TrainContext
from conpet.cost import CostLedger
from conpet.data import Example, Task
from conpet.methods.base import TaskData
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.static import STATIC, StaticMethod
from conpet.modules.module import ADAPTER_TENSORS, HEAD, PetModule
from conpet.modules.training import represented
from conpet.replay.memory import new_examples
from conpet.replay.memory_writer import past_examples
from conpet.state.reading import new_task_state
from conpet.testing import Trial, tiny_settings
from conpet.testing.checks import live_of


def representations(workspace: ConPET, examples: Sequence[Example]) -> Tensor:
    """Return how the stored module represents examples `[n, R]`."""
    module = PetModule(workspace.backbone, workspace.settings.for_task({}), seed=0)
    module.load(workspace.store.snapshot().shared[STATIC].tensors(ADAPTER_TENSORS))
    return represented(workspace.backbone, module, workspace.backbone.states(examples))


def start_task(workspace: ConPET, task: Task) -> tuple[StaticMethod, ReplayBatches]:
    """Return a workspace's method and the batches from which it is about to learn a task, all but the training."""
    live = live_of(workspace)
    method = live.method
    assert isinstance(method, StaticMethod)
    added = new_task_state(task, workspace.store.snapshot())
    task_data = TaskData.of(added, workspace.settings, new_examples(task), workspace.backbone)
    context = TrainContext(past_examples(workspace.tasks), CostLedger(), seed=0)
    batches = method.batches(live.state, task_data, context)
    method.before_training(batches)
    return method, batches


def shaken(batches: ReplayBatches) -> ReplayBatches:
    """Move all parameters of a training a little, so that nothing is where it was."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in batches.parameters.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return batches


def outputs(batches: ReplayBatches, step: TrainingStep) -> list[list[float]]:
    """Return the head's outputs for each example of a step."""
    with torch.no_grad():
        return list(batches.head(batches.represent(step)).tolist())


def gradients(loss: Tensor, batches: ReplayBatches) -> dict[str, Tensor]:
    """Return the gradient of a loss by every parameter of a training."""
    return dict(zip(batches.parameters, torch.autograd.grad(loss, list(batches.parameters.values())), strict=True))


def weights(workspace: ConPET) -> dict[str, Tensor]:
    """Return all stored weights of a static workspace: those of the module, and the head's."""
    stored = workspace.store.snapshot().shared[STATIC]
    head: Mapping[str, Tensor] = stored.tensors(HEAD)
    return {**stored.tensors(ADAPTER_TENSORS), **{f"head.{name}": value for name, value in head.items()}}


def taught_alike(folder: Path, tasks: Sequence[Task], *settings: Mapping[str, Any]) -> bool:
    """Tell whether the same tasks learned with different settings give the same weights."""
    found = [
        weights(Trial(folder, tiny_settings(**some)).taught(tasks, f"workspace-{number}"))
        for number, some in enumerate(settings)
    ]
    return all(
        one.keys() == found[0].keys() and all(torch.equal(one[name], found[0][name]) for name in one) for one in found
    )
