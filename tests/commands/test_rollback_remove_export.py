"""Rollback, removal and export: which version is active, and what is deleted for good."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from conpet import ConPET, Example, Task
from conpet.errors import ConfigError, DataError, UnknownNameError, WorkspaceExistsError
from conpet.methods.dynamic import CALIBRATION
from conpet.modules import optimisation
from conpet.state.statistics import STATISTICS
from conpet.testing import ask
from tests.helpers.workspaces import digests, files_with, frozen_state, shared_digests, stream, workspace

WORD, LABEL = "qqzyzzyva", "qqlabelqq"


def marked() -> Task:
    """Return a task with a word and a label that occur nowhere else."""
    names = (LABEL + "-a", LABEL + "-b")
    train = [Example.of_text(f"{WORD} {index} {name[-1] * 5}", name) for name in names for index in range(4)]
    test = [Example.of_text(f"{WORD} test {name[-1] * 5}", name) for name in names]
    return Task("marked", tuple(train), tuple(test[:1]), tuple(test[1:]), f"{{text}} {WORD}:", notes=(WORD,))


# Rolling back


def test_rolling_back_brings_the_older_answers_back(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first = stream()[0]
    texts = [example.text for task in stream()[:2] for example in task.test]
    before, statistics = ask(learner, texts), shared_digests(learner, STATISTICS)
    modules = digests(learner.tasks[0].active)
    learner.learn(replace(first, train=first.train[::2]))
    assert ask(learner, texts) != before

    report = learner.rollback(first.name, 1)
    assert (report.version, report.skipped, report.evaluation is not None) == (1, False, True)
    assert digests(learner.tasks[0].active) == modules
    assert shared_digests(learner, STATISTICS) == statistics
    after = ask(learner, texts)
    assert [max(row, key=row.__getitem__) for row in after] == [max(row, key=row.__getitem__) for row in before]
    assert {answer.version for answer in learner.predict(texts)} == {1}

    assert learner.rollback(first.name, 2).version == 2
    assert learner.tasks[0].active.number == 2
    assert [event.verb for event in learner.store.events()][-3:] == ["learn", "rollback", "rollback"]


def test_after_rolling_back_the_next_version_has_a_number_of_its_own(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first = stream()[0]
    learner.learn(replace(first, train=first.train[::2]), evaluate=False)
    learner.rollback(first.name, 1, evaluate=False)
    assert learner.learn(replace(first, train=first.train[::4]), evaluate=False).version == 3
    assert [version.active for version in learner.tasks[0].versions] == [False, False, True]


def test_rolling_back_to_where_one_is_does_nothing(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    with frozen_state(learner):
        assert learner.rollback(stream()[0].name, 1).skipped
        with pytest.raises(UnknownNameError, match="has no version 5; have: 1"):
            learner.rollback(stream()[0].name, 5)
        with pytest.raises(UnknownNameError, match="no task 'nobody'"):
            learner.rollback("nobody", 1)


def test_a_version_whose_label_has_gone_to_another_task_cannot_come_back(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    first = stream()[0]
    kept = first.labels[0]
    freed = tuple(example for example in first.train if example.label != kept)
    renamed = tuple(replace(example, label=f"new-{example.label}") for example in freed)
    staying = tuple(example for example in first.train if example.label == kept)
    learner.learn(Task(first.name, staying + renamed), evaluate=False)
    more = tuple(replace(example, label="more") for example in stream()[1].train[:2])
    learner.learn(Task("heir", freed + more), evaluate=False)
    with frozen_state(learner), pytest.raises(DataError, match="belongs to the earlier task 'heir'"):
        learner.rollback(first.name, 1)


def test_the_calibration_follows_the_versions_in_use(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    first = stream()[0]
    learner.learn(replace(first, train=first.train[::2], validation=()), evaluate=False)
    unfitted = shared_digests(learner, CALIBRATION)
    learner.rollback(first.name, 1, evaluate=False)
    assert shared_digests(learner, CALIBRATION) != unfitted


# Removing


def test_a_removed_task_leaves_no_trace_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    learner = workspace(tmp_path, 1)
    only = shared_digests(learner, STATISTICS)
    learner.learn(marked())
    learner.learn(replace(marked(), train=marked().train[::2]))
    learner.learn(stream()[1])
    learner.predict([f"{WORD} 1 aaaaa"])
    assert files_with(learner, WORD)
    assert files_with(learner, LABEL)
    statistics = shared_digests(learner, STATISTICS)

    evaluation = learner.remove("marked")
    assert evaluation is not None
    assert evaluation.tasks.keys() == {task.name for task in stream()[:2]}
    assert files_with(learner, WORD) == []
    assert files_with(learner, LABEL) == []
    assert shared_digests(learner, STATISTICS) not in (statistics, only)
    assert set(learner.labels) == {label for task in stream()[:2] for label in task.labels}
    assert learner.store.verify() == []
    learner.remove(stream()[1].name)
    assert shared_digests(learner, STATISTICS) == only


def test_a_reader_that_goes_on_lets_go_of_what_was_removed(tmp_path: Path) -> None:
    """Not immediately, because it may be using them, but with its next answer; the next change deletes the files."""
    learner = workspace(tmp_path, 1)
    learner.learn(marked())
    reader = ConPET.open(learner.path)
    reader.predict([f"{WORD} 1 aaaaa"])
    learner.remove("marked")
    assert {answer.task for answer in reader.predict([f"{WORD} 1 aaaaa"])} == {stream()[0].name}
    learner.learn(stream()[1])
    gc.collect()
    assert files_with(learner, WORD) == []


def test_answers_after_removing_are_those_of_the_rest(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    middle = stream()[1]
    kept = digests(learner.tasks[2].active)
    learner.remove(middle.name)
    assert [task.name for task in learner.tasks] == [stream()[0].name, stream()[2].name]
    assert digests(learner.tasks[1].active) == kept
    answers = learner.predict([example.text for example in middle.test], top_n=9)
    assert all(
        {answer.label, *(other.label for other in answer.runners_up)} == set(learner.labels) for answer in answers
    )
    assert ask(ConPET.open(learner.path), ["a"]) == ask(learner, ["a"])
    with frozen_state(learner), pytest.raises(UnknownNameError, match="no task 'text-1'"):
        learner.remove(middle.name)


def test_a_removed_task_can_be_learned_again_and_all_can_be_removed(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    for task in stream()[:2]:
        learner.remove(task.name)
    assert (learner.tasks, learner.labels) == ((), ())
    assert learner.evaluate().whole_accuracy is None
    with pytest.raises(DataError, match="learn a task first"):
        learner.predict(["a"])
    report = learner.learn(stream()[0])
    assert (report.version, report.tasks_seen) == (2, 1)  # numbers are never used twice


# Exporting


def test_an_exported_module_loads_in_plain_peft(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    task = learner.tasks[1]
    (tmp_path / "deep").mkdir()
    folder = learner.export(task.name, tmp_path / "deep" / "out")
    assert folder == tmp_path / "deep" / "out"
    with pytest.raises(ConfigError, match="there is no folder"):
        learner.export(task.name, tmp_path / "none" / "out")
    source = learner.backbone.cut.model.config.name_or_path
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(source), str(folder))
    stored = task.active.objects["module"].tensors("adapter_model")
    loaded = {name.replace(".default.", "."): value for name, value in model.named_parameters() if ".default." in name}
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())
    with pytest.raises(WorkspaceExistsError, match="name a new folder"):
        learner.export(task.name, folder)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out"]


def test_an_older_version_can_be_exported(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    first = stream()[0]
    learner.learn(replace(first, train=first.train[::2]), evaluate=False)
    old, new = (learner.export(first.name, tmp_path / str(number), version=number) for number in (1, 2))
    name = "adapter_model.safetensors"
    assert (old / name).read_bytes() != (new / name).read_bytes()
    with pytest.raises(UnknownNameError, match="no version 3"):
        learner.export(first.name, tmp_path / "3", version=3)
    assert not (tmp_path / "3").exists()
