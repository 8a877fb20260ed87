"""Dark experience replay with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.settings import DerppConfig
from conpet.methods.static import StaticMethod
from conpet.state.slots import MODULE
from conpet.state.state import Names, TaskState

_LOGITS = "logits"
"""Stem of the outputs recorded for a task's training examples: one tensor `[n]` for each label."""


class DerppMethod(StaticMethod):
    """Dark experience replay, DER++ (Buzzega et al. 2020, arXiv 2004.07211, eq. 6), on one PET module.

    The old half of a batch is divided again, into x' and (x'', y''). With h the outputs it minimises

        L = CE(new) + alpha mean |z' - h(x')|^2 + beta CE(x'', y'')

    where z' are the outputs recorded for x'. Only outputs of labels that existed at recording and still exist are
    compared. An example without recorded outputs counts as one of x''.

    Stored: the module, the head, the replay memory, and with each version of a task the outputs of all its training
    examples, including those that a limited memory drops; a rollback restores the outputs of the version.

    Not comparable with the paper: there z' is recorded when the example is trained on, here at the end of its task;
    and there the head has all outputs from the beginning, so that z' also covers labels of later tasks. The authors'
    code divides the squared distance by the number of outputs; here it is the sum, as in the equation.
    """

    name = "der++"

    Config = DerppConfig
    config: DerppConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Read the recorded outputs of the old examples."""
        batches.method_data = self.recorded(batches).to(batches.backbone.device)

    def recorded(self, batches: ReplayBatches) -> Tensor:
        """Return the recorded outputs of the examples that may be replayed, in their order `[m, L]`; NaN if missing."""
        tasks, indices = (batches.rehearsal.tasks, batches.rehearsal.indices) if batches.rehearsal else ((), ())
        recorded = torch.full((len(tasks), len(batches.labels)), torch.nan, dtype=torch.float32)
        column = {label: index for index, label in enumerate(batches.labels)}
        for task in batches.state.tasks:
            if task.name not in tasks or not task.objects[MODULE].has(_LOGITS):
                continue
            rows = [row for row, name in enumerate(tasks) if name == task.name]
            positions = [indices[row] for row in rows]
            for label, values in task.objects[MODULE].tensors(_LOGITS).items():
                if label in column:
                    recorded[rows, column[label]] = values[positions]
        return recorded

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of the new examples plus both terms of the old ones."""
        logits = batches.head(batches.represent(step))
        losses = nn.functional.cross_entropy(logits, step.targets, reduction="none")
        recorded: Tensor = batches.method_data[batches.replayed(step)]
        mirrored, answered = halves(recorded)
        loss = losses[: step.new_count].mean()
        if mirrored.any():
            then, now = recorded[mirrored], logits[step.new_count :][mirrored]
            loss = loss + self.config.alpha * squared_distance(now, then)
        if answered.any():
            loss = loss + self.config.beta * losses[step.new_count :][answered].mean()
        return loss

    def keep_with_task(
        self, batches: ReplayBatches, representations: Callable[[], Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Return the outputs of the task's training examples, by label."""
        with torch.no_grad():
            logits = batches.head(representations().to(batches.backbone.device))
        return {_LOGITS: dict(zip(batches.labels, logits.T, strict=True))}

    def relabel_kept(self, task: TaskState, names: Names, rows: Sequence[int]) -> dict[str, dict[str, Tensor]]:
        """Return the outputs of the remaining examples for the remaining labels."""
        recorded = task.objects[MODULE].tensors(_LOGITS) if task.objects[MODULE].has(_LOGITS) else {}
        renamed = {names.get(label, label): values[list(rows)] for label, values in recorded.items()}
        return {_LOGITS: {label: values for label, values in renamed.items() if label is not None}}


def halves(recorded: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the old examples of a batch into x' and x''.

    Args:
        recorded: Their recorded outputs `[o, L]`, NaN if missing.

    Returns:
        Whether each is in x' `[o]`, bool: in the first half, rounded up, with recorded outputs. Whether each is in x''
        `[o]`: all others.
    """
    first = torch.arange(len(recorded), device=recorded.device) < (len(recorded) + 1) // 2
    mirrored = first & ~recorded.isnan().all(dim=1)
    return mirrored, ~mirrored


def squared_distance(now: Tensor, then: Tensor) -> Tensor:
    """Return the mean over examples of the squared distance of outputs `[n, L]` where `then` is not NaN."""
    return (now - torch.where(then.isnan(), now.detach(), then)).square().sum(dim=1).mean()
