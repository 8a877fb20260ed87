"""The base class of static methods, and methods that add little to it: emr, sequential, joint."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from conpet import ConPET, Task
from conpet.errors import ConfigError
from conpet.methods.static import STATIC
from conpet.modules.module import HEAD
from conpet.testing import Trial, tiny_settings, toy_stream
from conpet.types import LearnReport
from tests.helpers.static import outputs, shaken, start_task

STREAM = toy_stream(3, 2, 8, 2, 4)


def taught(folder: Path, tasks: int, method: str | dict[str, Any] = "emr", name: str = "ws", **settings: Any) -> ConPET:
    return Trial(folder, tiny_settings(method=method, **settings)).taught(STREAM[:tasks], name)


@cache
def reports(method: str, seed: int, **settings: Any) -> list[LearnReport]:
    """Learn five tasks of three labels, with a small budget."""
    with TemporaryDirectory() as folder:
        learner = Trial(Path(folder), tiny_settings(method=method, seed=seed, **settings)).workspace()
        return list(learner.learn_stream(toy_stream(5, 3, 12, 2, 10, seed=seed), gate=False))


def whole(method: str, seed: int, **settings: Any) -> float:
    evaluation = reports(method, seed, **settings)[-1].evaluation
    assert evaluation is not None
    return evaluation.whole_accuracy or 0.0


# What is learned from


def test_a_batch_is_half_new_and_half_old_and_the_first_task_all_new(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2)
    _, batches = start_task(workspace, STREAM[2])
    for number in range(batches.steps):
        step = batches.step(number)
        assert (step.new_count, len(step.rows) - step.new_count) == (4, 4)
        assert all(row < batches.new_count for row in step.rows[: step.new_count])
        assert all(row >= batches.new_count for row in step.rows[step.new_count :])
    seen = [row for number in range(4) for row in batches.step(number).rows[:4]]
    assert sorted(seen) == list(range(16))  # an epoch of the new examples: each of them once
    _, first = start_task(taught(tmp_path, 0, name="empty"), STREAM[0])
    assert first.rehearsal is None
    assert first.step(0).new_count == len(first.step(0).rows) == 8


@pytest.mark.parametrize("replay", ["dynamic", "fixed"])
def test_the_budget_of_a_task_does_not_grow(replay: str) -> None:
    found = reports("emr", 0, **{"replay.schedule": replay, "replay.memory_per_label": 3})
    steps = [next(cost.steps for cost in report.cost if cost.stage == "module") for report in found]
    assert len(set(steps)) == 1


def test_the_loss_is_the_cross_entropy_over_all_labels_seen(tmp_path: Path) -> None:
    learner, batches = start_task(taught(tmp_path, 2), STREAM[2])
    step = shaken(batches).step(1)
    assert batches.labels == (*STREAM[0].labels, *STREAM[1].labels, *STREAM[2].labels)
    expected = 0.0
    for row, scores in zip(step.rows, outputs(batches, step), strict=True):
        target = int(batches.targets[row])
        expected -= scores[target] - math.log(sum(math.exp(score) for score in scores))
    loss = float(learner.loss(batches, step).detach())
    assert loss == pytest.approx(expected / len(step.rows), rel=1e-4)


def test_training_goes_on_from_the_last_weights_and_the_head_grows_by_zeros(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2)
    stored = workspace.store.snapshot().shared[STATIC]
    _, batches = start_task(workspace, STREAM[2])
    assert all(torch.equal(batches.module.tensors()[name], value) for name, value in _adapter(stored).items())
    weight = batches.head.weight.detach()
    assert torch.equal(weight[:4], stored.tensors(HEAD)["weight"])
    assert not weight[4:].any()


def _adapter(stored: Any) -> dict[str, torch.Tensor]:
    return dict(stored.tensors("adapter_model"))


def test_joint_begins_anew_with_all_examples_of_all_tasks(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2, "joint")
    _, batches = start_task(workspace, STREAM[2])
    assert batches.new_count == len(batches.states) == 48
    assert sorted(batches.targets.tolist()) == [label for label in range(6) for _ in range(8)]
    assert batches.steps == 4 * 48 // 8
    assert not batches.head.weight.any()


# Behaviour


@pytest.mark.parametrize("seed", [0, 1])
def test_replay_beats_sequential_and_joint_bounds_both(seed: int) -> None:
    sequential, emr, joint = (whole(method, seed) for method in ("sequential", "emr", "joint"))
    assert sequential < 0.45
    assert emr > sequential + 0.25
    assert joint > emr - 0.03
    assert joint > 0.8


def test_the_replayed_forget_less(tmp_path: Path) -> None:
    forgotten = {method: reports(method, 0)[-1].forgetting or 0.0 for method in ("sequential", "emr")}
    assert forgotten["sequential"] > 0.5 > 2 * forgotten["emr"]


def test_the_starred_form_draws_from_more_than_the_unstarred_keeps(tmp_path: Path) -> None:
    fixed = taught(tmp_path, 2, name="fixed", replay={"schedule": "fixed", "memory_per_label": 2})
    dynamic = taught(tmp_path, 2, name="dynamic")
    sizes = [len(start_task(workspace, STREAM[2])[1].rehearsal.states) for workspace in (fixed, dynamic)]  # type: ignore[union-attr]
    assert sizes[0] == 2 * 4 < sizes[1]


# Change of mind


def test_a_removed_task_leaves_the_head(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 3)
    workspace.remove(STREAM[1].name)
    document = workspace.store.snapshot().shared[STATIC].document(HEAD)
    assert document["labels"] == [*STREAM[0].labels, *STREAM[2].labels]
    assert {one.label for one in workspace.predict([example.text for example in STREAM[1].test])} <= {
        *STREAM[0].labels,
        *STREAM[2].labels,
    }
    for task in (STREAM[0], STREAM[2]):
        workspace.remove(task.name)
    assert STATIC not in workspace.store.snapshot().shared


def test_going_back_to_a_version_learns_it_anew(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2)
    first = STREAM[0]
    fewer = Task(first.name, first.train[1:], first.validation, first.test)
    workspace.learn(fewer)
    report = workspace.rollback(first.name, 1)
    assert "module" in {cost.stage for cost in report.cost}
    assert report.evaluation is not None
    assert report.evaluation.tallies[first.name].accuracy > 0.5  # type: ignore[operator]
    counts = [task.active.number for task in workspace.tasks]
    assert counts == [1, 1]
    assert workspace.learn(STREAM[2]).tasks_seen == 3


def test_a_task_with_a_module_of_its_own_is_refused_and_nothing_learned(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 1)
    wide = Task("wide", STREAM[1].train, settings={"module": {"rank": 2}, "training": {"epochs": 1}})
    with pytest.raises(ConfigError, match=r"rank: method 'emr' trains one module for all tasks"):
        workspace.check([wide])
    with pytest.raises(ConfigError, match="one module for all tasks"):
        workspace.learn(wide)
    assert len(workspace.tasks) == 1
    short = Task("short", STREAM[1].train, settings={"training": {"epochs": 1, "learning_rate": 1e-3}})
    assert workspace.learn(short).tasks_seen == 2


def test_the_shared_module_is_exported_with_the_labels_it_serves(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2)
    folder = workspace.export(STREAM[0].name, tmp_path / "module")
    assert (folder / "adapter_model.safetensors").is_file()
    assert STREAM[1].labels[0] in (folder / "head.json").read_text()


def test_options_of_another_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'method\.strength'; have: name"):
        taught(tmp_path, 0, method={"name": "emr", "strength": 1})
    assert not (tmp_path / "ws").exists()
