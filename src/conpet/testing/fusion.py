"""The contract of fusions."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from conpet.fusion import FUSIONS
from conpet.fusion.base import Evidence, Fusion
from conpet.testing.checks import TOLERANCE, require
from conpet.testing.registration import registered

POSSIBLE = 5
"""Number of possible labels among the 7 of `random_evidence`."""


def check_fusion_contract(fusion: str | type[Fusion] | Fusion) -> None:
    """Check a fusion on random evidence.

    Args:
        fusion: Its registered name, its class, or an instance.

    Raises:
        ContractError: It violates the contract; the message says how.
    """
    with registered("fusion", fusion) as name:
        _check(FUSIONS[name](config=FUSIONS[name].Config(name=name)) if isinstance(fusion, str | type) else fusion)


def _check(fusion: Fusion) -> None:
    for selected in (1, 2):
        evidence = random_evidence(selected=selected)
        before = [tensor.clone() for tensor in _tensors(evidence)]
        targets = torch.arange(len(evidence.tasks)) % POSSIBLE
        fitted = fusion.fit(evidence, targets)
        for candidate in (fusion, fitted):
            scores = candidate.log_probabilities(evidence)
            require(not bool(scores.isnan().any()), "a score is NaN")
            require(bool(((scores.exp().sum(dim=1) - 1).abs() < TOLERANCE).all()), "scores do not sum to 1")
            require(bool((scores[evidence.impossible] == -torch.inf).all()), "an impossible label has a score")
            single = candidate.log_probabilities(_rows(evidence, slice(3, 4)))
            require(torch.allclose(scores[3:4], single, atol=TOLERANCE), "a row's scores depend on other rows")
            decided = candidate.decided(evidence)
            require(decided.dtype is torch.bool and decided.shape == (len(scores),), "`decided` is not a bool per row")
            require(
                torch.equal(decided[3:4], candidate.decided(_rows(evidence, slice(3, 4)))),
                "whether a row is decided depends on other rows",
            )
            again = type(candidate)(config=candidate.config, **json.loads(json.dumps(candidate.to_json())))
            require(
                torch.equal(scores, again.log_probabilities(evidence)),
                "the fusion changes when saved as JSON and loaded",
            )
        require(type(fusion)(config=fusion.config, **fusion.to_json()) == fusion, "fitting changed the fusion itself")
        require(all(map(torch.equal, before, _tensors(evidence))), "the fusion changed its evidence")
    nothing = _rows(random_evidence(), slice(0, 0))
    require(
        fusion.fit(nothing, torch.zeros(0, dtype=torch.int64)) == fusion,
        "fitting to no examples must not change the fusion",
    )


def random_evidence(rows: int = 40, selected: int = 1, seed: int = 0) -> Evidence:
    """Make random evidence over three tasks of 3, 2 and 2 labels; the last task has another kind than the examples.

    Args:
        rows: Number of examples.
        selected: Number of modules run for each example, 1 or 2.
        seed: Seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    lda = torch.log_softmax(torch.randn(rows, len(owner), generator=generator, dtype=torch.float32), dim=1)
    logistic = torch.log_softmax(torch.randn(rows, len(owner), generator=generator, dtype=torch.float32), dim=1)
    for scores in (lda, logistic):
        scores[:, POSSIBLE:] = -torch.inf
    tasks = torch.randn(rows, 3, generator=generator, dtype=torch.float32)
    tasks[:, 2] = -torch.inf
    tasks = torch.log_softmax(tasks, dim=1)
    modules = 5 * torch.randn(rows, len(owner), generator=generator, dtype=torch.float32)
    chosen = torch.zeros(rows, 3, dtype=torch.bool).scatter_(1, tasks.topk(selected, dim=1).indices, value=True)
    modules[~chosen[:, owner]] = -torch.inf
    return Evidence(lda, logistic, tasks, modules, owner)


def _tensors(evidence: Evidence) -> list[Tensor]:
    """Return the tensors with one row per example."""
    return [evidence.lda, evidence.logistic, evidence.tasks, evidence.modules]


def _rows(evidence: Evidence, rows: slice) -> Evidence:
    lda, logistic, tasks, modules = (tensor[rows] for tensor in _tensors(evidence))
    return Evidence(lda, logistic, tasks, modules, evidence.owner)
