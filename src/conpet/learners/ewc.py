"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from conpet.config import MethodOptions, Positive
from conpet.learners.session import HEAD_PARAMETERS, Session, Step
from conpet.learners.static import PER_LABEL, StaticLearner


class EwcOptions(MethodOptions):
    """What may be set for `ewc`.

    Attributes:
        penalty: The paper's lambda: how much old tasks weigh beside the new one.
        fisher_examples: Examples of a task its Fisher information is estimated on.
    """

    penalty: Annotated[float, Field(ge=0)] = 3000.0
    fisher_examples: Positive = 100


class EwcLearner(StaticLearner):
    """Elastic weight consolidation, EWC (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3), on one PET module.

    Minimises, on new examples only, for parameters theta of the module and the head and past tasks t,

        L(theta) = CE(theta) + lambda / 2 sum_t sum_i F_t,i (theta_i - theta_t,i)^2

    CE is the cross-entropy over all labels seen, theta_t what training ended with at task t, and F_t the diagonal of
    the Fisher information there: the mean over examples of (d log p(y | x) / d theta_i)^2 with y drawn from the
    model's own p(. | x), not the example's label (which would give the "empirical" Fisher).

    Stored: two numbers a parameter, however many tasks there are. With S = sum_t F_t and the anchor
    A = sum_t F_t theta_t / S the sum over tasks is S (theta - A)^2 and a constant that no gradient sees. A row of the
    head has no penalty from tasks before its label came. The penalty of a task that was removed or learned anew stays.

    Not comparable: the paper's tasks have the same outputs or ones of their own; here the head grows, and nothing in
    the penalty speaks against scores of new labels that rise for all inputs.
    """

    name = "ewc"
    replays: ClassVar[bool] = False
    Options: ClassVar[type[MethodOptions]] = EwcOptions
    options: EwcOptions

    def before(self, session: Session) -> None:
        """Read the sums over past tasks."""
        device = session.backbone.device
        session.notes |= {name: value.to(device) for name, value in self.carried(session.labels).items()}

    def loss(self, session: Session, step: Step) -> Tensor:
        """Return the cross-entropy of new examples and the penalty of past tasks."""
        penalty = sum(
            (session.notes[_importance(name)] * (parameter - session.notes[_anchor(name)]).square()).sum()
            for name, parameter in session.parameters.items()
            if _importance(name) in session.notes
        )
        return super().loss(session, step) + self.options.penalty / 2 * penalty

    def after(self, session: Session) -> None:
        """Add the task's Fisher information to the sums."""
        generator = torch.Generator().manual_seed(session.work.seed)
        rows = torch.randperm(session.new, generator=generator)[: self.options.fisher_examples].tolist()

        def log_probabilities(row: int) -> Tensor:
            return torch.log_softmax(session.head(session.module.represent(session.collated([row])))[0], dim=0)

        parameters = session.parameters
        found = diagonal_fisher(list(parameters.values()), log_probabilities, rows, generator)
        for (name, parameter), fisher in zip(parameters.items(), found, strict=True):
            old = session.notes.get(_importance(name), torch.zeros_like(fisher))
            anchor = session.notes.get(_anchor(name), torch.zeros_like(fisher))
            session.notes[_importance(name)], session.notes[_anchor(name)] = consolidated(
                old, anchor, fisher, parameter.detach()
            )

    def kept(self, session: Session) -> dict[str, Tensor]:
        """Return the sums over all tasks so far."""
        return session.notes


def diagonal_fisher(
    parameters: Sequence[Tensor],
    log_probabilities: Callable[[int], Tensor],
    rows: Sequence[int],
    generator: torch.Generator,
) -> list[Tensor]:
    """Estimate the diagonal of the Fisher information: E_x E_{y ~ p(. | x)} (d log p(y | x) / d theta_i)^2.

    Args:
        parameters: The parameters theta.
        log_probabilities: Row of an example to log p(. | x) `[L]`.
        rows: The examples; for each, one label is drawn.
        generator: Draws the labels.

    Returns:
        One tensor a parameter, of its shape.
    """
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for row in rows:
        found = log_probabilities(row)
        label = int(torch.multinomial(found.detach().exp().cpu(), 1, generator=generator))
        for total, gradient in zip(sums, torch.autograd.grad(found[label], parameters), strict=True):
            total += gradient.square()
    return [total / len(rows) for total in sums]


def consolidated(importance: Tensor, anchor: Tensor, fisher: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Add one more quadratic F (theta - value)^2 to S (theta - A)^2, but for a constant.

    Args:
        importance: S.
        anchor: A.
        fisher: F, of the same shape, not negative.
        value: Where its minimum is.

    Returns:
        S + F, and the mean of `anchor` and `value` weighted by S and F (`anchor` where both are 0).
    """
    total = importance + fisher
    share = fisher / total.clamp(min=torch.finfo(total.dtype).tiny)
    return total, anchor + share * (value - anchor)


def _importance(name: str) -> str:
    return f"{_prefix(name)}importance.{name}"


def _anchor(name: str) -> str:
    return f"{_prefix(name)}anchor.{name}"


def _prefix(name: str) -> str:
    return PER_LABEL if name.startswith(HEAD_PARAMETERS) else ""
