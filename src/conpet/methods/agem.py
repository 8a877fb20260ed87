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

    so that the loss of old examples does not rise, to first order. They are never learned from beyond that.

    Stored: the module, the head, and the replay memory. Not comparable: the paper draws its reference batch beside a
    whole new one, here both share the batch that every method has; and the optimiser is AdamW, whose rescaling and
    momentum come behind the projection, where the paper takes plain gradient steps. Its tasks have heads of their own;
    with one softmax over all labels, as here, it keeps far less than `emr`. A step costs one more backward pass.
    """

    name = "a-gem"

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the loss of the new examples; note the gradient of the old ones'."""
        logits = batches.head(batches.represent(step))
        losses = nn.functional.cross_entropy(logits, step.targets, reduction="none")
        old = losses[step.fresh :][batches.learned_from(step, losses)[step.fresh :]]
        batches.notes = None
        if len(old):
            gradients = torch.autograd.grad(old.mean(), list(batches.parameters.values()), retain_graph=True)
            batches.notes = parameters_to_vector(gradients)
        return losses[: step.fresh].mean()

    def after_backward(self, batches: ReplayBatches, step: int) -> None:
        """Project the gradient."""
        reference: Tensor | None = batches.notes
        if reference is None:
            return
        gradients = [value.grad for value in batches.parameters.values() if value.grad is not None]
        whole = projected(parameters_to_vector(gradients), reference)
        vector_to_parameters(whole, gradients)


def projected(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return the vector nearest to a gradient `[P]` whose product with a reference `[P]` is not negative."""
    product = gradient @ reference
    return gradient if product >= 0 else gradient - product / (reference @ reference) * reference
