"""The contract of rules."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from conpet.fusion import FUSIONS
from conpet.fusion.base import Evidence, Fusion
from conpet.testing.checks import TOLERANCE, require

POSSIBLE = 5
"""How many of the 7 labels of `random_evidence` can be meant."""


def check_fusion_contract(name: str) -> None:
    """Check a registered rule on random evidence.

    Args:
        name: Its name in `conpet.fusion.rules.FUSIONS`.

    Raises:
        ContractError: It breaks a promise; the message says which.
    """
    rule: Fusion = FUSIONS[name]()
    for selected in (1, 2):
        evidence = random_evidence(selected=selected)
        before = [tensor.clone() for tensor in _tensors(evidence)]
        targets = torch.arange(len(evidence.tasks)) % POSSIBLE
        fitted = rule.fit(evidence, targets)
        for one in (rule, fitted):
            scores = one.log_probabilities(evidence)
            require(not bool(scores.isnan().any()), "there is a NaN among the scores")
            require(bool(((scores.exp().sum(dim=1) - 1).abs() < TOLERANCE).all()), "scores do not sum to 1")
            require(bool((scores[evidence.impossible] == -torch.inf).all()), "a label that cannot be meant has a score")
            single = one.log_probabilities(_rows(evidence, slice(3, 4)))
            require(torch.allclose(scores[3:4], single, atol=TOLERANCE), "a row's scores depend on other rows")
            again = type(one)(**json.loads(json.dumps(one.to_json())))
            require(torch.equal(scores, again.log_probabilities(evidence)), "the rule is lost by way of JSON")
        require(type(rule)(**rule.to_json()) == rule, "fitting has changed the rule itself")
        require(all(map(torch.equal, before, _tensors(evidence))), "the rule has changed its evidence")
    nothing = _rows(random_evidence(), slice(0, 0))
    require(rule.fit(nothing, torch.zeros(0, dtype=torch.int64)) == rule, "fitting to nothing must change nothing")


def random_evidence(rows: int = 40, selected: int = 1, seed: int = 0) -> Evidence:
    """Make evidence over three tasks of 3, 2 and 2 labels, the last one of another kind than the examples.

    Args:
        rows: Number of examples.
        selected: How many modules were run for each, 1 or 2.
        seed: Of the numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    lda = torch.log_softmax(torch.randn(rows, len(owner), generator=generator), dim=1)
    ridge = torch.rand(rows, len(owner), generator=generator)
    for closed in (lda, ridge):
        closed[:, POSSIBLE:] = -torch.inf
    tasks = torch.randn(rows, 3, generator=generator)
    tasks[:, 2] = -torch.inf
    tasks = torch.log_softmax(tasks, dim=1)
    modules = 5 * torch.randn(rows, len(owner), generator=generator)
    chosen = torch.zeros(rows, 3, dtype=torch.bool).scatter_(1, tasks.topk(selected, dim=1).indices, value=True)
    modules[~chosen[:, owner]] = -torch.inf
    return Evidence(lda, ridge, tasks, modules, owner)


def _tensors(evidence: Evidence) -> list[Tensor]:
    """Return all that belongs to examples."""
    return [evidence.lda, evidence.ridge, evidence.tasks, evidence.modules]


def _rows(evidence: Evidence, rows: slice) -> Evidence:
    lda, ridge, tasks, modules = (tensor[rows] for tensor in _tensors(evidence))
    return Evidence(lda, ridge, tasks, modules, evidence.owner)
