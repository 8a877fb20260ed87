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
    features whose blocks have the norm 1.

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
        weight: Tensor | None = None,
        free: Sequence[int] | None = None,
    ) -> LogisticWeights:
        """Train weights further.

        Args:
            features: Features of examples, float32 `[n, F]`.
            targets: The column of each example's label `[n]`.
            start: The weights to start from; they are not changed.
            block: Width d of a block of the features; each block has the norm `sqrt(d)`.
            weight: Weight of each example in the loss `[n]`; None for 1.
            free: Columns to train; the others take part in the softmax and stay as they are. None for all.
        """
        scale = block**-0.5
        scaled = features.to("cpu", torch.float32) * scale
        columns = torch.arange(len(start.labels)) if free is None else torch.tensor(free, dtype=torch.int64)
        parameters = torch.cat([start.weight[:, columns] / scale, start.bias[columns].unsqueeze(0)]).requires_grad_()
        fixed = start.logits(features) if free is not None else None
        importance = torch.ones(len(targets), dtype=torch.float32) if weight is None else weight
        total = importance.sum()
        optimizer = torch.optim.LBFGS(
            [parameters], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe", tolerance_change=TOLERANCE
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = torch.addmm(parameters[-1], scaled, parameters[:-1])
            if fixed is not None:
                logits = fixed.index_copy(1, columns, logits)
            losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            penalty = parameters[:-1].square().sum() / (2 * self.inverse_penalty)
            value = ((losses * importance).sum() + penalty) / total
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        trained = parameters.detach()
        return LogisticWeights(
            start.labels,
            start.weight.index_copy(1, columns, trained[:-1] * scale),
            start.bias.index_copy(0, columns, trained[-1]),
        )
