"""Consistent representation learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from conpet.heads.labels import linear_head
from conpet.methods.replay_batches import ReplayBatches, TrainingStep
from conpet.methods.settings import CrlConfig
from conpet.methods.static import PER_LABEL, StaticMethod, carried_tensors

TEMPERATURE = 0.1
"""tau of the contrastive loss."""
SHARPNESS = 10.0
"""Factor of the cosines in the distillation softmax; the authors call it a temperature."""
WIDTH = 64
"""Width of the projected representations."""

_PROTOTYPES = f"{PER_LABEL}prototypes"
_PROJECTION = "projection."


@dataclass(slots=True, eq=False)
class _CrlData:
    """CRL's data during the training of a task, on the backbone's device.

    Attributes:
        projection: Weights of the projection, by name.
        memory_bank: Latest projection of each of the m examples in `ReplayBatches.states` `[m, 64]`.
        prototypes: Prototypes of the O older labels before this training `[O, R]`; after it, of all L labels `[L, R]`.
        similar: Log-similarities of each old example to the older prototypes before this training `[m - new, O]`.
        readout: Weight and bias of the nearest-prototype scores, set after training.
    """

    projection: dict[str, nn.Parameter]
    memory_bank: Tensor
    prototypes: Tensor
    similar: Tensor
    readout: tuple[Tensor, Tensor] | None = None


class CrlMethod(StaticMethod):
    """Consistent representation learning, CRL (Zhao et al. 2022, arXiv 2203.02721), on one PET module.

    With z = g(f(x)) / |g(f(x))|, g a perceptron of two layers, every example i of a batch is contrasted with a memory
    bank of the z of all examples of this training. With S the bank without i, and P(i) its rows with i's label,

        L_cr(i) = -1/|P(i)| sum_{p in P(i)} log( exp(z_i . z_p / tau) / sum_{j in S} exp(z_i . z_j / tau) )

    The bank is filled before the first step; a step updates the rows of its examples. For replayed examples a second
    term preserves the similarities to the prototypes mu_j of the older labels:

        L_kd(i) = KL(p_i || q_i),  q_i = softmax_j(10 cos(f(x_i), mu_j)),  p_i likewise with the module before this task

    No softmax head is trained: the answer is the label whose prototype, the mean of its examples, is nearest.
    |h - mu|^2 and |mu|^2 - 2 mu.h differ by the same number for all labels, so the scores (2 mu.h - |mu|^2) / s are a
    linear head; s, the mean squared distance of examples to their own prototypes, sets the scale of the probabilities.
    Prototypes of older labels are recomputed from the replayed examples; a label without any keeps its prototype.

    Differences from the paper: new and old examples are learned in one phase and one budget instead of two; the bank
    is sampled at every step; p and q both compare an example's representation with the old prototypes, whereas the
    authors' code compares the old prototype of its label for p, and its projection with those in the bank for q.

    Stored: the module, the head made of the prototypes, the prototypes, the projection and the replay memory.
    Comparable with `emr`: the same steps, plus two forward passes of all examples used. The projection is trained as
    well; its parameters are counted with those of the head.
    """

    name = "crl"
    resumable: ClassVar[bool] = False

    Config = CrlConfig
    config: CrlConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Fill the memory bank, and record how similar the old examples are to the prototypes."""
        device, older = batches.backbone.device, batches.labels[: batches.old_label_count]
        representations = batches.represented(range(len(batches.states)))
        carried = carried_tensors(batches.state, older)
        initial = _new_projection(representations.shape[1], batches.context.seed)
        weights = {name: carried.get(f"{_PROJECTION}{name}", value) for name, value in initial.items()}
        projection = {name: nn.Parameter(value.to(device, copy=True)) for name, value in weights.items()}
        prototypes = carried.get(_PROTOTYPES, torch.zeros(0, representations.shape[1], dtype=torch.float32))
        with torch.no_grad():
            memory_bank = projected(representations.to(device), projection)
        similar = similarity(representations[batches.new_count :], prototypes)
        batches.method_data = _CrlData(projection, memory_bank, prototypes.to(device), similar.to(device))

    def extra_parameters(self, batches: ReplayBatches) -> Mapping[str, nn.Parameter]:
        """Return the projection's weights."""
        data: _CrlData = batches.method_data
        return {f"{_PROJECTION}{name}": value for name, value in data.projection.items()}

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the contrastive loss plus, for old examples, the change of their similarities."""
        data: _CrlData = batches.method_data
        represented = batches.represent(step)
        z = projected(represented, data.projection)
        rows = sampled(len(batches.states), self.config.contrasted, batches.context.seed + step.number)
        same = batches.targets[step.rows].unsqueeze(1) == batches.targets[rows]
        other = torch.tensor(step.rows).unsqueeze(1) != rows
        device = z.device
        losses = contrast(z, data.memory_bank[rows.to(device)], same.to(device), other.to(device))
        if batches.old_label_count and step.new_count < len(step.rows):
            then = data.similar[batches.replayed(step)]
            changed = divergence(then, similarity(represented[step.new_count :], data.prototypes))
            losses = torch.cat([losses[: step.new_count], losses[step.new_count :] + changed])
        data.memory_bank[step.rows] = z.detach()
        return losses.mean()

    def after_training(self, batches: ReplayBatches) -> None:
        """Compute the prototypes and the scores of the nearest prototype."""
        data: _CrlData = batches.method_data
        representations = batches.represented(range(len(batches.states)))
        former = torch.zeros(len(batches.labels), representations.shape[1], dtype=torch.float32)
        former[: batches.old_label_count] = data.prototypes.cpu()
        data.prototypes = means(representations, batches.targets, former)
        data.readout = nearest_prototype(data.prototypes, spread(representations, batches.targets, data.prototypes))

    def answering_head(self, batches: ReplayBatches) -> nn.Linear:
        """Return the linear map that scores labels by their prototypes' distance."""
        data: _CrlData = batches.method_data
        assert data.readout is not None, "prototypes are computed after training"  # noqa: S101
        return linear_head(*data.readout)

    def keep(self, batches: ReplayBatches) -> Mapping[str, Tensor]:
        """Return the prototypes and the projection."""
        data: _CrlData = batches.method_data
        projection = {f"{_PROJECTION}{name}": value.detach().cpu() for name, value in data.projection.items()}
        return {_PROTOTYPES: data.prototypes, **projection}


def _new_projection(size: int, seed: int) -> dict[str, Tensor]:
    """Draw initial weights of the projection (R = `size` to R to 64), uniformly as `torch.nn.Linear` does."""
    generator = torch.Generator().manual_seed(seed)
    bound = size**-0.5
    shapes = {"0.weight": (size, size), "0.bias": (size,), "1.weight": (WIDTH, size), "1.bias": (WIDTH,)}
    return {
        name: torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        for name, shape in shapes.items()
    }


def projected(representations: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Return z `[n, 64]` of representations `[n, R]`: two linear maps with a ReLU between, scaled to length 1."""
    inner = nn.functional.linear(representations, weights["0.weight"], weights["0.bias"]).relu()
    return nn.functional.normalize(nn.functional.linear(inner, weights["1.weight"], weights["1.bias"]), dim=1)


def sampled(count: int, limit: int, seed: int) -> Tensor:
    """Draw at most `limit` of `count` rows, in random order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit]


def contrast(z: Tensor, bank: Tensor, same: Tensor, other: Tensor) -> Tensor:
    """Return the contrastive loss of n examples `[n]`; 0 for one with no other example of its label in the bank.

    Args:
        z: Projections of the examples `[n, 64]`.
        bank: Projections to contrast with `[m, 64]`.
        same: Whether a row of the bank has the example's label `[n, m]`, bool.
        other: Whether a row of the bank is another example `[n, m]`, bool.
    """
    positive = same & other
    log_shares = torch.log_softmax((z @ bank.T / TEMPERATURE).masked_fill(~other, -torch.inf), dim=1)
    sums = log_shares.masked_fill(~positive, 0.0).sum(dim=1)
    return -sums / positive.sum(dim=1).clamp(min=1)


def similarity(representations: Tensor, prototypes: Tensor) -> Tensor:
    """Return the log-softmax, over prototypes `[O, R]`, of ten times their cosines with n examples: `[n, O]`."""
    cosines = nn.functional.normalize(representations, dim=1) @ nn.functional.normalize(prototypes, dim=1).T
    return torch.log_softmax(SHARPNESS * cosines, dim=1)


def divergence(then: Tensor, now: Tensor) -> Tensor:
    """Return KL(then || now) of n pairs of distributions, given as logs `[n, O]`."""
    return nn.functional.kl_div(now, then, reduction="none", log_target=True).sum(dim=1)


def means(points: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    """Return the mean of each label's points `[L, R]`; a label without points keeps its former mean.

    Args:
        points: `[n, R]`.
        targets: Index of each point's label `[n]`.
        before: The former means `[L, R]`.
    """
    counts = torch.bincount(targets, minlength=len(before)).unsqueeze(1)
    sums = torch.zeros_like(before).index_add_(0, targets, points)
    return torch.where(counts > 0, sums / counts.clamp(min=1), before)


def spread(points: Tensor, targets: Tensor, prototypes: Tensor) -> float:
    """Return the mean squared distance of points to the prototypes computed from them.

    The divisor is the number of points minus the number of prototypes (as n - 1 in a variance). If every label has only
    one point, the mean squared distance of the prototypes to their mean is returned instead.
    """
    free = len(points) - len(targets.unique())
    total = (points - prototypes[targets]).square().sum()
    if not free:
        free, total = len(prototypes), (prototypes - prototypes.mean(dim=0)).square().sum()
    return max(float(total) / free, torch.finfo(points.dtype).eps)


def nearest_prototype(prototypes: Tensor, squared: float) -> tuple[Tensor, Tensor]:
    """Return weight `[L, R]` and bias `[L]` of linear scores that rank labels by the distance of their prototypes.

    The scores of h are -|h - mu|^2 / s plus a constant that all labels share. Prototypes lie close together and far
    from 0, so they are centred first, for numerical accuracy.

    Args:
        prototypes: mu `[L, R]`.
        squared: s, above 0.
    """
    centre = prototypes.mean(dim=0)
    centred = prototypes - centre
    weight = 2 * centred / squared
    return weight, -centred.square().sum(dim=1) / squared - weight @ centre
