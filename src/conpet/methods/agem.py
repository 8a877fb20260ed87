"""Averaged gradient episodic memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.static import StaticMethod


class AGemMethod(StaticMethod):
    """Averaged gradient episodic memory, A-GEM (Chaudhry et al. 2019, arXiv 1812.00420, eq. 11), on one PET module.

    With g the gradient of the cross-entropy (over all labels seen) of a batch's new half, g_ref that of its old half,
    over all trained parameters together, steps follow

        g - (g . g_ref) / (g_ref . g_ref) g_ref   if g . g_ref < 0, else g

    so that the loss of old examples does not rise, to first order. Old examples are used for nothing else.

    Stored: the module, the head and the replay memory. A step costs one more backward pass than with `emr`. Not
    comparable with the paper: there the reference batch is drawn in addition to a full batch of new examples, here both
    share one batch, as in every method; there the optimiser takes plain gradient steps, here AdamW rescales the
    projected gradient and adds momentum; and there each task has its own head. With one softmax over all labels, as
    here, A-GEM forgets far more than `emr`.
    """

    name = "a-gem"

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the loss of the new examples, and record the gradient of the old ones' loss."""
        logits = batches.head(batches.represent(step))
        losses = nn.functional.cross_entropy(logits, step.targets, reduction="none")
        old = losses[step.new_count :]
        batches.method_data = None
        if len(old):
            gradients = torch.autograd.grad(old.mean(), list(batches.parameters.values()), retain_graph=True)
            batches.method_data = parameters_to_vector(gradients)
        return losses[: step.new_count].mean()

    def after_backward(self, batches: ReplayBatches, step: int) -> None:
        """Project the gradient so that it does not oppose that of the old examples."""
        reference: Tensor | None = batches.method_data
        if reference is None:
            return
        gradients = [value.grad for value in batches.parameters.values() if value.grad is not None]
        vector_to_parameters(projected(parameters_to_vector(gradients), reference), gradients)


def projected(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return the vector nearest to a gradient `[P]` whose product with a reference `[P]` is not negative."""
    product = gradient @ reference
    return gradient if product >= 0 else gradient - product / (reference @ reference) * reference
