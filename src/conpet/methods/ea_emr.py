"""Embedding-aligned episodic memory replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from conpet.artifact import ObjectReader
from conpet.config import MethodConfig, Positive
from conpet.heads.labels import linear_head
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
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
        """Return the map that moves nothing."""
        return cls(torch.eye(size), torch.zeros(size))

    def __call__(self, representations: Tensor) -> Tensor:
        """Map `[n, R]` to `[n, R]`."""
        device = representations.device
        return nn.functional.linear(representations, self.weight.to(device), self.offset.to(device))

    def moved(self, representations: Tensor, places: Tensor, ridge: float) -> Alignment:
        """Return the nearby map that brings examples to given places.

        It is the exact minimiser over A and c of

            1/n sum_i |A z_i + c - t_i|^2 + rho |A - A'|_F^2,   rho = ridge * mean of all z_ij^2

        with A' this map's weight: examples may be fewer than R, and then A moves only where they show it to.

        Args:
            representations: z `[n, R]`.
            places: t `[n, R]`.
            ridge: Above 0.
        """
        z, missing = representations.double(), (places - self(representations)).double()
        centre, shift = z.mean(dim=0), missing.mean(dim=0)
        rho = ridge * z.square().mean()
        gram = (z - centre).T @ (z - centre) / len(z) + rho * torch.eye(z.shape[1], dtype=z.dtype)
        change = torch.linalg.solve(gram, (z - centre).T @ (missing - shift) / len(z)).T
        return Alignment(self.weight + change.float(), self.offset + (shift - change @ centre).float())


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """The map in use, and where it put some old examples before the task.

    Attributes:
        alignment: The map.
        rows: Rows of the old examples in the session.
        places: `[n, R]`.
    """

    alignment: Alignment
    rows: list[int]
    places: Tensor


class EaEmrConfig(MethodConfig):
    """Options of the method.

    Attributes:
        alignment_ridge: Penalty on moving the alignment, in units of the mean square of representations.
        alignment_examples: Most old, and most new, examples it is fitted on.
    """

    alignment_ridge: Annotated[float, Field(gt=0)] = 1.0
    alignment_examples: Positive = 256


class EaEmrMethod(StaticMethod):
    """Embedding-aligned EMR, EA-EMR (Wang et al. 2019, arXiv 1903.02588), on one PET module.

    Task k is learned as by `emr`, the head on representations that the last alignment moves, fixed meanwhile:

        L = -1/n sum_i log softmax(W a_(k-1)(f_k(x_i)) + b)[y_i]

    Then the linear alignment a_k is fitted by squared error, so that old examples come to lie where they lay before
    and new ones stay where they are; a_0 is the identity:

        sum_old |a_k(f_k(x)) - a_(k-1)(f_(k-1)(x))|^2 + sum_new |a_k(f_k(x)) - a_(k-1)(f_k(x))|^2

    The paper descends that by SGD from a_(k-1) for a given number of steps; here it is minimised exactly, with a ridge
    penalty on the distance from a_(k-1) in place of early stopping (`Alignment.moved`). Other differences from the
    paper are those of `emr`; which examples are kept is the schedule's and the retention's business.

    Stored: the module, the head with a_k in it (W A, W c + b), W, b and a_k (R^2 + R numbers), and the replay memory.
    Comparable with `emr`: the same steps, and beside them forward passes of up to 3 `alignment_examples` examples.
    """

    name = "ea-emr"

    Config = EaEmrConfig
    config: EaEmrConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Note where old examples lie."""
        kept, nothing = (
            carried_tensors(batches.state, batches.labels),
            Alignment.identity(self.backbone.representation_size),
        )
        alignment = Alignment(kept[_WEIGHT], kept[_OFFSET]) if kept else nothing
        rows = batches.some(batches.old_rows, self.config.alignment_examples)
        batches.notes = _Places(alignment, rows, alignment(batches.represented(rows)))

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of the head on aligned representations."""
        noted: _Places = batches.notes
        logits = batches.head(noted.alignment(batches.represent(step)))
        return batches.mean_loss(step, nn.functional.cross_entropy(logits, step.targets, reduction="none"))

    def after_training(self, batches: ReplayBatches) -> None:
        """Fit the alignment; without old examples it stays as it is."""
        noted: _Places = batches.notes
        if noted.rows:
            fresh = batches.some(range(batches.new), self.config.alignment_examples)
            new, old = batches.represented(fresh), batches.represented(noted.rows)
            places = torch.cat([noted.alignment(new), noted.places])
            moved = noted.alignment.moved(torch.cat([new, old]), places, self.config.alignment_ridge)
            batches.notes = replace(noted, alignment=moved)

    def answering_head(self, batches: ReplayBatches) -> nn.Linear:
        """Return the head with the alignment in it: W (A z + c) + b = (W A) z + (W c + b)."""
        noted: _Places = batches.notes
        weight, bias = batches.head.weight.detach().cpu(), batches.head.bias.detach().cpu()
        return linear_head(weight @ noted.alignment.weight, weight @ noted.alignment.offset + bias)

    def keep(self, batches: ReplayBatches) -> Mapping[str, Tensor]:
        """Return the alignment, and the head without it."""
        noted: _Places = batches.notes
        return {
            _WEIGHT: noted.alignment.weight,
            _OFFSET: noted.alignment.offset,
            _HEAD_WEIGHT: batches.head.weight.detach().cpu(),
            _HEAD_BIAS: batches.head.bias.detach().cpu(),
        }

    def trained_head(self, stored: ObjectReader) -> Mapping[str, Tensor]:
        """Return the head as it was trained, without the alignment."""
        kept = stored.tensors(METHOD)
        return {"weight": kept[_HEAD_WEIGHT], "bias": kept[_HEAD_BIAS]}
