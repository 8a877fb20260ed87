"""A static workspace that goes on as a dynamic one, and modules that are merged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conpet import ConPET, Task
from conpet.commands.report import report_data
from conpet.config import MethodConfig
from conpet.data import Kind
from conpet.errors import AccuracyBoundError, ConfigError, DataError, UnknownNameError
from conpet.methods import METHODS
from conpet.methods.static import METHOD, STATIC, StaticMethod
from conpet.modules import optimisation
from conpet.state.slots import ASSIGNMENT
from conpet.testing import Trial, ask, tiny_settings, toy_stream
from conpet.testing.checks import files, require_same
from tests.helpers.workspaces import (
    Stopped,
    digests,
    files_with,
    frozen_state,
    shared_digests,
    stop_at,
    stream,
    workspace,
)

FIRST, SECOND, THIRD = stream()
TEXTS = [example.text for task in stream() for example in task.test]
STATICS = pytest.mark.parametrize("method", [name for name in METHODS if issubclass(METHODS[name], StaticMethod)])


# Upgrading


@STATICS
def test_answers_are_the_same_right_after_an_upgrade(tmp_path: Path, method: str) -> None:
    learner = workspace(tmp_path, 2, method=method)
    before, accuracy = ask(learner, TEXTS), learner.evaluate().whole_accuracy
    modules = [digests(task.active) for task in learner.tasks]
    evaluation = learner.upgrade()
    assert evaluation is not None
    assert evaluation.whole_accuracy == accuracy
    assert evaluation.selector_accuracy is not None
    settings = learner.settings
    assert (settings.method, settings.fusion.name) == (MethodConfig(name="dynamic"), "paper")
    require_same(before, ask(learner, TEXTS), "after the upgrade")
    require_same(before, ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    assert [digests(task.active) for task in learner.tasks] == modules
    assert not learner.store.snapshot().shared[STATIC].has(METHOD)
    assert learner.store.verify() == []


@pytest.mark.parametrize("method", ["sequential", "emr", "crl"])
def test_old_labels_keep_their_scores_among_each_other_when_a_task_is_learned(tmp_path: Path, method: str) -> None:
    learner = workspace(tmp_path, 2, method=method)
    learner.upgrade()
    old, module = learner.labels, shared_digests(learner, STATIC)
    before = ask(learner, TEXTS)
    learner.learn(THIRD)
    assert shared_digests(learner, STATIC) == module
    chosen = 0
    for row, now in zip(before, ask(learner, TEXTS), strict=True):
        share = sum(now[label] for label in old)
        if share > 0.5:  # the module of the old labels was selected
            chosen += 1
            assert {label: now[label] / share for label in old} == pytest.approx(row, abs=1e-5)
    assert 0 < chosen < len(TEXTS)
    assert learner.evaluate().tasks[THIRD.name]["accuracy"].value > 0.5


def test_the_calibrated_fusion_can_be_asked_for(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="emr")
    before = ask(learner, TEXTS)
    learner.upgrade(fusion="calibrated", selector="prototypes")
    assert (learner.settings.fusion.name, learner.settings.selector.name) == ("calibrated", "prototypes")
    assert ask(learner, TEXTS) != before
    learner.learn(THIRD, evaluate=False)
    assert set(learner.labels) == {label for task in stream() for label in task.labels}


def test_what_cannot_be_upgraded_is_refused(tmp_path: Path) -> None:
    static = workspace(tmp_path, 1, "static", method="emr")
    with frozen_state(static):
        with pytest.raises(ConfigError, match="can only be upgraded to method 'dynamic'"):
            static.upgrade("joint")
        with pytest.raises(ConfigError, match="selector 'learned' must be trained with every task"):
            static.upgrade(selector="learned")
        with pytest.raises(UnknownNameError, match="no selector 'oracle'"):
            static.upgrade(selector="oracle")
        with pytest.raises(UnknownNameError, match="no fusion 'mine'"):
            static.upgrade(fusion="mine")
    for method, why in (
        ("dynamic", "already has method 'dynamic'"),
        ("ridge", "'ridge'.*only a workspace with one PET module"),
    ):
        other = workspace(tmp_path, 1, method, method=method)
        with frozen_state(other), pytest.raises(ConfigError, match=why):
            other.upgrade()


def test_an_empty_workspace_is_not_upgraded(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 0, method="emr")
    with frozen_state(learner), pytest.raises(ConfigError, match=r"no module to freeze.*conpet init"):
        learner.upgrade()


def test_a_new_version_leaves_the_shared_module_and_can_come_back(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="emr")
    learner.upgrade()
    before, module = ask(learner, TEXTS), shared_digests(learner, STATIC)
    learner.learn(replace(FIRST, train=FIRST.train[::2]), evaluate=False)
    assert ASSIGNMENT not in learner.tasks[0].active.objects
    assert shared_digests(learner, STATIC) == module
    learner.rollback(FIRST.name, 1)
    require_same(before, ask(learner, TEXTS), "after rolling back")


def test_versions_out_of_use_at_the_upgrade_have_no_module_to_come_back_to(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="emr")
    learner.learn(replace(FIRST, train=FIRST.train[::2]), evaluate=False)
    learner.upgrade()
    with frozen_state(learner), pytest.raises(ConfigError, match="learned before the workspace was upgraded"):
        learner.rollback(FIRST.name, 1)


def test_removed_tasks_leave_the_shared_module_and_the_last_takes_it_along(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="emr")
    learner.upgrade()
    before = ask(learner, TEXTS)
    learner.remove(FIRST.name)
    assert files_with(learner, FIRST.labels[0]) == []
    for row, now in zip(before, ask(learner, TEXTS), strict=True):
        share = sum(row[label] for label in SECOND.labels)
        assert now == pytest.approx({label: row[label] / share for label in SECOND.labels}, abs=1e-4)
    learner.learn(THIRD, evaluate=False)
    learner.remove(SECOND.name)
    assert STATIC not in learner.store.snapshot().shared
    assert set(learner.labels) == set(THIRD.labels)


def test_labels_of_the_shared_module_are_renamed_and_retired(tmp_path: Path) -> None:
    first, second = toy_stream(2, 3, 6, 2, 3)
    learner = Trial(tmp_path, tiny_settings(method="emr", training={"epochs": 1})).taught([first, second])
    learner.upgrade()
    before, module = ask(learner, TEXTS), shared_digests(learner, STATIC)
    learner.rename(first.labels[0], "zz-last")
    assert shared_digests(learner, STATIC) == module
    named = [{"zz-last" if label == first.labels[0] else label: p for label, p in row.items()} for row in before]
    require_same(named, ask(learner, TEXTS), "after renaming")
    learner.retire("zz-last")
    assert files_with(learner, "zz-last") == files_with(learner, first.labels[0]) == []
    for row, now in zip(named, ask(learner, TEXTS), strict=True):
        rest = 1 - row.pop("zz-last")
        assert now == pytest.approx({label: p / rest for label, p in row.items()}, abs=1e-5)


def test_reports_tell_of_an_upgrade_and_a_merge(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, method="emr")
    learner.upgrade()
    for task in (SECOND, THIRD):
        learner.learn(task)
    learner.merge([SECOND.name, THIRD.name], bound=100)
    data = report_data(learner.store)
    assert [event.title for event in data.events][1:] == [
        "upgrade",
        SECOND.name,
        THIRD.name,
        f"merge {SECOND.name} + {THIRD.name}",
    ]
    assert data.summary["tasks"] == [task.name for task in stream()]
    assert data.workspace.method == "dynamic"


# Merging


def test_merged_tasks_share_a_module_and_keep_all_else(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    kept = digests(learner.tasks[1].active)
    statistics = [
        {name: value for name, value in digests(task.active).items() if "adapter" not in name and "head" not in name}
        for task in learner.tasks
    ]
    versions = [(task.name, task.active.number, task.active.digest, task.active.labels) for task in learner.tasks]
    report = learner.merge([THIRD.name, FIRST.name], bound=100)
    assert report.tasks == (FIRST.name, THIRD.name)
    assert report.before.total == report.after.total == 8
    assert report.bytes_after < report.bytes_before == sum_of_bytes(learner, -2)
    assert report.bytes_after == sum_of_bytes(learner, -1)
    assert [
        (task.name, task.active.number, task.active.digest, task.active.labels) for task in learner.tasks
    ] == versions
    assert digests(learner.tasks[1].active) == kept
    assert [digests(learner.tasks[index].active) for index in (0, 2)] == [statistics[0], statistics[2]]
    assert {learner.tasks[index].active.objects[ASSIGNMENT].document(ASSIGNMENT)["slot"] for index in (0, 2)} == {
        "merged-1"
    }
    assert report.evaluation is not None
    assert report.evaluation.whole_accuracy == ConPET.open(learner.path).evaluate().whole_accuracy
    assert report.evaluation.within_task_accuracy > 0.7
    steps = sum(event.detail["steps"] for event in learner.store.events() if event.task in report.tasks)
    assert learner.store.events()[-1].detail["steps"] == steps
    assert learner.store.verify() == []


def sum_of_bytes(learner: ConPET, event: int) -> int:
    return learner.store.events()[event].bytes_stored


def test_what_accuracy_a_merge_may_cost_is_a_bound(tmp_path: Path) -> None:
    """A replay memory of four examples is too small for six labels, and the message states the loss of accuracy."""
    settings = tiny_settings(fusion="paper", replay={"memory_examples": 4, "retention": "class-balanced"})
    learner = Trial(tmp_path, settings).taught(toy_stream(2, 3, 8, 6, 4))
    names = [task.name for task in learner.tasks]
    with frozen_state(learner), pytest.raises(AccuracyBoundError) as refused:
        learner.merge(names)
    report = learner.merge(names, bound=100, gate=False)
    assert report.after.correct < report.before.correct
    before, after = report.before.accuracy, report.after.accuracy
    assert f"accuracy on 36 validation examples from {before:.1%} to {after:.1%}" in str(refused.value)
    assert "the bound is 1." in str(refused.value)


def test_merges_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    names = [FIRST.name, SECOND.name]
    unjudged = replace(THIRD, validation=())
    learner.learn(unjudged, evaluate=False)
    with frozen_state(learner):
        with pytest.raises(ConfigError, match="at least two different tasks"):
            learner.merge([FIRST.name, FIRST.name])
        with pytest.raises(ConfigError, match="is a string"):
            learner.merge(FIRST.name)
        with pytest.raises(UnknownNameError, match="no task 'nobody'"):
            learner.merge([FIRST.name, "nobody"])
        with pytest.raises(ConfigError, match="bound=-1"):
            learner.merge(names, bound=-1)
        with pytest.raises(DataError, match=r"learn these tasks(.|\n)*'text-2': has no stored validation examples"):
            learner.merge([FIRST.name, THIRD.name])
    learner.merge(names, bound=100)
    with frozen_state(learner), pytest.raises(ConfigError, match="already share one module"):
        learner.merge(names)
    static = workspace(tmp_path, 2, "static", method="emr")
    with frozen_state(static), pytest.raises(ConfigError, match="only tasks of a 'dynamic' workspace"):
        static.merge(names)


def test_a_merged_task_goes_its_own_way_again_and_older_versions_stay(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.learn(replace(FIRST, train=FIRST.train[::2]), evaluate=False)
    learner.merge([FIRST.name, SECOND.name], bound=100, evaluate=False)
    learner.rollback(FIRST.name, 1, evaluate=False)  # it has its own module
    assert ASSIGNMENT not in learner.tasks[0].active.objects
    learner.rollback(FIRST.name, 2, evaluate=False)
    learner.learn(replace(SECOND, train=SECOND.train[::2]), evaluate=False)
    learner.remove(FIRST.name, evaluate=False)
    assert learner.store.snapshot().shared["merged-1"].document("head")["labels"] == sorted(SECOND.labels)
    learner.rollback(SECOND.name, 1, evaluate=False)
    assert set(learner.labels) == set(SECOND.labels)
    learner.remove(SECOND.name, evaluate=False)
    assert "merged-1" not in learner.store.snapshot().shared


def test_a_merged_module_can_be_merged_with_another(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    learner.merge([FIRST.name, SECOND.name], bound=100, evaluate=False)
    learner.merge([FIRST.name, SECOND.name, THIRD.name], bound=100, evaluate=False)
    assert [slot for slot in learner.store.snapshot().shared if slot.startswith("merged-")] == ["merged-2"]
    assert len(learner.predict(TEXTS)) == len(TEXTS)


def test_an_interrupted_merge_changes_nothing_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    learner, whole = workspace(tmp_path, 3), workspace(tmp_path, 3, "whole")
    names = [FIRST.name, SECOND.name]
    with frozen_state(learner), pytest.raises(Stopped):
        learner.merge(names, bound=100, progress=stop_at("module", 0.5))
    seen: list[float] = []
    learner.merge(names, bound=100, progress=lambda stage, share: seen.append(share) if stage == "module" else None)
    assert seen[0] > 0.4
    whole.merge(names, bound=100)
    assert files(learner) == files(whole)


def test_tasks_of_two_kinds_can_share_a_module(tmp_path: Path) -> None:
    relations = toy_stream(1, 2, 6, 2, 2, kind=Kind.RELATION)[0]
    own = replace(SECOND, template="{text}. They want:")
    learner = Trial(tmp_path, tiny_settings(training={"epochs": 2})).taught([FIRST, relations, own])
    learner.merge([FIRST.name, relations.name, own.name], bound=100)
    assert learner.predict([relations.test[0]])[0].label in relations.labels
    assert learner.predict([own.test[0]])[0].label in {*FIRST.labels, *own.labels}


def test_settings_that_merged_tasks_have_in_common_are_theirs(tmp_path: Path) -> None:
    def own(task: Task, **settings: object) -> Task:
        return replace(task, settings=settings)

    learner = Trial(tmp_path, tiny_settings(training={"epochs": 1})).taught(
        [own(FIRST, module={"rank": 2}, training={"epochs": 2}), own(SECOND, module={"rank": 2})]
    )
    learner.merge([FIRST.name, SECOND.name], bound=100)
    assert learner.store.snapshot().shared["merged-1"].document("adapter_config")["r"] == 2
    assert learner.store.events()[-1].detail["steps"] == 2 * 2 + 2
