"""Dark experience replay with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from conpet.config import MethodConfig
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.static import StaticMethod
from conpet.state.state import MODULE, Names, TaskState

_LOGITS = "logits"
"""Stem, with a task, of the outputs recorded for its training examples: one tensor `[n]` a label."""


class DerppConfig(MethodConfig):
    """Options of the method.

    Attributes:
        alpha: Weight of the recorded outputs.
        beta: Weight of the labels of old examples.
    """

    alpha: Annotated[float, Field(ge=0)] = 0.1
    beta: Annotated[float, Field(ge=0)] = 1.0


class DerppMethod(StaticMethod):
    """Dark experience replay, DER++ (Buzzega et al. 2020, arXiv 2004.07211, eq. 6), on one PET module.

    The old half of a batch is halved again, into x' and (x'', y''). With h the outputs it minimises

        L = CE(new) + alpha mean |z' - h(x')|^2 + beta CE(x'', y'')

    where z' are the outputs that were recorded for x'. Outputs are compared that stand for labels known then and still
    there; labels that came later are not. An example without recorded outputs counts as one of x''.

    Stored: the module, the head, the replay memory, and with each version of a task the outputs of all its training
    examples, of those too that a limited memory drops; going back to a version brings back its own.

    Not comparable: the paper records z' while it trains on the example, somewhere on the way; here at the end of its
    task. Its head has all outputs from the beginning, so that z' speaks of labels to come as well. Its authors' code
    divides the squared distance by the number of outputs; here it is the sum, as in the equation.
    """

    name = "der++"

    Config = DerppConfig
    config: DerppConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Read the outputs that were recorded for old examples."""
        batches.notes = self.recorded(batches).to(batches.backbone.device)

    def recorded(self, batches: ReplayBatches) -> Tensor:
        """Return the outputs recorded for all that may be replayed `[m, L]`, in the session's order; NaN where none."""
        tasks, indices = (batches.rehearsal.tasks, batches.rehearsal.indices) if batches.rehearsal else ((), ())
        found = torch.full((len(tasks), len(batches.labels)), torch.nan)
        column = {label: index for index, label in enumerate(batches.labels)}
        for task in batches.state.tasks:
            if task.name not in tasks or not task.objects[MODULE].has(_LOGITS):
                continue
            rows = [row for row, name in enumerate(tasks) if name == task.name]
            positions = [indices[row] for row in rows]
            for label, values in task.objects[MODULE].tensors(_LOGITS).items():
                if label in column:
                    found[rows, column[label]] = values[positions]
        return found

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of new examples, and both terms of old ones."""
        logits = batches.head(batches.represent(step))
        losses = nn.functional.cross_entropy(logits, step.targets, reduction="none")
        learned = batches.learned_from(step, losses)[step.fresh :]
        recorded: Tensor = batches.notes[batches.replayed(step)]
        mirrored, answered = halves(learned, recorded)
        loss = losses[: step.fresh].mean()
        if mirrored.any():
            then, now = recorded[mirrored], logits[step.fresh :][mirrored]
            loss = loss + self.config.alpha * squared_distance(now, then)
        if answered.any():
            loss = loss + self.config.beta * losses[step.fresh :][answered].mean()
        return loss

    def keep_with_task(
        self, batches: ReplayBatches, representations: Callable[[], Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Return the outputs of the task's training examples, by label."""
        with torch.no_grad():
            logits = batches.head(representations().to(batches.backbone.device))
        return {_LOGITS: dict(zip(batches.labels, logits.T, strict=True))}

    def relabel_kept(self, task: TaskState, names: Names, rows: Sequence[int]) -> dict[str, dict[str, Tensor]]:
        """Return the outputs of the examples that stay, for the labels that do."""
        recorded = task.objects[MODULE].tensors(_LOGITS) if task.objects[MODULE].has(_LOGITS) else {}
        renamed = {names.get(label, label): values[list(rows)] for label, values in recorded.items()}
        return {_LOGITS: {label: values for label, values in renamed.items() if label is not None}}


def halves(learned: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the old examples of a batch into x' and x''.

    Args:
        learned: Which of them are learned from `[o]`, bool; the others are in neither half.
        recorded: Their recorded outputs `[o, L]`, NaN where there is none.

    Returns:
        Which are x' `[o]`: of the first half, rounded up, those with anything recorded. Which are x'': all others.
    """
    count = learned.cumsum(dim=0)
    first = learned & (2 * count <= learned.sum() + 1)
    mirrored = first & ~recorded.isnan().all(dim=1)
    return mirrored, learned & ~mirrored


def squared_distance(now: Tensor, then: Tensor) -> Tensor:
    """Return the mean over examples of the squared distance of outputs `[n, L]` where `then` is not NaN."""
    return (now - torch.where(then.isnan(), now.detach(), then)).square().sum(dim=1).mean()
