"""Logistic regression on features, trained further at a bounded cost when tasks come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from conpet.errors import CorruptionError

WEIGHT, BIAS = "weight", "bias"
MAX_ITERATIONS = 50
"""Most iterations of L-BFGS for a change. Training starts from the weights learned so far."""
TOLERANCE = 3e-6
"""Training stops when an iteration lowers the mean loss by less: after some 25 iterations, close to the optimum."""
REVISED = 30
"""Most other columns that are trained with new ones: those with the largest gradient."""
LAST_LAYER_WEIGHT = 2.0
"""How much the last layer of an encoder weighs beside each earlier depth, for plain text.

Frozen features give all depths the same norm, but the last layer was trained to represent text. Chosen on training
examples that no benchmark uses (`benchmarks/choose_last_weight.py`).
"""
NEW_ITERATIONS = 12
"""Most iterations that train new columns alone."""
REVISING_ITERATIONS = 25
"""Most iterations that train them with the revised ones."""


@dataclass(frozen=True, eq=False)
class LogisticWeights:
    """The weights of some labels.

    Attributes:
        labels: The label of each column.
        weight: float32 `[F, C]`.
        bias: float32 `[C]`.
    """

    labels: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    @classmethod
    def zero(cls, width: int, labels: Sequence[str] = ()) -> LogisticWeights:
        """Return weights of 0 for features of a width."""
        count = len(labels)
        weight, bias = torch.zeros(width, count, dtype=torch.float32), torch.zeros(count, dtype=torch.float32)
        return cls(tuple(labels), weight, bias)

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits `[n, C]`, float32, of features `[n, F]`."""
        return torch.addmm(self.bias, features.to("cpu", torch.float32), self.weight)

    def for_labels(self, labels: Sequence[str]) -> LogisticWeights:
        """Return the weights of these labels, in this order; 0 for those that are not known."""
        column = {label: index for index, label in enumerate(self.labels)}
        known = [index for index, label in enumerate(labels) if label in column]
        columns = [column[labels[index]] for index in known]
        chosen = LogisticWeights.zero(len(self.weight), labels)
        chosen.weight[:, known] = self.weight[:, columns]
        chosen.bias[known] = self.bias[columns]
        return chosen

    def renamed(self, names: Mapping[str, str | None]) -> LogisticWeights:
        """Return the weights with labels renamed, or removed where the new name is None."""
        kept = {new: label for label in self.labels if (new := names.get(label, label)) is not None}
        chosen = self.for_labels(list(kept.values()))
        return LogisticWeights(tuple(kept), chosen.weight, chosen.bias)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors for storage, without the labels."""
        return {WEIGHT: self.weight.contiguous(), BIAS: self.bias.contiguous()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], labels: Sequence[str]) -> LogisticWeights:
        """Invert `to_tensors`.

        Raises:
            CorruptionError: A tensor is missing, or does not fit the labels.
        """
        count = len(labels)
        if set(tensors) != {WEIGHT, BIAS} or tensors[WEIGHT].shape[1:] != (count,) or len(tensors[BIAS]) != count:
            raise CorruptionError(
                f"the weights of the logistic regression do not fit its {count} labels; restore a backup"
            )
        return cls(tuple(labels), tensors[WEIGHT], tensors[BIAS])


@dataclass(frozen=True)
class LogisticRegression:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS.

    From weights of 0 and with all columns free, it is scikit-learn's `LogisticRegression(C=inverse_penalty)` on
    features whose blocks have the norm 1. The last block may weigh more; then its weights are penalised less.

    Args:
        inverse_penalty: scikit-learn's C, above 0. The default is a common choice for sentence embeddings.
    """

    inverse_penalty: float = 30.0
    name: ClassVar[str] = "logistic"

    def fit(
        self,
        features: Tensor,
        targets: Tensor,
        start: LogisticWeights,
        *,
        block: int,
        last_weight: float = 1.0,
        weight: Tensor | None = None,
        free: Sequence[int] | None = None,
        new: Sequence[int] = (),
    ) -> LogisticWeights:
        """Train weights further.

        Args:
            features: Features of examples, float32 `[n, F]`.
            targets: The column of each example's label `[n]`.
            start: The weights to start from; they are not changed.
            block: Width d of a block of the features; each block has the norm `sqrt(d)`.
            last_weight: Norm of the last block relative to each of the others; the norm of all together stays.
            weight: Weight of each example in the loss `[n]`; None for 1.
            free: Columns to train; the others take part in the softmax and stay as they are. None for all.
            new: Columns among these that are new. If there are more than `REVISED` others, the new ones are trained
                alone, and then with those whose gradient is the largest, so that the cost does not grow with the number
                of columns trained before. Empty to train all free columns together.
        """
        scale = _scale(start.weight.shape[0], block, last_weight)
        importance = torch.ones(len(targets), dtype=torch.float32) if weight is None else weight
        loss = _Loss(features.to("cpu", torch.float32) * scale, targets, importance, 2 * self.inverse_penalty)
        parameters = torch.cat([start.weight / scale.unsqueeze(1), start.bias.unsqueeze(0)])
        columns = torch.arange(len(start.labels)) if free is None else torch.tensor(free, dtype=torch.int64)
        added = torch.tensor(new, dtype=torch.int64)
        others = columns[~torch.isin(columns, added)]
        if new and len(others) > REVISED:
            parameters = loss.minimised(parameters, added, NEW_ITERATIONS)
            largest = loss.gradient(parameters)[:, others].norm(dim=0).topk(REVISED).indices
            parameters = loss.minimised(parameters, torch.cat([added, others[largest]]), REVISING_ITERATIONS)
        else:
            parameters = loss.minimised(parameters, columns, MAX_ITERATIONS)
        return LogisticWeights(start.labels, parameters[:-1] * scale.unsqueeze(1), parameters[-1])


def _scale(width: int, block: int, last_weight: float) -> Tensor:
    """Return the factor of each feature `[F]`: blocks get the norm 1, but the last one weighs more."""
    weights = torch.ones(width // block, dtype=torch.float32)
    weights[-1] = last_weight
    return (weights / (weights.square().mean() * block).sqrt()).repeat_interleave(block)


@dataclass(frozen=True, slots=True, eq=False)
class _Loss:
    """The cross-entropy of n examples with a penalty, as a function of weights and biases `[F + 1, C]`.

    Attributes:
        rows: Scaled features `[n, F]`.
        targets: Column of each example's label `[n]`.
        importance: Weight of each example `[n]`.
        penalised: Divisor of the sum of squared weights.
    """

    rows: Tensor
    targets: Tensor
    importance: Tensor
    penalised: float

    def logits(self, parameters: Tensor) -> Tensor:
        """Return the logits `[n, C]`."""
        return torch.addmm(parameters[-1], self.rows, parameters[:-1])

    def gradient(self, parameters: Tensor) -> Tensor:
        """Return the gradient with respect to the weights `[F, C]`, up to a common factor."""
        surplus = self.logits(parameters).softmax(dim=1)
        surplus[torch.arange(len(surplus)), self.targets] -= 1
        return torch.addmm(
            parameters[:-1], self.rows.T, surplus * self.importance.unsqueeze(1), beta=2 / self.penalised
        )

    def minimised(self, parameters: Tensor, columns: Tensor, iterations: int) -> Tensor:
        """Return parameters with these columns trained by L-BFGS, at most so many iterations."""
        trained = parameters[:, columns].requires_grad_()
        count = parameters.shape[1]
        places = torch.full((count,), -1, dtype=torch.int64).index_copy(0, columns, torch.arange(len(columns)))
        place = places[self.targets]
        # What the other columns contribute stays the same: their share of the softmax, and the logits of their labels.
        fixed, given = self.rows.new_empty(len(self.rows), 0), self.rows.new_zeros(len(self.rows))
        if len(columns) < count:
            others = self.logits(parameters)
            given = others.gather(1, self.targets.unsqueeze(1)).squeeze(1)
            fixed = others.index_fill(1, columns, -torch.inf).logsumexp(dim=1, keepdim=True)
        total = self.importance.sum()
        optimizer = torch.optim.LBFGS(
            [trained], max_iter=iterations, line_search_fn="strong_wolfe", tolerance_change=TOLERANCE
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = self.logits(trained)
            right = logits.gather(1, place.clamp(min=0).unsqueeze(1)).squeeze(1).where(place >= 0, given)
            losses = torch.cat([logits, fixed], dim=1).logsumexp(dim=1) - right
            value = ((losses * self.importance).sum() + trained[:-1].square().sum() / self.penalised) / total
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return parameters.index_copy(1, columns, trained.detach())
