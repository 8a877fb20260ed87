"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from conpet.config import MethodConfig, Positive
from conpet.methods.replay_batches import HEAD_PARAMETERS, ReplayBatches, TrainingStep
from conpet.methods.static import PER_LABEL, StaticMethod, carried_tensors

_IMPORTANCE, _ANCHOR = "importance.", "anchor."


@dataclass(frozen=True, slots=True)
class Quadratic:
    """The penalty S (theta - A)^2: the sum over tasks of F_t (theta - theta_t)^2, but for a constant.

    Attributes:
        importance: S = sum_t F_t, by name of a parameter.
        anchor: A = sum_t F_t theta_t / S.
    """

    importance: Mapping[str, Tensor]
    anchor: Mapping[str, Tensor]

    def at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return its value, a scalar."""
        terms = [
            (importance * (parameters[name] - self.anchor[name]).square()).sum()
            for name, importance in self.importance.items()
        ]
        return torch.stack(terms).sum() if terms else torch.tensor(0.0)

    def plus(self, fisher: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Quadratic:
        """Return the sum with F (theta - value)^2; the anchor is the mean of both minima, weighted by S and F."""
        importance, anchor = {}, {}
        for name, more in fisher.items():
            have = self.importance.get(name, torch.zeros_like(more))
            place = self.anchor.get(name, torch.zeros_like(more))
            importance[name] = have + more
            share = more / importance[name].clamp(min=torch.finfo(more.dtype).tiny)  # where all is 0, nothing moves
            anchor[name] = place + share * (values[name] - place)
        return Quadratic(importance, anchor)


class EwcConfig(MethodConfig):
    """Options of the method.

    Attributes:
        penalty: The paper's lambda: how much old tasks weigh beside the new one.
        fisher_examples: Examples of a task its Fisher information is estimated on.
    """

    penalty: Annotated[float, Field(ge=0)] = 3000.0
    fisher_examples: Positive = 100


class EwcMethod(StaticMethod):
    """Elastic weight consolidation, EWC (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3), on one PET module.

    Minimises, on new examples only, for parameters theta of the module and the head and past tasks t,

        L(theta) = CE(theta) + lambda / 2 sum_t sum_i F_t,i (theta_i - theta_t,i)^2

    CE is the cross-entropy over all labels seen, theta_t what training ended with at task t, and F_t the diagonal of
    the Fisher information there: the mean over examples of (d log p(y | x) / d theta_i)^2 with y drawn from the
    model's own p(. | x), not the example's label (which would give the "empirical" Fisher).

    Stored: two numbers a parameter, however many tasks there are (see `Quadratic`). A row of the head has no penalty
    from tasks before its label came. The penalty of a task that was removed or learned anew stays. Beside the steps of
    every method, a task costs a forward and a backward pass of `fisher_examples` single examples.

    Not comparable: the paper's tasks have the same outputs or ones of their own; here the head grows, and nothing in
    the penalty speaks against scores of new labels that rise for all inputs.
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

        def of(kind: str) -> dict[str, Tensor]:
            keys = {name: _key(kind, name) for name in batches.parameters}
            return {name: carried[key] for name, key in keys.items() if key in carried}

        batches.notes = Quadratic(of(_IMPORTANCE), of(_ANCHOR))

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of new examples and the penalty of past tasks."""
        past: Quadratic = batches.notes
        return super().loss(batches, step) + self.config.penalty / 2 * past.at(batches.parameters)

    def after_training(self, batches: ReplayBatches) -> None:
        """Add the task's Fisher information to the penalty."""
        generator = torch.Generator().manual_seed(batches.context.seed)
        rows = batches.some(range(batches.new), self.config.fisher_examples)

        def log_probabilities(row: int) -> Tensor:
            return torch.log_softmax(batches.head(batches.module.represent(batches.collated([row])))[0], dim=0)

        past: Quadratic = batches.notes
        fisher = diagonal_fisher(batches.parameters, log_probabilities, rows, generator)
        batches.notes = past.plus(fisher, {name: value.detach() for name, value in batches.parameters.items()})

    def keep(self, batches: ReplayBatches) -> dict[str, Tensor]:
        """Return the penalty of all tasks so far."""
        past: Quadratic = batches.notes
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
        log_probabilities: Row of an example to log p(. | x) `[L]`.
        rows: The examples; for each, one label is drawn.
        generator: Draws the labels.

    Returns:
        It, in the shape of each parameter.
    """
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for row in rows:
        found = log_probabilities(row)
        label = int(torch.multinomial(found.detach().exp().cpu(), 1, generator=generator))
        gradients = torch.autograd.grad(found[label], list(parameters.values()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient.square()
    return {name: total / len(rows) for name, total in sums.items()}


def _key(kind: str, name: str) -> str:
    return f"{PER_LABEL if name.startswith(HEAD_PARAMETERS) else ''}{kind}{name}"
