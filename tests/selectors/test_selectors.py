"""Selectors: what the computed ones owe to arithmetic, and what the learned one does with its budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conpet import ConPET, Example, Task
from conpet.modules.module import ADAPTER_TENSORS, HEAD
from conpet.selectors import SELECTORS
from conpet.selectors.base import SELECTOR
from conpet.state.statistics import STATISTICS
from conpet.testing import Trial, live_of, tiny_settings, toy_stream
from tests.helpers.live import scored
from tests.helpers.workspaces import shared_digests, stream, workspace

BY_ORDER = {"linear": 0.15, "prototypes": 1e-5}
"""How far log-probabilities of tasks may depend on the order of learning: a logistic regression is trained further."""
AFTER_REMOVAL = {"linear": 0.02, "prototypes": 0.0}
"""How far they may depend on a removed task: the logistic regression is trained again from its last weights."""


def taught(folder: Path, tasks: Iterable[Task], **settings: Any) -> ConPET:
    folder.mkdir()
    return Trial(folder, tiny_settings(**settings)).taught(tasks)


def task_scores(learner: ConPET, examples: Iterable[Example]) -> dict[str, Tensor]:
    """Return each task's column of the selector's log-probabilities."""
    current = live_of(learner)
    scores = scored(current, list(examples)).tasks
    assert scores is not None
    return {task.name: scores[:, column] for column, task in enumerate(current.state.tasks)}


def test_every_selector_is_known_by_its_own_name() -> None:
    assert {name: SELECTORS[name].name for name in SELECTORS} == {name: name for name in SELECTORS}


@pytest.mark.parametrize("selector", BY_ORDER)
def test_the_order_of_tasks_makes_no_difference(selector: str, tmp_path: Path) -> None:
    first, second, third = stream()
    forwards = taught(tmp_path / "1", [first, second, third], selector=selector)
    backwards = taught(tmp_path / "2", [third, first, second], selector=selector)
    assert shared_digests(forwards, STATISTICS) == shared_digests(backwards, STATISTICS)
    asked = [example for task in stream() for example in task.test]
    one, other = task_scores(forwards, asked), task_scores(backwards, asked)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=BY_ORDER[selector])


@pytest.mark.parametrize("selector", AFTER_REMOVAL)
def test_a_removed_task_was_never_there(selector: str, tmp_path: Path) -> None:
    first, second, third = stream()
    without = taught(tmp_path / "1", [first, third], selector=selector)
    removed = taught(tmp_path / "2", [first, second, third], selector=selector)
    removed.remove(second.name)
    assert shared_digests(without, STATISTICS) == shared_digests(removed, STATISTICS)
    one, other = task_scores(without, first.test), task_scores(removed, first.test)
    assert one.keys() == other.keys() == {first.name, third.name}
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=AFTER_REMOVAL[selector])


def test_a_task_learned_again_takes_its_own_place_in_the_statistics(tmp_path: Path) -> None:
    first, second, _ = stream()
    fewer = Task(first.name, first.train[::2], first.validation, first.test)
    at_once = taught(tmp_path / "1", [first, second])
    in_two_goes = taught(tmp_path / "2", [fewer, second, first])
    assert shared_digests(at_once, STATISTICS) == shared_digests(in_two_goes, STATISTICS)


# The learned selector


def test_it_goes_on_from_its_last_weights_and_grows_by_one_output(tmp_path: Path) -> None:
    """With a learning rate of almost nothing the new weights are the old ones, and a row for the new task."""
    learner = workspace(tmp_path, 2, selector={"name": "learned", "learning_rate": 1e-9})
    before = learner.store.snapshot().shared[SELECTOR]
    learner.learn(stream()[2], evaluate=False)
    after = learner.store.snapshot().shared[SELECTOR]
    assert after.document(HEAD)["tasks"] == [task.name for task in stream()]
    torch.testing.assert_close(after.tensors(HEAD)["weight"][:2], before.tensors(HEAD)["weight"], atol=1e-6, rtol=0)
    assert after.tensors(HEAD)["weight"].shape[0] == after.tensors(HEAD)["bias"].shape[0] == 3
    for name, value in before.tensors(ADAPTER_TENSORS).items():
        torch.testing.assert_close(after.tensors(ADAPTER_TENSORS)[name], value, atol=1e-6, rtol=0)


def test_learning_moves_its_lora_and_all_of_its_head(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, selector="learned")
    before = learner.store.snapshot().shared[SELECTOR]
    learner.learn(stream()[2], evaluate=False)
    after = learner.store.snapshot().shared[SELECTOR]
    assert all((after.tensors(HEAD)["weight"][:2] - before.tensors(HEAD)["weight"]).abs().amax(dim=1) > 1e-3)
    now = after.tensors(ADAPTER_TENSORS)
    assert max((now[name] - value).abs().max() for name, value in before.tensors(ADAPTER_TENSORS).items()) > 1e-3


class Listener:
    """Keeps the targets of each of the selector's batches: its last loss before it reports progress."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self._last: list[int] = []
        loss = torch.nn.functional.cross_entropy

        def listening(logits: Tensor, targets: Tensor, *arguments: Any, **more: Any) -> Tensor:
            self._last = targets.tolist()
            return loss(logits, targets, *arguments, **more)

        monkeypatch.setattr(torch.nn.functional, "cross_entropy", listening)

    def progress(self, stage: str, _share: float) -> None:
        if stage == "selector":
            self.batches.append(self._last)


def test_half_of_each_batch_is_new_and_half_is_old_whatever_the_number_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Listener(monkeypatch)
    learner = Trial(
        tmp_path, tiny_settings(selector={"name": "learned", "steps": 10}, training={"batch_size": 8})
    ).workspace()
    for index, task in enumerate(toy_stream(5, 2, 6, 0, 0)):
        heard.batches.clear()
        report = learner.learn(task, evaluate=False, progress=heard.progress)
        steps = next(stage.steps for stage in report.cost if stage.stage == "selector")
        assert steps == len(heard.batches) == (10 if index else 0)
        for batch in heard.batches:
            assert sorted(target == index for target in batch) == [False] * 4 + [True] * 4


def test_past_tasks_are_drawn_alike_however_many_examples_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Listener(monkeypatch)
    large, small, newest = toy_stream(3, 2, 30, 0, 0)
    small = Task(small.name, (*small.train[:1], *small.train[-1:]))
    learner = Trial(tmp_path, tiny_settings(selector={"name": "learned", "steps": 60}, training={"epochs": 1})).taught(
        [large, small]
    )
    learner.learn(newest, evaluate=False, progress=heard.progress)
    old = Counter(target for batch in heard.batches for target in batch if target != 2)
    assert sum(old.values()) == 240
    assert 84 < old[1] < 156  # 120 +- more than four standard deviations


def test_what_is_read_of_old_tasks_does_not_grow_with_their_number(tmp_path: Path) -> None:
    """Every old example that is drawn passes the prefix or the cache: count them."""
    settings = tiny_settings(
        selector={"name": "learned", "steps": 4}, training={"batch_size": 8, "epochs": 1}, backbone={"cache": False}
    )
    learner = Trial(tmp_path, settings).workspace()
    tokens = []
    for task in toy_stream(6, 2, 12, 0, 0):
        report = learner.learn(task, evaluate=False)
        tokens.append(next(stage.tokens for stage in report.cost if stage.stage == "selector"))
    assert tokens[0] == 0
    assert max(tokens[1:]) < 1.3 * min(tokens[1:])


def test_a_removed_task_loses_its_output(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, selector="learned")
    weight = learner.store.snapshot().shared[SELECTOR].tensors(HEAD)["weight"]
    first, second, third = stream()
    learner.remove(second.name)
    after = learner.store.snapshot().shared[SELECTOR]
    assert after.document(HEAD)["tasks"] == [first.name, third.name]
    assert torch.equal(after.tensors(HEAD)["weight"], weight[[0, 2]])
    scores = task_scores(learner, first.test)
    assert scores.keys() == {first.name, third.name}
    assert float((scores[first.name] > scores[third.name]).float().mean()) > 0.6
    learner.remove(first.name)
    learner.remove(third.name)
    assert SELECTOR not in learner.store.snapshot().shared
    assert learner.learn(first).evaluation is not None


def test_a_task_learned_again_keeps_its_output(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, selector="learned")
    first, second, _ = stream()
    learner.learn(Task(first.name, first.train[::2], first.validation, first.test))
    assert sorted(learner.store.snapshot().shared[SELECTOR].document(HEAD)["tasks"]) == [first.name, second.name]
    scores = task_scores(learner, second.train)
    assert float((scores[second.name] > scores[first.name]).float().mean()) > 0.6


def test_it_still_works_when_the_memory_is_too_small_for_every_task(tmp_path: Path) -> None:
    learner = Trial(
        tmp_path, tiny_settings(selector={"name": "learned", "steps": 10}, replay={"memory_examples": 2})
    ).taught(stream())
    assert {answer.task for answer in learner.predict([task.train[0] for task in stream()])} <= {
        task.name for task in stream()
    }
