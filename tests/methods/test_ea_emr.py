"""EA-EMR: the alignment minimises the paper's squared error, and the head answers through it."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import pytest
import torch

from conpet.api import ConPET
from conpet.methods.ea_emr import Alignment
from conpet.methods.static import METHOD, STATIC
from conpet.modules.module import HEAD
from conpet.testing import Trial, ask, tiny_settings, toy_stream
from tests.helpers.static import representations, shaken, start_task


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored_alignment(workspace: ConPET) -> Alignment:
    kept = workspace.store.snapshot().shared[STATIC].tensors(METHOD)
    return Alignment(kept["alignment.weight"], kept["alignment.offset"])


def squared_error(
    alignment: Alignment, last: Alignment, points: torch.Tensor, places: torch.Tensor, ridge: float
) -> float:
    """Return the error to minimise, number by number."""
    total, squares = 0.0, 0.0
    size = points.shape[1]
    for point, place in zip(points.tolist(), places.tolist(), strict=True):
        for out in range(size):
            mapped = sum(float(alignment.weight[out, i]) * point[i] for i in range(size)) + float(alignment.offset[out])
            total += (mapped - place[out]) ** 2
        squares += sum(value**2 for value in point)
    penalty = sum(float(change) ** 2 for change in (alignment.weight - last.weight).flatten())
    return total / len(points) + ridge * squares / points.numel() * penalty


@pytest.mark.parametrize("examples", [3, 12])
def test_nothing_near_it_has_a_smaller_error(examples: int) -> None:
    last = Alignment(random(4, 4, seed=1), random(4, seed=2))
    points, places = 3 * random(examples, 4, seed=3) + 1, random(examples, 4, seed=4)
    fitted = last.fitted(points, places, 0.05)
    best = squared_error(fitted, last, points, places, 0.05)
    assert best < squared_error(last, last, points, places, 0.05)
    for seed in range(40):
        step = 1e-2 * random(4, 5, seed=seed)
        near = Alignment(fitted.weight + step[:, :4], fitted.offset + step[:, 4])
        assert best < squared_error(near, last, points, places, 0.05)


def test_gradient_descent_gets_there_in_the_end() -> None:
    last = Alignment(torch.eye(3), torch.zeros(3))
    points, places = random(5, 3, seed=1), random(5, 3, seed=2)
    weight, offset = torch.eye(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    rho = 0.1 * points.square().mean()
    for _ in range(3000):
        error = ((points @ weight.T + offset - places) ** 2).sum(dim=1).mean()
        loss = error + rho * ((weight - torch.eye(3)) ** 2).sum()
        slopes = torch.autograd.grad(loss, (weight, offset))
        with torch.no_grad():
            weight -= 0.05 * slopes[0]
            offset -= 0.05 * slopes[1]
    fitted = last.fitted(points, places, 0.1)
    assert torch.allclose(fitted.weight, weight.detach(), atol=1e-4)
    assert torch.allclose(fitted.offset, offset.detach(), atol=1e-4)


def test_a_rotation_is_turned_back_and_what_lies_right_stays() -> None:
    """Hand-sized: old examples at (1, 0), (0, 1), (2, 1) were turned by a quarter to (0, 1), (-1, 0), (-1, 2)."""
    was = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    now = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [-1.0, 2.0]])
    back = Alignment.identity(2).fitted(now, was, 1e-9)
    assert torch.allclose(back.weight, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), atol=1e-4)
    assert torch.allclose(back.offset, torch.zeros(2), atol=1e-4)
    still = back.fitted(now, back(now), 1e-9)
    assert torch.allclose(still.weight, back.weight, atol=1e-5)


def test_one_example_moves_the_offset_alone() -> None:
    moved = Alignment.identity(2).fitted(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 6.0]]), 0.1)
    assert torch.equal(moved.weight, torch.eye(2))
    assert torch.allclose(moved.offset, torch.tensor([3.0, 4.0]))


def test_the_head_that_answers_is_the_trained_one_on_aligned_representations(tmp_path: Path) -> None:
    workspace = Trial(tmp_path, tiny_settings(method="ea-emr")).taught(toy_stream(2, 2, 4, 1, 2))
    stored = workspace.store.snapshot().shared[STATIC]
    kept, head = stored.tensors(METHOD), stored.tensors(HEAD)
    alignment = stored_alignment(workspace)
    assert not torch.equal(alignment.weight, torch.eye(len(alignment.weight)))
    points = random(5, len(alignment.weight))
    twice = torch.stack(
        [kept["label.weight"] @ (alignment.weight @ point + alignment.offset) + kept["label.bias"] for point in points]
    )
    assert torch.allclose(points @ head["weight"].T + head["bias"], twice, atol=1e-4)


def test_the_loss_of_a_step_is_that_of_the_unfolded_head_on_representations_aligned_as_before(tmp_path: Path) -> None:
    stream = toy_stream(3, 2, 6, 0, 0)
    workspace = Trial(tmp_path, tiny_settings(method="ea-emr")).taught(stream[:2])
    alignment = stored_alignment(workspace)
    learner, batches = start_task(workspace, stream[2])
    stored = workspace.store.snapshot().shared[STATIC].tensors(METHOD)
    assert torch.equal(batches.head.weight[:4], stored["label.weight"])
    step = shaken(batches).step(0)
    losses = []
    for point, target in zip(batches.represented(step.rows), step.targets.tolist(), strict=True):
        logits = batches.head.weight @ (alignment.weight @ point + alignment.offset) + batches.head.bias
        scores = logits.tolist()
        losses.append(log(sum(exp(score) for score in scores)) - scores[target])
    assert float(learner.loss(batches, step).detach()) == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_the_alignment_is_fitted_to_old_places_and_new_ones(tmp_path: Path) -> None:
    stream = toy_stream(3, 2, 6, 0, 0)
    workspace = Trial(tmp_path, tiny_settings(method="ea-emr")).taught(stream[:2])
    last = stored_alignment(workspace)
    learner, batches = start_task(workspace, stream[2])
    rows = sorted(batches.method_data.rows)
    assert rows == list(range(batches.new_count, len(batches.states)))
    was = last(batches.represented(rows))
    learner.after_training(shaken(batches))
    new = batches.represented(range(batches.new_count))
    points = torch.cat([new, batches.represented(rows)])
    wanted = last.fitted(points, torch.cat([last(new), was]), 1.0)
    assert torch.allclose(batches.method_data.alignment.weight, wanted.weight, atol=1e-3)
    assert torch.allclose(batches.method_data.alignment.offset, wanted.offset, atol=1e-3)


def test_no_more_old_examples_are_used_than_asked(tmp_path: Path) -> None:
    stream = toy_stream(2, 2, 12, 0, 0)
    settings = tiny_settings(method={"name": "ea-emr", "alignment_examples": 5})
    _, batches = start_task(Trial(tmp_path, settings).taught(stream[:1]), stream[1])
    assert len(batches.old_rows) > 5
    assert len(set(batches.method_data.rows)) == 5
    assert set(batches.method_data.rows) <= set(range(batches.new_count, len(batches.states)))


def test_the_first_task_aligns_nothing(tmp_path: Path) -> None:
    stream = toy_stream(1, 2, 4, 1, 4)
    asked = [example.text for example in stream[0].test]
    answers = {
        method: ask(Trial(tmp_path, tiny_settings(method=method)).taught(stream, method), asked)
        for method in ("ea-emr", "emr")
    }
    for one, other in zip(answers["ea-emr"], answers["emr"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_old_examples_come_back_to_where_they_were(tmp_path: Path) -> None:
    """After the second task, aligned representations of the first lie nearer to their old places than unaligned."""
    first, second = toy_stream(2, 3, 12, 0, 8)
    workspace = Trial(tmp_path, tiny_settings(method="ea-emr")).taught([first])
    before = representations(workspace, first.test)
    workspace.learn(second)
    after = representations(workspace, first.test)
    aligned = stored_alignment(workspace)(after)
    assert (aligned - before).square().sum() < 0.5 * (after - before).square().sum()


def test_it_forgets_less_than_sequential(tmp_path: Path) -> None:
    stream = toy_stream(3, 3, 12, 0, 8)
    accuracies = {}
    for method in ("ea-emr", "sequential"):
        evaluation = Trial(tmp_path, tiny_settings(method=method)).taught(stream, method).evaluate()
        accuracies[method] = evaluation.whole_accuracy or 0
    assert accuracies["ea-emr"] > accuracies["sequential"] + 0.2
