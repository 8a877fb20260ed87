"""The contract of selectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conpet.api import ConPET
from conpet.data import Example
from conpet.selectors.base import Selector
from conpet.testing.checks import TOLERANCE, Trial, live_of, require
from conpet.testing.methods import checked_with
from conpet.testing.toy import toy_stream


def check_selector_contract(selector: str | type[Selector] | Selector) -> None:
    """Check a selector within the method `dynamic`: the contract of methods, and the scores of the selector.

    Args:
        selector: Its registered name, its class, or an instance.

    Raises:
        ContractError: It violates the contract; the message says how.
    """
    with checked_with("selector", selector, "dynamic", "selector") as trial:
        check_selector_scores(trial)


def check_selector_scores(trial: Trial) -> None:
    """Check that a selector's scores are probabilities, also for a single task, and better than chance for three."""
    stream = toy_stream(3, 2, 12, 2, 8)
    workspace = trial.workspace()
    for number, task in enumerate(stream, start=1):
        workspace.learn(task, evaluate=False, gate=False)
        scores = [_task_scores(workspace, past.test) for past in stream[:number]]
        require(all(rows.shape == (len(task.test), number) for rows in scores), "there must be a score for every task")
        sums = torch.cat(scores).exp().sum(dim=1)
        require(bool(((sums - 1).abs() < TOLERANCE).all()), f"scores sum to {sums.tolist()} and not to 1")
    right = torch.cat([rows.argmax(dim=1) == index for index, rows in enumerate(scores)])
    require(
        float(right.float().mean()) > 0.6, f"it finds the task of only {float(right.float().mean()):.0%} of the inputs"
    )


def _task_scores(workspace: ConPET, examples: Sequence[Example]) -> Tensor:
    live = live_of(workspace)
    method, state = live.method, live.state
    kind = examples[0].kind
    tasks = method.score(state, method.encode(state, examples, kind, keep=False), kind).tasks
    require(tasks is not None, "the method has no selector")
    return torch.zeros(0, dtype=torch.float32) if tasks is None else tasks
