"""Several tasks in one change: each gets the result it would get alone, and all are learned or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET, Example, Task
from conpet.errors import ConfigError, DataError
from conpet.evaluation.history import BATCH
from conpet.modules.adapter import ADAPTER_TENSORS
from conpet.state.slots import MODULE
from conpet.state.statistics import STATISTICS
from conpet.testing import toy_stream
from tests.helpers.cli import QUICK, STREAM, conpet, write_stream
from tests.helpers.workspaces import Stopped, frozen_state, shared_digests, stop_at, stream, workspace

SEPARATE = {"selector": "learned"}


def weights(learner: ConPET, task: str) -> dict[str, torch.Tensor]:
    return dict(learner.store.snapshot().task(task).active.objects[MODULE].tensors(ADAPTER_TENSORS))


@pytest.mark.parametrize("method", ["dynamic", "lda", "ranpac"])
def test_tasks_of_a_batch_come_out_as_one_after_the_other(method: str, tmp_path: Path) -> None:
    one_by_one = workspace(tmp_path, 3, "one-by-one", method=method)
    in_batch = workspace(tmp_path, 0, "in-batch", method=method)
    reports = in_batch.learn_batch(list(stream()))
    assert [(report.task, report.version, report.skipped) for report in reports] == [
        (task.name, 1, False) for task in stream()
    ]
    assert in_batch.labels == one_by_one.labels
    assert shared_digests(in_batch, STATISTICS) == shared_digests(one_by_one, STATISTICS)
    texts = [example.text for task in stream() for example in task.test]
    found, expected = in_batch.predict(texts), one_by_one.predict(texts)
    assert [one.task for one in found] == [one.task for one in expected]
    if method == "dynamic":
        for task in stream():
            torch.testing.assert_close(
                weights(in_batch, task.name), weights(one_by_one, task.name), rtol=1e-2, atol=1e-3
            )


def test_every_task_has_its_event_and_its_share_of_the_cost(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    first, second, third = stream()
    larger = replace(third, train=(*third.train, *(Example.of_text(f"more {n}", third.labels[0]) for n in range(16))))
    reports = learner.learn_batch([first, second, larger])
    events = learner.store.events()[-3:]
    assert [event.task for event in events] == [first.name, second.name, larger.name]
    assert all(event.detail[BATCH] == [event.task for event in events] for event in events)
    assert [bool(event.metrics) for event in events] == [False, False, True]
    assert [report.evaluation is None for report in reports] == [True, True, False]
    assert reports[-1].evaluation is not None
    assert set(reports[-1].evaluation.tasks) == {first.name, second.name, larger.name}
    tokens = [sum(cost.tokens + cost.cached_tokens for cost in report.cost) for report in reports]
    assert tokens[0] == tokens[1]
    assert tokens[2] / tokens[0] == pytest.approx(len(larger.train) / len(first.train), rel=0.01)
    assert sum(report.seconds for report in reports) > 0
    assert all(report.trainable_parameters > 0 for report in reports)
    stored = [event.bytes_stored for event in events]
    assert stored == sorted(stored)
    assert stored[-1] < 2 * stored[0]  # shared objects are stored once, with the first task


def test_every_task_is_charged_the_steps_of_its_own_module(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    first, second, third = stream()
    longer, shorter = (
        replace(second, settings={"training": {"epochs": 5}}),
        replace(third, settings={"training": {"max_steps": 1}}),
    )
    learner.learn_batch([first, longer, shorter], evaluate=False)
    charged = [sum(cost.steps for cost in event.costs) for event in learner.store.events()[-3:]]
    assert charged == [event.detail["steps"] for event in learner.store.events()[-3:]]
    assert len(set(charged)) == 3


def test_tasks_known_from_the_same_data_are_skipped_and_changed_ones_get_versions(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first, second, third = stream()
    changed = replace(second, train=second.train[1:])
    reports = learner.learn_batch([first, changed, third], evaluate=False)
    assert [(report.version, report.skipped) for report in reports] == [(1, True), (2, False), (1, False)]
    assert [bool(report.cost) for report in reports] == [False, True, True]
    with frozen_state(learner):
        assert all(report.skipped for report in learner.learn_batch([first, changed, third]))
        assert learner.learn_batch([]) == []


def test_tasks_with_a_name_or_label_in_common_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    _, second, third = stream()
    clash = replace(third, train=(*third.train, Example.of_text("clash", second.labels[0])))
    with frozen_state(learner):
        with pytest.raises(DataError, match=rf"label '{second.labels[0]}' also belongs to task '{second.name}'"):
            learner.learn_batch([second, clash])
        with pytest.raises(DataError, match="is given twice"):
            learner.learn_batch([second, second])
        with pytest.raises(DataError, match="belongs to the earlier task"):
            learner.learn_batch([third, replace(stream()[0], name="other")])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"method": "emr"}, "method 'emr' starts each task from the result of the previous one"),
        (SEPARATE, "selector.name=learned is trained on one task after another"),
        ({"fusion": "paper", "selector": {"top_k": 2}}, "fusion.name=paper with .*top_k=2"),
    ],
)
def test_what_builds_one_task_on_another_refuses(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, **settings)
    with frozen_state(learner), pytest.raises(ConfigError, match=why):
        learner.learn_batch(list(stream())[1:])
    learner.learn_batch(list(stream())[1:2], evaluate=False)  # a single task is not a batch
    assert len(learner.tasks) == 2


@pytest.mark.parametrize("stage", ["prefix", "module", "evaluation"])
def test_all_of_them_come_or_none(stage: str, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    with frozen_state(learner), pytest.raises(Stopped):
        learner.learn_batch(list(stream())[1:], progress=stop_at(stage, 0.5))
    learner.learn_batch(list(stream())[1:])
    assert [task.name for task in learner.tasks] == [task.name for task in stream()]


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": {"warmup": "first-task"}},
        {"replay": {"latent_only": True}},
        {"replay": {"memory_examples": 10}},
        {"replay": {"retention": "k-means"}},
    ],
)
def test_settings_hold_for_tasks_of_a_batch(settings: dict[str, Any], tmp_path: Path) -> None:
    learner = workspace(tmp_path, **settings)
    reports = learner.learn_batch(list(stream()))
    assert reports[-1].evaluation is not None
    kept = [task.active.objects["memory"] for task in learner.tasks]
    assert len(kept) == 3
    limit = settings.get("replay", {}).get("memory_examples")
    if limit is not None:
        assert 0 < sum(len(list(one.rows("train"))) for one in kept) <= limit


def test_a_task_of_a_batch_can_be_removed_and_rolled_back_like_any(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    first, second, third = stream()
    learner.learn_batch([first, second, third], evaluate=False)
    learner.learn_batch([replace(second, train=second.train[1:])], evaluate=False)
    learner.rollback(second.name, 1, evaluate=False)
    learner.remove(first.name, evaluate=False)
    assert {one.task for one in learner.predict([example.text for example in third.test])} <= {second.name, third.name}
    assert learner.evaluate().tasks.keys() == {second.name, third.name}


def test_a_stream_is_learned_so_many_at_a_time(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    tasks: list[Task] = list(toy_stream(5, 2, 8, 2, 4))
    reports = list(learner.learn_stream(iter(tasks), batch=2))
    assert [report.tasks_seen for report in reports] == [2, 2, 4, 4, 5]
    assert [report.evaluation is not None for report in reports] == [False, True, False, True, True]
    for wrong in (0, -1, 2.5, "x"):
        with pytest.raises(ConfigError, match=f"batch={wrong!r}: give a whole number"):
            next(learner.learn_stream(tasks, batch=wrong))  # type: ignore[arg-type]
    assert all(report.skipped for report in learner.learn_batch(task for task in tasks))


def test_the_command_line_learns_in_batches(tmp_path: Path) -> None:
    made = tmp_path / "ws"
    assert conpet("init", made, *QUICK).code == 0
    learned = conpet("learn", made, write_stream(tmp_path / "stream"), "--batch", 2)
    assert learned.code == 0, learned.err
    assert all(f"{task.name}: learned" in learned.out for task in STREAM)
    opened = ConPET.open(made)
    assert len(opened.tasks) == len(STREAM)
    rows = [event for event in opened.store.events() if event.metrics]
    assert len(rows) == -(-len(STREAM) // 2)
    again = conpet("learn", made, tmp_path / "stream", "--batch", 2)
    assert again.out.count("nothing done") == len(STREAM)


@pytest.mark.parametrize("wrong", [["--batch", "0"], ["--batch", "2", "--extend"]])
def test_the_command_line_refuses_what_makes_no_sense(wrong: list[str], tmp_path: Path) -> None:
    made = tmp_path / "ws"
    assert conpet("init", made, *QUICK).code == 0
    refused = conpet("learn", made, write_stream(tmp_path / "stream"), *wrong)
    assert refused.code == 2
    assert "--batch" in refused.err
    assert not ConPET.open(made).tasks
