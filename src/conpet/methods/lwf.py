"""Learning without forgetting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.settings import LwfConfig
from conpet.methods.static import StaticMethod

TEMPERATURE = 2.0
"""The paper's T, found by its authors' search."""


class LwfMethod(StaticMethod):
    """Learning without forgetting, LwF (Li & Hoiem 2017, arXiv 1606.09282, eq. 1-5), on one PET module.

    Before training a task, the method records the old labels' outputs z' for the task's examples. Then it minimises

        L = -log softmax(z_new)[y] - lambda_o sum_t sum_i softmax(z'_t / T)_i log softmax(z_t / T)_i,  T = 2

    over new examples only; z_t are the outputs of the labels of past task t.

    Stored: only the module and the head. Recording costs one more forward pass over the task's examples.

    Not comparable with the paper: there the task of a test input is known, so each task has its own softmax, which is
    kept here. No term compares the outputs of two tasks, so their relative scale is arbitrary: LwF preserves accuracy
    within the task, but not whole accuracy. The paper first trains the new outputs alone (warm-up); here everything is
    trained from the first step, within the budget of every method.
    """

    name = "lwf"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

    Config = LwfConfig
    config: LwfConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Record the old labels' outputs for the new examples."""
        representations = batches.represented(range(batches.new_count))
        with torch.no_grad():
            batches.method_data = batches.head(representations.to(batches.backbone.device))[
                :, : batches.old_label_count
            ]

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of the new outputs plus the distillation loss of each old task."""
        logits = batches.head(batches.represent(step))
        loss = nn.functional.cross_entropy(logits[:, batches.old_label_count :], step.targets - batches.old_label_count)
        sizes = [len(task.labels) for task in batches.state.tasks if task.name != batches.task_data.task.name]
        now = logits[:, : batches.old_label_count].split(sizes, dim=1)
        recorded: Tensor = batches.method_data
        then = recorded[step.rows].split(sizes, dim=1)
        for new, old in zip(now, then, strict=True):
            loss = loss + self.config.distillation * distillation(new, old)
        return loss


def distillation(now: Tensor, then: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the mean cross-entropy between recorded and present outputs, both softened by a temperature.

    Dividing logits by T equals raising probabilities to the power 1 / T, as in the paper (eq. 4).

    Args:
        now: Present outputs `[n, L]`.
        then: Recorded outputs `[n, L]`.
        temperature: T.
    """
    return nn.functional.cross_entropy(now / temperature, (then / temperature).softmax(dim=1))
