"""A-GEM: the gradient of new examples loses only the part that would raise the loss of old ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from conpet.api import ConPET
from conpet.methods.agem import projected
from conpet.methods.replay_batches import ReplayBatches
from conpet.testing import Trial, tiny_settings, toy_stream
from tests.helpers.static import gradients, shaken, start_task, taught_alike

STREAM = toy_stream(3, 2, 6, 0, 0)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    return Trial(tmp_path_factory.mktemp("a-gem"), tiny_settings(method="a-gem")).taught(STREAM[:2])


def test_projection_by_hand() -> None:
    assert projected(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])).tolist() == [0.5, 0.5]
    assert projected(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 5.0])).tolist() == [1.0, 0.0]
    assert projected(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])).tolist() == [1.0, 2.0]


def gradient_of(batches: ReplayBatches, rows: list[int]) -> list[float]:
    """Return the gradient of the mean cross-entropy of these rows, as one batch, for all parameters."""
    logits = batches.head(batches.module.represent(batches.collated(rows)))
    found = gradients(nn.functional.cross_entropy(logits, batches.targets[rows]), batches)
    return [value for part in found.values() for value in part.flatten().tolist()]


def plain(new: list[float], old: list[float]) -> tuple[list[float], bool]:
    """The paper's equation 11, number by number, and whether there was a conflict."""
    product = sum(g * r for g, r in zip(new, old, strict=True))
    if product >= 0:
        return new, False
    scale = product / sum(r * r for r in old)
    return [g - scale * r for g, r in zip(new, old, strict=True)], True


def test_the_gradient_of_a_step(workspace: ConPET) -> None:
    learner, batches = start_task(workspace, STREAM[2])
    shaken(batches)
    conflicts = []
    for number in range(4):
        step = batches.step(number)
        new, old = (gradient_of(batches, rows) for rows in (step.rows[: step.new_count], step.rows[step.new_count :]))
        expected, conflict = plain(new, old)
        conflicts.append(conflict)
        for parameter in batches.parameters.values():
            parameter.grad = None
        learner.loss(batches, step).backward()
        learner.after_backward(batches, number)
        found = [v for p in batches.parameters.values() if p.grad is not None for v in p.grad.flatten().tolist()]
        assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=1e-5)
        if conflict:
            away = sum(g * r for g, r in zip(found, old, strict=True))
            assert abs(away) < 1e-3 * sum(r * r for r in old)  # to first order, the old loss stays
    assert any(conflicts)


def test_agreeing_gradients_are_left_alone(workspace: ConPET) -> None:
    learner, batches = start_task(workspace, STREAM[2])
    assert batches.rehearsal is not None
    step = batches.step(0)
    twins = step.rows[step.new_count :]
    both = batches.collated([*twins, *twins])
    targets = batches.targets[[*twins, *twins]]
    step = type(step)(0, [*twins, *twins], len(twins), both, targets)  # the old examples as new ones too
    learner.loss(batches, step).backward()
    before = [parameter.grad.clone() for parameter in batches.parameters.values() if parameter.grad is not None]
    learner.after_backward(batches, 0)
    after = [parameter.grad for parameter in batches.parameters.values() if parameter.grad is not None]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_the_first_task_is_learned_as_by_sequential(tmp_path: Path) -> None:
    assert taught_alike(tmp_path, STREAM[:1], {"method": "sequential"}, {"method": "a-gem"})
