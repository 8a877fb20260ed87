"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from conpet.methods.replay_batches import HEAD_PARAMETERS, ReplayBatches, TrainingStep
from conpet.methods.settings import EwcConfig
from conpet.methods.static import PER_LABEL, StaticMethod, carried_tensors

_IMPORTANCE, _ANCHOR = "importance.", "anchor."


@dataclass(frozen=True, slots=True)
class Quadratic:
    """The penalty S (theta - A)^2: the sum over tasks of F_t (theta - theta_t)^2, up to a constant.

    Attributes:
        importance: S = sum_t F_t, by parameter name.
        anchor: A = sum_t F_t theta_t / S.
    """

    importance: Mapping[str, Tensor]
    anchor: Mapping[str, Tensor]

    def at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the penalty at these parameters, a scalar."""
        terms = [
            (importance * (parameters[name] - self.anchor[name]).square()).sum()
            for name, importance in self.importance.items()
        ]
        return torch.stack(terms).sum() if terms else torch.tensor(0.0, dtype=torch.float32)

    def plus(self, fisher: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Quadratic:
        """Return this penalty plus F (theta - value)^2; its anchor is the mean of both minima, weighted by S and F."""
        importance, anchor = {}, {}
        for name, added in fisher.items():
            importance[name] = self.importance.get(name, torch.zeros_like(added)) + added
            share = added / importance[name].clamp(min=torch.finfo(added.dtype).tiny)  # 0 where no task has importance
            former = self.anchor.get(name, torch.zeros_like(added))
            anchor[name] = former + share * (values[name] - former)
        return Quadratic(importance, anchor)


class EwcMethod(StaticMethod):
    """Elastic weight consolidation, EWC (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3), on one PET module.

    With theta the parameters of module and head, and t the past tasks, it minimises on new examples only

        L(theta) = CE(theta) + lambda / 2 sum_t sum_i F_t,i (theta_i - theta_t,i)^2

    CE is the cross-entropy over all labels seen, theta_t the parameters after training task t, and F_t the diagonal
    of the Fisher information there: the mean over examples of (d log p(y | x) / d theta_i)^2 with y drawn from the
    model's p(. | x), not the example's label (that would be the "empirical" Fisher).

    Stored: two numbers for each parameter, whatever the number of tasks (see `Quadratic`). A row of the head has no
    penalty from tasks before its label existed. The penalty of a task that was removed or learned again remains. In
    addition to the steps of every method, a task costs a forward and a backward pass of `fisher_examples` examples.

    Not comparable with the paper: there tasks share their outputs or have separate ones; here the head grows, and the
    penalty does not keep the scores of new labels from rising for all inputs.
    """

    name = "ewc"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

    Config = EwcConfig
    config: EwcConfig

    def before_training(self, batches: ReplayBatches) -> None:
        """Read the penalty of past tasks."""
        carried = {
            name: value.to(batches.backbone.device)
            for name, value in carried_tensors(batches.state, batches.labels).items()
        }

        def carried_by_parameter(kind: str) -> dict[str, Tensor]:
            keys = {name: _key(kind, name) for name in batches.parameters}
            return {name: carried[key] for name, key in keys.items() if key in carried}

        batches.method_data = Quadratic(carried_by_parameter(_IMPORTANCE), carried_by_parameter(_ANCHOR))

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of the new examples plus the penalty of past tasks."""
        past: Quadratic = batches.method_data
        return super().loss(batches, step) + self.config.penalty / 2 * past.at(batches.parameters)

    def after_training(self, batches: ReplayBatches) -> None:
        """Add the task's Fisher information to the penalty."""
        generator = torch.Generator().manual_seed(batches.context.seed)
        rows = batches.sample(range(batches.new_count), self.config.fisher_examples)

        def log_probabilities(row: int) -> Tensor:
            return torch.log_softmax(batches.head(batches.module.represent(batches.collated([row])))[0], dim=0)

        past: Quadratic = batches.method_data
        fisher = diagonal_fisher(batches.parameters, log_probabilities, rows, generator)
        batches.method_data = past.plus(fisher, {name: value.detach() for name, value in batches.parameters.items()})

    def keep(self, batches: ReplayBatches) -> dict[str, Tensor]:
        """Return the penalty of all tasks so far."""
        past: Quadratic = batches.method_data
        importance = {_key(_IMPORTANCE, name): value for name, value in past.importance.items()}
        return importance | {_key(_ANCHOR, name): value for name, value in past.anchor.items()}


def diagonal_fisher(
    parameters: Mapping[str, Tensor],
    log_probabilities: Callable[[int], Tensor],
    rows: Sequence[int],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Estimate the diagonal of the Fisher information: E_x E_{y ~ p(. | x)} (d log p(y | x) / d theta_i)^2.

    Args:
        parameters: The parameters theta, by name.
        log_probabilities: Maps the row of an example to log p(. | x) `[L]`.
        rows: Rows of the examples; one label is drawn for each.
        generator: Draws the labels.

    Returns:
        The diagonal by name, in the shape of each parameter.
    """
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for row in rows:
        log_p = log_probabilities(row)
        label = int(torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator))
        gradients = torch.autograd.grad(log_p[label], list(parameters.values()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient.square()
    return {name: total / len(rows) for name, total in sums.items()}


def _key(kind: str, name: str) -> str:
    return f"{PER_LABEL if name.startswith(HEAD_PARAMETERS) else ''}{kind}{name}"
