"""Embedding-aligned episodic memory replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from conpet.artifact import ObjectReader
from conpet.heads.labels import linear_head
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.settings import EaEmrConfig
from conpet.methods.static import METHOD, PER_LABEL, StaticMethod, carried_tensors

_WEIGHT, _OFFSET = "alignment.weight", "alignment.offset"
_HEAD_WEIGHT, _HEAD_BIAS = f"{PER_LABEL}weight", f"{PER_LABEL}bias"


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The map a(z) = A z + c of representations.

    Attributes:
        weight: A `[R, R]`.
        offset: c `[R]`.
    """

    weight: Tensor
    offset: Tensor

    @classmethod
    def identity(cls, size: int) -> Self:
        """Return the identity map of representations of this size."""
        return cls(torch.eye(size, dtype=torch.float32), torch.zeros(size, dtype=torch.float32))

    def __call__(self, representations: Tensor) -> Tensor:
        """Map `[n, R]` to `[n, R]`."""
        device = representations.device
        return nn.functional.linear(representations, self.weight.to(device), self.offset.to(device))

    def fitted(self, representations: Tensor, targets: Tensor, ridge: float) -> Alignment:
        """Return the map, close to this one, that brings representations to their targets.

        It is the exact minimiser over A and c of

            1/n sum_i |A z_i + c - t_i|^2 + rho |A - A'|_F^2,   rho = ridge * mean of all z_ij^2

        with A' the weight of this map. With fewer examples than R, A changes only in the directions of the examples.

        Args:
            representations: z `[n, R]`.
            targets: t `[n, R]`.
            ridge: Above 0.
        """
        z, residual = representations.double(), (targets - self(representations)).double()
        centre, shift = z.mean(dim=0), residual.mean(dim=0)
        rho = ridge * z.square().mean()
        gram = (z - centre).T @ (z - centre) / len(z) + rho * torch.eye(z.shape[1], dtype=z.dtype)
        change = torch.linalg.solve(gram, (z - centre).T @ (residual - shift) / len(z)).T
        return Alignment(self.weight + change.float(), self.offset + (shift - change @ centre).float())


@dataclass(frozen=True, slots=True, eq=False)
class _AlignmentData:
    """EA-EMR's data during the training of a task.

    Attributes:
        alignment: The alignment in use.
        rows: Rows of a sample of old examples in `ReplayBatches.states`.
        targets: Their aligned representations before this training `[n, R]`.
    """

    alignment: Alignment
    rows: list[int]
    targets: Tensor


class EaEmrMethod(StaticMethod):
    """Embedding-aligned EMR, EA-EMR (Wang et al. 2019, arXiv 1903.02588), on one PET module.

    Task k is learned as by `emr`, with the head on representations mapped by the last alignment, which stays fixed:

        L = -1/n sum_i log softmax(W a_(k-1)(f_k(x_i)) + b)[y_i]

    Then the linear alignment a_k is fitted by least squares, so that old examples return to where they were before this
    task and new ones stay where they are; a_0 is the identity:

        sum_old |a_k(f_k(x)) - a_(k-1)(f_(k-1)(x))|^2 + sum_new |a_k(f_k(x)) - a_(k-1)(f_k(x))|^2

    The paper minimises this by a fixed number of SGD steps from a_(k-1); here it is minimised exactly, with a ridge
    penalty on the distance from a_(k-1) instead of early stopping (`Alignment.fitted`). The other differences from the
    paper are those of `emr`; schedule and retention decide which examples are kept.

    Stored: the module, the head including a_k (W A, W c + b), W, b and a_k (R^2 + R numbers), and the replay memory.
    Comparable with `emr`: the same steps, plus forward passes of up to 3 `alignment_examples` examples.
    """

    name = "ea-emr"

    Config = EaEmrConfig
    config: EaEmrConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Record the aligned representations of old examples."""
        carried = carried_tensors(batches.state, batches.labels)
        if carried:
            alignment = Alignment(carried[_WEIGHT], carried[_OFFSET])
        else:
            alignment = Alignment.identity(self.backbone.representation_size)
        rows = batches.sample(batches.old_rows, self.config.alignment_examples)
        batches.method_data = _AlignmentData(alignment, rows, alignment(batches.represented(rows)))

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of the head on aligned representations."""
        data: _AlignmentData = batches.method_data
        logits = batches.head(data.alignment(batches.represent(step)))
        return nn.functional.cross_entropy(logits, step.targets, reduction="none").mean()

    def after_training(self, batches: ReplayBatches) -> None:
        """Fit the alignment; without old examples it does not change."""
        data: _AlignmentData = batches.method_data
        if data.rows:
            new_rows = batches.sample(range(batches.new_count), self.config.alignment_examples)
            new, old = batches.represented(new_rows), batches.represented(data.rows)
            targets = torch.cat([data.alignment(new), data.targets])
            fitted = data.alignment.fitted(torch.cat([new, old]), targets, self.config.alignment_ridge)
            batches.method_data = replace(data, alignment=fitted)

    def answering_head(self, batches: ReplayBatches) -> nn.Linear:
        """Return the head with the alignment folded in: W (A z + c) + b = (W A) z + (W c + b)."""
        data: _AlignmentData = batches.method_data
        weight, bias = batches.head.weight.detach().cpu(), batches.head.bias.detach().cpu()
        return linear_head(weight @ data.alignment.weight, weight @ data.alignment.offset + bias)

    def keep(self, batches: ReplayBatches) -> Mapping[str, Tensor]:
        """Return the alignment, and the head without it."""
        data: _AlignmentData = batches.method_data
        return {
            _WEIGHT: data.alignment.weight,
            _OFFSET: data.alignment.offset,
            _HEAD_WEIGHT: batches.head.weight.detach().cpu(),
            _HEAD_BIAS: batches.head.bias.detach().cpu(),
        }

    def trained_head(self, stored: ObjectReader) -> Mapping[str, Tensor]:
        """Return the head as it was trained, without the alignment."""
        carried = stored.tensors(METHOD)
        return {"weight": carried[_HEAD_WEIGHT], "bias": carried[_HEAD_BIAS]}
