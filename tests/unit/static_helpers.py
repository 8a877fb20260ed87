"""What tests of static methods ask of a workspace, and of the moment before a task is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conpet.cost import CostLedger
from conpet.data import Example, Task
from conpet.learners.base import Lesson
from conpet.learners.session import Session, Step
from conpet.learners.static import STATIC, StaticLearner
from conpet.pet.module import ADAPTER_TENSORS, HEAD, PetModule
from conpet.pet.train import represented
from conpet.replay.memory import remembered_whole
from conpet.testing import Trial, tiny_settings
from conpet.testing.trial import learner_of
from conpet.work import Work
from conpet.workspace import ConPET
from conpet.workspace.reading import coming_task
from conpet.workspace.remembering import remembered


def representations(workspace: ConPET, examples: Sequence[Example]) -> Tensor:
    """Return how the stored module represents examples `[n, R]`."""
    module = PetModule(workspace.backbone, workspace.settings.for_task({}), seed=0)
    module.load(workspace.store.snapshot().shared[STATIC].tensors(ADAPTER_TENSORS))
    return represented(workspace.backbone, module, workspace.backbone.states(examples))


def begun(workspace: ConPET, task: Task) -> tuple[StaticLearner, Session]:
    """Return a workspace's learner and the session in which it is about to learn a task, all but the training."""
    learner = learner_of(workspace)
    assert isinstance(learner, StaticLearner)
    coming = coming_task(task, workspace.store.snapshot())
    lesson = Lesson.of(coming, workspace.settings, remembered_whole(task), workspace.backbone)
    session = learner.session(lesson, Work(remembered(workspace.tasks), CostLedger(workspace.backbone.meter), seed=0))
    learner.before(session)
    return learner, session


def shaken(session: Session) -> Session:
    """Move all parameters of a session a little, so that nothing is where it was."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in session.parameters.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return session


def outputs(session: Session, step: Step) -> list[list[float]]:
    """Return the head's outputs for each example of a step."""
    with torch.no_grad():
        return list(session.head(session.represent(step)).tolist())


def gradients(loss: Tensor, session: Session) -> dict[str, Tensor]:
    """Return the gradient of a loss by every parameter of a session."""
    return dict(zip(session.parameters, torch.autograd.grad(loss, list(session.parameters.values())), strict=True))


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
