"""Consistent representation learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from conpet.config import MethodConfig, Positive
from conpet.heads.labels import linear_head
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.static import PER_LABEL, StaticMethod, carried_tensors

TEMPERATURE = 0.1
"""tau of the contrastive loss."""
SHARPNESS = 10.0
"""What cosines are multiplied by before the softmax that is to stay as it was; the authors call it a temperature."""
WIDTH = 64
"""Width of what representations are projected to."""

_PROTOTYPES = f"{PER_LABEL}prototypes"
_PROJECTION = "projection."


@dataclass(slots=True, eq=False)
class _Notes:
    """What is known beside the session, on the backbone's device.

    Attributes:
        projection: Weights of the projection, by name.
        bank: Last known projection of each of the session's examples `[m, 64]`.
        prototypes: Prototypes of the older labels, as they were before the task `[O, R]`.
        similar: Log-probabilities of those for each old example, as they were before the task `[m - new, O]`.
        learned: Rows of the session's examples that may be learned from `[l]`, on the CPU.
        readout: Weight and bias of the scores by the nearest prototype, when the task is learned.
    """

    projection: dict[str, nn.Parameter]
    bank: Tensor
    prototypes: Tensor
    similar: Tensor
    learned: Tensor
    readout: tuple[Tensor, Tensor] | None = None


class CrlConfig(MethodConfig):
    """Options of the method.

    Attributes:
        contrasted: Most rows of the bank, drawn for each step, that its examples are contrasted with.
    """

    contrasted: Positive = 1024


class CrlMethod(StaticMethod):
    """Consistent representation learning, CRL (Zhao et al. 2022, arXiv 2203.02721), on one PET module.

    With z = g(f(x)) / |g(f(x))|, g a perceptron of two layers, every example i of a batch is contrasted with a bank of
    the z of all examples in the task's training: with S the bank but for i, P(i) those of i's label,

        L_cr(i) = -1/|P(i)| sum_{p in P(i)} log( exp(z_i . z_p / tau) / sum_{j in S} exp(z_i . z_j / tau) )

    The bank is filled before the first step; an example's row changes whenever it is in a batch. For replayed examples
    a second term keeps the similarity to the prototypes mu_j of the older labels as it was before:

        L_kd(i) = KL(p_i || q_i),  q_i = softmax_j(10 cos(f(x_i), mu_j)),  p_i the same with the module before the task

    No softmax head is trained: the answer is the label with the nearest prototype, the mean of its examples.
    |h - mu|^2 differs from |mu|^2 - 2 mu.h by the same number for all labels, so the scores (2 mu.h - |mu|^2) / s are
    a linear head; s, the mean squared distance of examples to their own prototypes, only makes probabilities of them.
    Prototypes of older labels are computed anew from replayed examples; where none was drawn they stay as they were.

    Differences from the paper: new and old examples are learned in one phase, within one budget, and not in two; the
    bank is sampled for every step; p and q both compare the example's representations with the old prototypes, where
    the authors' code compares for p the old prototype of its label, and for q its projection with those in the bank.

    Stored: the module, the head made of the prototypes, the prototypes, the projection, and the replay memory.
    Comparable with `emr`: the same steps, and beside them two forward passes of all examples that take part. The
    projection's parameters are trained, too; they are counted with those of the head.
    """

    name = "crl"
    resumable: ClassVar[bool] = False

    Config = CrlConfig
    config: CrlConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Fill the bank, and note how similar old examples are to the prototypes."""
        device, older = batches.backbone.device, batches.labels[: batches.older]
        found = batches.represented(range(len(batches.states)))
        kept = carried_tensors(batches.state, older)
        first = _new_projection(found.shape[1], batches.context.seed)
        weights = {name: kept.get(f"{_PROJECTION}{name}", value) for name, value in first.items()}
        projection = {name: nn.Parameter(value.to(device, copy=True)) for name, value in weights.items()}
        prototypes = kept.get(_PROTOTYPES, torch.zeros(0, found.shape[1]))
        with torch.no_grad():
            bank = projected(found.to(device), projection)
        similar = similarity(found[batches.new :], prototypes)
        learned = torch.tensor([*range(batches.new), *batches.old_rows])
        batches.notes = _Notes(projection, bank, prototypes.to(device), similar.to(device), learned)

    def extra_parameters(self, batches: ReplayBatches) -> Mapping[str, nn.Parameter]:
        """Return the projection's weights."""
        noted: _Notes = batches.notes
        return {f"{_PROJECTION}{name}": value for name, value in noted.projection.items()}

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the contrastive loss, and for old examples how much their similarities changed."""
        noted: _Notes = batches.notes
        represented = batches.represent(step)
        z = projected(represented, noted.projection)
        rows = sampled(noted.learned, self.config.contrasted, batches.context.seed + step.number)
        same = batches.targets[step.rows].unsqueeze(1) == batches.targets[rows]
        other = torch.tensor(step.rows).unsqueeze(1) != rows
        device = z.device
        losses = contrast(z, noted.bank[rows.to(device)], same.to(device), other.to(device))
        if batches.older and step.fresh < len(step.rows):
            then = noted.similar[batches.replayed(step)]
            changed = divergence(then, similarity(represented[step.fresh :], noted.prototypes))
            losses = torch.cat([losses[: step.fresh], losses[step.fresh :] + changed])
        noted.bank[step.rows] = z.detach()
        return batches.mean_loss(step, losses)

    def after_training(self, batches: ReplayBatches) -> None:
        """Compute prototypes and what is read out of them."""
        noted: _Notes = batches.notes
        found, targets = batches.represented(noted.learned.tolist()), batches.targets[noted.learned]
        before = torch.zeros(len(batches.labels), found.shape[1])
        before[: batches.older] = noted.prototypes.cpu()
        noted.prototypes = means(found, targets, before)
        noted.readout = nearest_prototype(noted.prototypes, spread(found, targets, noted.prototypes))

    def answering_head(self, batches: ReplayBatches) -> nn.Linear:
        """Return the scores by the nearest prototype."""
        noted: _Notes = batches.notes
        assert noted.readout is not None, "prototypes are computed after training"  # noqa: S101
        return linear_head(*noted.readout)

    def keep(self, batches: ReplayBatches) -> Mapping[str, Tensor]:
        """Return the prototypes and the projection."""
        noted: _Notes = batches.notes
        projection = {f"{_PROJECTION}{name}": value.detach().cpu() for name, value in noted.projection.items()}
        return {_PROTOTYPES: noted.prototypes, **projection}


def _new_projection(size: int, seed: int) -> dict[str, Tensor]:
    """Draw the first weights of the projection from R = `size` to R to 64, uniformly as torch's linear maps do."""
    generator = torch.Generator().manual_seed(seed)
    bound = size**-0.5
    shapes = {"0.weight": (size, size), "0.bias": (size,), "1.weight": (WIDTH, size), "1.bias": (WIDTH,)}
    return {name: torch.empty(shape).uniform_(-bound, bound, generator=generator) for name, shape in shapes.items()}


def projected(representations: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Return z `[n, 64]` of representations `[n, R]`: of two linear maps with a ReLU between them, of length 1."""
    inner = nn.functional.linear(representations, weights["0.weight"], weights["0.bias"]).relu()
    return nn.functional.normalize(nn.functional.linear(inner, weights["1.weight"], weights["1.bias"]), dim=1)


def sampled(rows: Tensor, most: int, seed: int) -> Tensor:
    """Draw at most so many of some rows `[l]`, in random order."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]


def contrast(z: Tensor, bank: Tensor, same: Tensor, other: Tensor) -> Tensor:
    """Return the contrastive loss of each of n examples `[n]`; 0 for one that has no other of its label in the bank.

    Args:
        z: Of the examples `[n, 64]`.
        bank: What they are contrasted with `[m, 64]`.
        same: Whether it is of the example's label `[n, m]`.
        other: Whether it is another example `[n, m]`.
    """
    positive = same & other
    log_shares = torch.log_softmax((z @ bank.T / TEMPERATURE).masked_fill(~other, -torch.inf), dim=1)
    sums = log_shares.masked_fill(~positive, 0.0).sum(dim=1)
    return -sums / positive.sum(dim=1).clamp(min=1)


def similarity(representations: Tensor, prototypes: Tensor) -> Tensor:
    """Return the log-softmax over prototypes `[O, R]` of ten times the cosines with each of n examples: `[n, O]`."""
    cosines = nn.functional.normalize(representations, dim=1) @ nn.functional.normalize(prototypes, dim=1).T
    return torch.log_softmax(SHARPNESS * cosines, dim=1)


def divergence(then: Tensor, now: Tensor) -> Tensor:
    """Return KL(then || now) of n pairs of distributions, given as logs `[n, O]`."""
    return nn.functional.kl_div(now, then, reduction="none", log_target=True).sum(dim=1)


def means(points: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    """Return the mean of each label's points; labels without points keep theirs.

    Args:
        points: `[n, R]`.
        targets: The label of each, from 0 `[n]`.
        before: `[L, R]`.
    """
    counts = torch.bincount(targets, minlength=len(before)).unsqueeze(1)
    sums = torch.zeros_like(before).index_add_(0, targets, points)
    return torch.where(counts > 0, sums / counts.clamp(min=1), before)


def spread(points: Tensor, targets: Tensor, prototypes: Tensor) -> float:
    """Return the mean squared distance of points to their own prototypes, each of which was made of some of them.

    The sum is divided by the points less the prototypes (as a variance is by n - 1). Where every label has one point
    only, nothing is known of it, and the mean squared distance between prototypes and their mean stands in.
    """
    free = len(points) - len(targets.unique())
    total = (points - prototypes[targets]).square().sum()
    if not free:
        free, total = len(prototypes), (prototypes - prototypes.mean(dim=0)).square().sum()
    return max(float(total) / free, torch.finfo(points.dtype).eps)


def nearest_prototype(prototypes: Tensor, squared: float) -> tuple[Tensor, Tensor]:
    """Return weight `[L, R]` and bias `[L]` of linear scores that rank labels by their prototypes' distance.

    The scores of h are -|h - mu|^2 / s but for a number that is the same for all labels. Prototypes lie close together
    and far from 0, so distances are taken from their mean, which keeps the numbers small.

    Args:
        prototypes: mu `[L, R]`.
        squared: s, above 0.
    """
    centre = prototypes.mean(dim=0)
    apart = prototypes - centre
    weight = 2 * apart / squared
    return weight, -apart.square().sum(dim=1) / squared - weight @ centre
