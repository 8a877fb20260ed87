"""Learning without forgetting."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from conpet.config import MethodConfig
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.static import StaticMethod

TEMPERATURE = 2.0
"""The paper's T, found there by a search."""


class LwfConfig(MethodConfig):
    """Options of the method.

    Attributes:
        distillation: The paper's lambda_o: how much the old outputs weigh beside the new ones.
    """

    distillation: Annotated[float, Field(ge=0)] = 1.0


class LwfMethod(StaticMethod):
    """Learning without forgetting, LwF (Li & Hoiem 2017, arXiv 1606.09282, eq. 1-5), on one PET module.

    Before a task is trained, the outputs z' of the old labels are recorded on its own examples. Then it minimises

        L = -log softmax(z_new)[y] - lambda_o sum_t sum_i softmax(z'_t / T)_i log softmax(z_t / T)_i,  T = 2

    over new examples only; z_t are the outputs of the labels of past task t.

    Stored: the module and the head, nothing else. Recording costs one more forward pass over the task's examples.

    Not comparable: in the paper it is known which task a test input belongs to, so each task has a softmax of its own,
    here too. No term compares outputs of two tasks, so the scale of one against the other is left to chance: accuracy
    within the task is what LwF keeps, whole accuracy over all labels suffers. The paper trains the new outputs alone
    first (warm-up); here all is trained from the first step, within the budget that every method has.
    """

    name = "lwf"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

    Config = LwfConfig
    config: LwfConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Record what the old outputs say of the new examples."""
        found = batches.represented(range(batches.new))
        with torch.no_grad():
            batches.notes = batches.head(found.to(batches.backbone.device))[:, : batches.older]

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of the new outputs and what the old ones of each task moved."""
        logits = batches.head(batches.represent(step))
        loss = nn.functional.cross_entropy(logits[:, batches.older :], step.targets - batches.older)
        sizes = [len(task.labels) for task in batches.state.tasks if task.name != batches.task_data.task.name]
        now = logits[:, : batches.older].split(sizes, dim=1)
        recorded: Tensor = batches.notes
        then = recorded[step.rows].split(sizes, dim=1)
        for new, old in zip(now, then, strict=True):
            loss = loss + self.config.distillation * distillation(new, old)
        return loss


def distillation(now: Tensor, then: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the mean cross-entropy between outputs `[n, L]` as they were and as they are, both softened.

    Dividing logits by T is the paper's raising of probabilities to the power 1 / T (eq. 4).

    Args:
        now: Outputs now.
        then: Outputs recorded.
        temperature: T.
    """
    return nn.functional.cross_entropy(now / temperature, (then / temperature).softmax(dim=1))
