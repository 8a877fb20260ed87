"""EWC: the Fisher information is the true one, and the stored penalty equals the sum over tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conpet.api import ConPET
from conpet.methods.ewc import Quadratic, diagonal_fisher
from conpet.methods.static import METHOD, STATIC
from conpet.modules.module import HEAD
from conpet.testing import Trial, tiny_settings, toy_stream
from tests.helpers.static import gradients, shaken, start_task, taught_alike, weights

STREAM = toy_stream(3, 2, 6, 0, 4)
PENALTY = 700.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ewc")


@pytest.fixture(scope="module")
def once(folder: Path) -> ConPET:
    """Return a workspace with one task."""
    return Trial(folder, tiny_settings(method={"name": "ewc", "penalty": PENALTY})).taught(STREAM[:1], "once")


@pytest.fixture(scope="module")
def twice(folder: Path) -> ConPET:
    """Return a workspace with the same task and a second one."""
    return Trial(folder, tiny_settings(method={"name": "ewc", "penalty": PENALTY})).taught(STREAM[:2], "twice")


def importance(workspace: ConPET) -> dict[str, torch.Tensor]:
    kept = workspace.store.snapshot().shared[STATIC].tensors(METHOD)
    names = {name: name.removeprefix("label.") for name in kept}
    return {short.removeprefix("importance."): kept[n] for n, short in names.items() if short.startswith("importance.")}


def grown(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Add zero rows for labels learned later."""
    return torch.cat([tensor, torch.zeros(len(like) - len(tensor), *tensor.shape[1:])])


def test_it_is_the_expectation_under_the_models_own_answers() -> None:
    # For softmax regression, sum_y p(y | x) (d log p(y | x) / d W_kj)^2 = p_k (1 - p_k) x_j^2.
    weight = torch.tensor([[1.0, -0.5], [0.2, 0.3], [-0.4, 1.1]], requires_grad=True)
    inputs = [[1.0, 2.0], [-1.5, 0.5], [0.3, -1.0]]
    expected = [[0.0, 0.0] for _ in range(3)]
    for x in inputs:
        powers = [2.718281828459045 ** sum(w * v for w, v in zip(row, x, strict=True)) for row in weight.tolist()]
        for k in range(3):
            p = powers[k] / sum(powers)
            for j in range(2):
                expected[k][j] += p * (1 - p) * x[j] ** 2 / len(inputs)

    def log_probabilities(row: int) -> torch.Tensor:
        return torch.log_softmax(weight @ torch.tensor(inputs[row]), dim=0)

    generator = torch.Generator().manual_seed(0)
    found = diagonal_fisher({"weight": weight}, log_probabilities, [0, 1, 2] * 2000, generator)["weight"]
    assert torch.allclose(found, torch.tensor(expected), rtol=0.1)


def test_a_single_draw_is_one_answers_squared_gradient() -> None:
    bias = torch.tensor([0.0, 1.0], requires_grad=True)
    found = diagonal_fisher({"b": bias}, lambda _: torch.log_softmax(bias, dim=0), [0], torch.Generator())["b"]
    p = 1 / (1 + 2.718281828459045)  # of the first answer; d log p(y) / d b_k = 1[y = k] - p_k
    squares = {0: (1 - p) ** 2, 1: p**2}
    assert any(torch.allclose(found, torch.tensor([square, square])) for square in squares.values())


def test_two_numbers_say_the_same_as_all_tasks() -> None:
    hand = Quadratic({}, {}).plus({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 5.0])})
    hand = hand.plus({"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([4.0, 6.0])})
    assert hand.importance["w"].tolist() == [4.0, 0.0]
    assert hand.anchor["w"].tolist()[0] == 3.0  # (1 * 0 + 3 * 4) / 4

    generator = torch.Generator().manual_seed(0)
    tasks = [(torch.rand(5, generator=generator), torch.randn(5, generator=generator)) for _ in range(3)]
    folded = Quadratic({}, {})
    for fisher, place in tasks:
        folded = folded.plus({"w": fisher}, {"w": place})
    here, there = torch.randn(2, 5, generator=generator)

    def plain(theta: torch.Tensor) -> float:
        return sum(
            f * (value - at) ** 2
            for fisher, place in tasks
            for f, value, at in zip(fisher.tolist(), theta.tolist(), place.tolist(), strict=True)
        )

    difference = float(folded.at({"w": here}) - folded.at({"w": there}))
    assert difference == pytest.approx(plain(here) - plain(there), rel=1e-4)


def test_the_loss_pulls_every_parameter_towards_every_task(once: ConPET, twice: ConPET) -> None:
    """d L / d theta = d CE / d theta + lambda sum_t F_t (theta - theta_t), rows of later labels free."""
    first, both = importance(once), importance(twice)
    learner, batches = start_task(twice, STREAM[2])
    step = shaken(batches).step(0)
    found = gradients(learner.loss(batches, step), batches)
    logits = batches.head(batches.represent(step)).log_softmax(dim=1)
    mean = -sum(logits[row, int(target)] for row, target in enumerate(step.targets)) / len(step.rows)
    expected = gradients(torch.as_tensor(mean), batches)
    places = [weights(once), weights(twice)]
    for name, parameter in batches.parameters.items():
        start = grown(first[name], both[name]) if name.startswith("head.") else first[name]
        for fisher, at in ((start, places[0][name]), (both[name] - start, places[1][name])):
            if name.startswith("head."):
                pull = PENALTY * grown(fisher, parameter) * (parameter.detach() - grown(at, parameter))
            else:
                pull = PENALTY * fisher * (parameter.detach() - at)
            expected[name] = expected[name] + pull
        assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-4), name
        assert bool((both[name] >= start).all())
    assert any(bool((value > 0).any()) for value in first.values())


def test_without_a_penalty_it_is_sequential(folder: Path) -> None:
    settings = {"method": {"name": "ewc", "penalty": 0.0, "fisher_examples": 2}}
    assert taught_alike(folder, STREAM[:2], {"method": "sequential"}, settings)


def test_rows_follow_their_labels_when_a_task_leaves(folder: Path) -> None:
    workspace = Trial(folder, tiny_settings(method="ewc")).taught(STREAM[:2], "removing")
    before = importance(workspace)
    workspace.remove(STREAM[0].name)
    after = importance(workspace)
    assert workspace.store.snapshot().shared[STATIC].document(HEAD)["labels"] == list(STREAM[1].labels)
    assert torch.equal(after["head.weight"], before["head.weight"][2:])
    assert torch.equal(after["head.bias"], before["head.bias"][2:])
    lora = next(name for name in before if "lora_A" in name)
    assert torch.equal(after[lora], before[lora])


def test_what_it_keeps_does_not_grow_with_tasks_but_with_labels(once: ConPET, twice: ConPET) -> None:
    kept = [workspace.store.snapshot().shared[STATIC].tensors(METHOD) for workspace in (once, twice)]
    assert kept[0].keys() == kept[1].keys()
    grew = {name for name in kept[0] if kept[0][name].shape != kept[1][name].shape}
    assert grew == {f"label.{kind}.head.{part}" for kind in ("importance", "anchor") for part in ("weight", "bias")}
