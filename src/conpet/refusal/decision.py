"""Answer, ask or decline: the decision that costs least, or that reaches the wanted coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conpet.config import RefusalConfig
from conpet.refusal.calibration import Thresholds
from conpet.types import Decision

LISTED = 0.9
"""The candidates of a question have at least this share of the probability of all labels, if there are not too many."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision for one input.

    Attributes:
        decision: "answer", "ask" or "decline".
        columns: The candidates of a question, as columns of the probabilities, likeliest first.
        probabilities: Probability of each candidate.
        reason: Why, in a sentence.
    """

    decision: Decision
    columns: tuple[int, ...]
    probabilities: tuple[float, ...]
    reason: str


def choose_by_costs(probabilities: Tensor, inside: Tensor, config: RefusalConfig) -> list[Choice]:
    """Return the decision with the lowest expected cost for each of n inputs.

    With `p` the probability of the likeliest label, `s` that of all candidates of a question, and `i` that of belonging
    to something learned:

        answer   error (1 - p)
        ask      question + error (i - s) + refusal (1 - i)
        decline  error i + refusal (1 - i)

    If none of the candidates of a question is right, the input is refused.

    Args:
        probabilities: Probability of each label, `i` in total for each input `[n, C]`.
        inside: `i` `[n]`.
        config: The costs.
    """
    best = probabilities.topk(min(config.candidates, probabilities.shape[1]), dim=1)
    sums = best.values.cumsum(dim=1)
    counts = 1 + (sums[:, :-1] < LISTED * inside.unsqueeze(1)).sum(dim=1)
    listed = sums.gather(1, counts.unsqueeze(1) - 1).squeeze(1)
    outside = config.refusal * (1 - inside)
    costs = torch.stack(
        [
            config.error * (1 - best.values[:, 0]),
            config.question + config.error * (inside - listed) + outside,
            config.error * inside + outside,
        ],
        dim=1,
    )
    choices = []
    rows = zip(best.values.tolist(), best.indices.tolist(), counts.tolist(), inside.tolist(), strict=True)
    for (values, columns, count, belongs), number in zip(rows, costs.argmin(dim=1).tolist(), strict=True):
        if number == 0:
            choices.append(_answer(values[0]))
        elif number == 1:
            choices.append(_ask(columns[:count], values[:count], belongs))
        else:
            choices.append(_decline(belongs))
    return choices


def choose_by_coverage(
    probabilities: Tensor, inside: Tensor, labels: Sequence[str], thresholds: Thresholds
) -> list[Choice]:
    """Return the decision for each of n inputs by the labels that reach their thresholds: one, several or none.

    Args:
        probabilities: Probability of each label `[n, C]`.
        inside: Probability of belonging to something learned `[n]`.
        labels: The label of each column.
        thresholds: The thresholds of the wanted coverage.
    """
    least = torch.tensor([thresholds.least[label] for label in labels], dtype=probabilities.dtype)
    likely = probabilities >= least
    choices = []
    for row, belongs in enumerate(inside.tolist()):
        columns = likely[row].nonzero().squeeze(1)
        values = probabilities[row, columns]
        order = values.argsort(descending=True)
        ranked, listed = columns[order].tolist(), values[order].tolist()
        if not ranked:
            choices.append(_decline(belongs))
        elif len(ranked) == 1:
            choices.append(_answer(listed[0]))
        else:
            choices.append(_ask(ranked, listed, belongs))
    return choices


def _answer(probability: float) -> Choice:
    return Choice("answer", (), (), f"right with probability {probability:.2f}")


def _ask(columns: Sequence[int], probabilities: Sequence[float], inside: float) -> Choice:
    together = sum(probabilities)
    among = f"one of {len(columns)} candidates is right" if len(columns) > 1 else "the only candidate is right"
    reason = f"{among} with probability {together:.2f}; belongs to something learned with {inside:.2f}"
    return Choice("ask", tuple(columns), tuple(probabilities), reason)


def _decline(inside: float) -> Choice:
    return Choice("decline", (), (), f"belongs to something learned with probability {inside:.2f}")
