"""O-LoRA: the LoRA of earlier tasks does not change, and new ones read other directions."""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet.api import ConPET
from conpet.errors import ConfigError
from conpet.methods.o_lora import OLoraMethod, overlap
from conpet.methods.static import STATIC
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS
from conpet.modules.module import PetModule
from conpet.modules.training import represented
from conpet.testing import Trial, tiny_settings, toy_stream
from tests.helpers.static import outputs, shaken, start_task

RANK = 4
A, B = ".lora_A.weight", ".lora_B.weight"


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored(workspace: ConPET) -> dict[str, torch.Tensor]:
    """Return the stored module's tensors, whose updates have scale 1."""
    reader = workspace.store.snapshot().shared[STATIC]
    document = reader.document(ADAPTER_CONFIG)
    assert document["lora_alpha"] == document["r"]
    return dict(reader.tensors(ADAPTER_TENSORS))


def taught(folder: Path, tasks: int, name: str = "workspace", **settings: Any) -> ConPET:
    stream = toy_stream(tasks, 3, 12, 0, 8)
    return Trial(folder, tiny_settings(**{"method.name": "o-lora", "module.rank": RANK}, **settings)).taught(
        stream, name
    )


def test_the_overlap_is_the_papers_sum_over_tasks_and_maps() -> None:
    earlier = {name: [random(2, 5, seed=1), random(3, 5, seed=2)] for name in ("q", "k")}
    parameters = {"q": random(4, 5, seed=3), "k": random(4, 5, seed=4), "q's B": random(7, 4, seed=5)}
    wanted = 0.0
    for name, tasks in earlier.items():
        for past in tasks:
            for row in past.tolist():
                for other in parameters[name].tolist():
                    wanted += sum(x * y for x, y in zip(row, other, strict=True)) ** 2
    found = overlap({name: torch.cat(tasks) for name, tasks in earlier.items()}, parameters)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_directions_at_right_angles_do_not_overlap_and_like_ones_do() -> None:
    """Hand-sized: (2, 0) and (0, 3) share nothing; (2, 0) and (3, 0) share 6 squared."""
    taken = {"q": torch.tensor([[2.0, 0.0]])}
    assert float(overlap(taken, {"q": torch.tensor([[0.0, 3.0]])})) == 0
    assert float(overlap(taken, {"q": torch.tensor([[3.0, 0.0]])})) == 36
    assert float(overlap({}, {"q": torch.tensor([[3.0, 0.0]])})) == 0


def test_the_loss_of_a_step_is_cross_entropy_and_what_directions_share(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2, **{"method.orthogonality": 0.3})
    past = stored(workspace)
    learner, batches = start_task(workspace, toy_stream(3, 3, 12, 0, 8)[2])
    step = shaken(batches).step(0)
    wanted = 0.0
    for logits, target in zip(outputs(batches, step), step.targets.tolist(), strict=True):
        wanted += (log(sum(exp(value) for value in logits)) - logits[target]) / len(step.rows)
    for name, parameter in batches.module.parameters.items():
        if name.endswith(A):
            wanted += 0.3 * sum(float(row @ other) ** 2 for row in past[name] for other in parameter.detach())
    assert float(learner.loss(batches, step).detach()) == pytest.approx(wanted, rel=1e-4)


def test_what_is_served_is_what_was_trained(tmp_path: Path) -> None:
    """The LoRA modules joined for the store represent examples as the new one does over the frozen old ones."""
    workspace = taught(tmp_path, 1)
    second = toy_stream(2, 3, 12, 0, 8)[1]
    learner, batches = start_task(workspace, second)
    assert isinstance(learner, OLoraMethod)
    shaken(batches)
    joined = PetModule.of(workspace.backbone, learner.answering_adapter(batches))
    states = workspace.backbone.states(second.test)
    assert torch.allclose(
        represented(workspace.backbone, joined, states),
        represented(workspace.backbone, batches.module, states),
        atol=1e-4,
    )


def test_a_new_task_adds_to_the_sum_and_leaves_the_rest(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 1)
    before = stored(workspace)
    workspace.learn(toy_stream(2, 3, 12, 0, 8)[1], evaluate=False)
    after = stored(workspace)
    assert before.keys() == after.keys()
    for name in before:
        if name.endswith(A):
            assert after[name].shape[0] == 2 * RANK
            assert torch.equal(after[name][:RANK], before[name])
        else:
            assert name.endswith(B)
            assert after[name].shape[1] == 2 * RANK
            assert torch.equal(after[name][:, :RANK], before[name])
            assert after[name][:, RANK:].abs().max() > 0


def test_the_module_grows_and_what_is_trained_does_not(tmp_path: Path) -> None:
    reports = list(Trial(tmp_path, tiny_settings(method="o-lora")).workspace().learn_stream(toy_stream(3, 2, 4, 0, 1)))
    assert len({report.trainable_parameters for report in reports}) == 1


def test_new_directions_lie_beside_the_old_ones(tmp_path: Path) -> None:
    def shared(name: str, orthogonality: float) -> float:
        tensors = stored(taught(tmp_path, 2, name, **{"method.orthogonality": orthogonality}))
        downs = {key: value for key, value in tensors.items() if key.endswith(A)}
        old = {key: value[:RANK] for key, value in downs.items()}
        return float(overlap(old, {key: value[RANK:] for key, value in downs.items()}))

    assert shared("kept apart", 0.5) < 0.1 * shared("left alone", 0.0)


@pytest.mark.parametrize("settings", [{"module": {"dora": True}}, {"module": "ia3"}], ids=str)
def test_only_plain_lora_can_be_summed(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"use module\.kind=lora without dora"):
        Trial(tmp_path, tiny_settings(method="o-lora", **settings)).workspace()


def test_it_tells_labels_of_a_task_apart_longer_than_sequential(tmp_path: Path) -> None:
    """The representation forgets less; the head, without replay, still forgets which task an input belongs to."""
    stream = toy_stream(3, 3, 12, 0, 8)
    found = {}
    for method in ("o-lora", "sequential"):
        evaluation = Trial(tmp_path, tiny_settings(method=method)).taught(stream, method).evaluate()
        found[method] = evaluation.within_task_accuracy or 0
    assert found["o-lora"] > found["sequential"] + 0.05
