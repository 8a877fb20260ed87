"""LwF: old outputs for new examples are recorded before training; each old task has its own softmax."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import pytest
import torch

from conpet.api import ConPET
from conpet.methods.lwf import distillation
from conpet.testing import Trial, live_of, tiny_settings, toy_stream
from tests.helpers.live import scored
from tests.helpers.static import outputs, shaken, start_task, taught_alike

STREAM = toy_stream(3, 3, 6, 0, 0)
WEIGHT = 1.7


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    """Return a workspace with two tasks, trained with dropout."""
    settings = tiny_settings(method={"name": "lwf", "distillation": WEIGHT}, module={"dropout": 0.5})
    return Trial(tmp_path_factory.mktemp("lwf"), settings).taught(STREAM[:2])


def probabilities(logits: list[float]) -> list[float]:
    total = sum(exp(value) for value in logits)
    return [exp(value) / total for value in logits]


def softened(logits: list[float]) -> list[float]:
    """The paper's y' (eq. 4), from probabilities, at T = 2."""
    roots = [p**0.5 for p in probabilities(logits)]
    return [root / sum(roots) for root in roots]


def plain_distillation(now: list[float], then: list[float]) -> float:
    """The paper's L_old (eq. 3) of one example."""
    return -sum(old * log(new) for old, new in zip(softened(then), softened(now), strict=True))


def test_distillation_by_hand() -> None:
    # Softened, the old answers are 1/2 and 1/2, the new ones 3/4 and 1/4.
    now, then = torch.tensor([[2 * log(3.0), 0.0]]), torch.tensor([[1.0, 1.0]])
    assert float(distillation(now, then)) == pytest.approx(-0.5 * log(3 / 4) - 0.5 * log(1 / 4), rel=1e-6)


def test_distillation_is_the_papers_formula_and_rests_where_nothing_moved() -> None:
    generator = torch.Generator().manual_seed(0)
    now, then = 3 * torch.randn(2, 5, 4, generator=generator)
    plain = [plain_distillation(*pair) for pair in zip(now.tolist(), then.tolist(), strict=True)]
    assert float(distillation(now, then)) == pytest.approx(sum(plain) / 5, rel=1e-5)
    same = then.clone().requires_grad_()
    assert torch.autograd.grad(distillation(same, then), same)[0].abs().max() < 1e-6


def test_what_is_recorded_is_what_the_old_model_answers(workspace: ConPET) -> None:
    _, batches = start_task(workspace, STREAM[2])
    scores = scored(live_of(workspace), STREAM[2].train).classes
    assert batches.method_data.shape == (len(STREAM[2].train), 6)
    assert torch.allclose(batches.method_data.log_softmax(dim=1), scores, atol=1e-4)


def test_the_loss_of_a_step(workspace: ConPET) -> None:
    """Cross-entropy among the new labels, and lambda_o times the distillation loss of each old task."""
    learner, batches = start_task(workspace, STREAM[2])
    recorded = batches.method_data.tolist()
    step = shaken(batches).step(1)
    total = 0.0
    for row, target, logits in zip(step.rows, step.targets.tolist(), outputs(batches, step), strict=True):
        total -= log(probabilities(logits[6:])[target - 6])
        for task in (slice(0, 3), slice(3, 6)):
            total += WEIGHT * plain_distillation(logits[task], recorded[row][task])
    with torch.no_grad():
        assert float(learner.loss(batches, step)) == pytest.approx(total / len(step.rows), rel=1e-4)


def test_the_first_task_is_learned_as_by_sequential(tmp_path: Path) -> None:
    assert taught_alike(tmp_path, STREAM[:1], {"method": "sequential"}, {"method": "lwf"})


def test_nothing_is_replayed(workspace: ConPET) -> None:
    _, batches = start_task(workspace, STREAM[2])
    assert batches.rehearsal is None
    assert batches.step(0).new_count == len(batches.step(0).rows) == workspace.settings.training.batch_size
