"""Renaming, retiring, splitting and extending labels: what changes, and what must not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conpet import ConPET, Example, Task
from conpet.data import Examples
from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.evaluation.history import matrix_of
from conpet.methods import METHODS
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.statistics import STATISTICS
from conpet.testing import Trial, ask, tiny_settings, toy_stream
from conpet.testing.checks import require_same
from tests.helpers.workspaces import digests, files_with, frozen_state, shared_digests, stream, workspace

WORD = "qqzyzzyva"
BOTH = pytest.mark.parametrize("method", ["dynamic", "emr"])
ALL = pytest.mark.parametrize("method", list(METHODS))
FIRST, SECOND = toy_stream(2, 3, 6, 2, 3)
GONE = FIRST.labels[1]
TEXTS = [example.text for task in (FIRST, SECOND) for example in task.test]


def marked(task: Task, label: str) -> Task:
    """Return a task with a word that occurs in all texts of a label and nowhere else."""
    subsets = {
        subset: [
            replace(one, text=f"{WORD} {one.text}") if one.label == label else one for one in getattr(task, subset)
        ]
        for subset in ("train", "validation", "test")
    }
    return replace(task, **subsets)


def without(task: Task, label: str) -> Task:
    subsets = {
        subset: [one for one in getattr(task, subset) if one.label != label]
        for subset in ("train", "validation", "test")
    }
    return replace(task, **subsets)


def taught(folder: Path, tasks: Sequence[Task], name: str = "ws", **settings: object) -> ConPET:
    return Trial(folder, tiny_settings(**{"training.max_steps": 3}, **settings)).taught(tasks, name)


def stored(learner: ConPET, task: str) -> dict[Subset, list[Example]]:
    memory = stored_examples(learner.store.snapshot().task(task).active)
    return {subset: memory.examples(subset) for subset in Subset}


def renamed(answers: Sequence[Mapping[str, float]], old: str, new: str) -> list[dict[str, float]]:
    return [{new if label == old else label: score for label, score in row.items()} for row in answers]


# Renaming


@ALL
def test_a_renamed_label_is_answered_by_its_new_name_and_nothing_else_changes(tmp_path: Path, method: str) -> None:
    learner = taught(tmp_path, [FIRST, SECOND], method=method)
    before, statistics = ask(learner, TEXTS), shared_digests(learner, STATISTICS)
    accuracy = learner.evaluate().whole_accuracy
    report = learner.rename(GONE, "zz-last")
    assert (report.task, report.version, report.labels) == (FIRST.name, 2, 3)
    assert report.evaluation is not None
    assert report.evaluation.whole_accuracy == accuracy
    require_same(renamed(before, GONE, "zz-last"), ask(ConPET.open(learner.path), TEXTS), "after renaming")
    assert shared_digests(learner, STATISTICS) == statistics
    assert learner.labels == (FIRST.labels[0], FIRST.labels[2], "zz-last", *SECOND.labels)
    kept = stored(learner, FIRST.name)
    assert {one.label for some in kept.values() for one in some} == {FIRST.labels[0], FIRST.labels[2], "zz-last"}
    assert [one.text for one in kept[Subset.TRAIN]] == [one.text for one in FIRST.train]
    assert learner.store.verify() == []


@BOTH
def test_a_renamed_task_learns_on_and_can_be_rolled_back(tmp_path: Path, method: str) -> None:
    learner = taught(tmp_path, [FIRST], method=method)
    learner.rename(GONE, "other")
    learner.learn(SECOND, evaluate=False)
    assert set(learner.labels) == {*FIRST.labels, *SECOND.labels, "other"} - {GONE}
    learner.rollback(FIRST.name, 1, evaluate=False)
    assert set(learner.labels) == {*FIRST.labels, *SECOND.labels}
    assert learner.predict(TEXTS[:1])


def test_a_former_name_that_was_taken_meanwhile_bars_the_way_back(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST])
    learner.rename(GONE, "other", evaluate=False)
    heir = [replace(one, label=GONE if index % 2 else "new") for index, one in enumerate(SECOND.train)]
    learner.learn(Task("heir", tuple(heir)), evaluate=False)
    with frozen_state(learner), pytest.raises(DataError, match="belongs to the earlier task 'heir'"):
        learner.rollback(FIRST.name, 1)


def test_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST, SECOND])
    with frozen_state(learner):
        with pytest.raises(DataError, match=f"{SECOND.labels[0]!r} is already owned by task {SECOND.name!r}"):
            learner.rename(GONE, SECOND.labels[0])
        for wrong in (" ", "a\nb", "\x1b[31m", "\ud800"):
            with pytest.raises(ConfigError, match="not blank"):
                learner.rename(GONE, wrong)
        with pytest.raises(ConfigError, match="has this name already"):
            learner.rename(GONE, GONE)
        with pytest.raises(UnknownNameError, match=f"no label 'nope' in this workspace; have: {FIRST.labels[0]!r}"):
            learner.rename("nope", "other")


@pytest.mark.parametrize("retention", ["reservoir", "class-balanced"])
def test_a_renamed_label_keeps_its_share_of_a_limited_memory(tmp_path: Path, retention: str) -> None:
    learner = taught(tmp_path, [FIRST], replay={"memory_examples": 12, "retention": retention})
    before = stored(learner, FIRST.name)[Subset.TRAIN]
    learner.rename(GONE, "other", evaluate=False)
    older, newer = (
        examples_without_test_labels(version).examples(Subset.TRAIN) for version in learner.tasks[0].versions
    )
    assert [one.text for one in newer] == [one.text for one in older]
    assert 0 < len(newer) == len(before) // 2
    assert "other" in {one.label for one in newer}


def changes() -> list[Callable[[ConPET], object]]:
    """Return each change of a label of `FIRST`, `GONE` being the one that a rename, split or retire is of."""
    mine = [one for one in FIRST.train if one.label == GONE]
    finer = Examples(tuple(one.labelled(f"fine-{index % 2}") for index, one in enumerate(mine)))
    return [
        lambda learner: learner.rename(GONE, "other", evaluate=False),
        lambda learner: learner.retire(GONE, evaluate=False),
        lambda learner: learner.split_label(GONE, finer, evaluate=False),
        lambda learner: learner.extend(Examples((Example.of_text("quite new", GONE),)), evaluate=False),
    ]


@pytest.mark.parametrize("change", changes(), ids=["rename", "retire", "split", "extend"])
def test_learning_the_same_data_again_undoes_no_change(tmp_path: Path, change: Callable[[ConPET], object]) -> None:
    learner = taught(tmp_path, [FIRST])
    change(learner)
    learner.rename(FIRST.labels[0], "first", evaluate=False)  # one change more: what it derives from is carried along
    with frozen_state(learner):
        report = learner.learn(FIRST)
    assert (report.skipped, report.changed_since, report.version) == (True, True, 3)
    assert "changed since by rename, extend, split, retire or forget" in str(report)
    assert "modules rollback" in str(report)
    other = replace(FIRST, train=FIRST.train[::2])
    assert not learner.learn(other, evaluate=False).skipped
    assert not learner.learn(FIRST, evaluate=False).skipped  # `other` does not derive from it


def test_the_same_data_is_skipped_though_another_task_took_the_former_name(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST])
    learner.rename(GONE, "other", evaluate=False)
    heir = [replace(one, label=GONE if index % 2 else "new") for index, one in enumerate(SECOND.train)]
    learner.learn(Task("heir", tuple(heir)), evaluate=False)
    assert learner.learn(FIRST, evaluate=False).changed_since


# Retiring


@ALL
def test_retiring_leaves_statistics_that_never_saw_the_label(tmp_path: Path, method: str) -> None:
    learner = taught(tmp_path, [FIRST, SECOND], method=method)
    fresh = taught(tmp_path, [without(FIRST, GONE), SECOND], "fresh", method=method)
    report = learner.retire(GONE)
    assert (report.task, report.version, report.labels) == (FIRST.name, 2, 2)
    assert shared_digests(learner, STATISTICS) == shared_digests(fresh, STATISTICS)
    kept, never = (digests(one.tasks[0].active) for one in (learner, fresh))
    assert all(kept[name] == never[name] for name in ("features.safetensors", "classes.safetensors"))
    assert stored(learner, FIRST.name) == stored(fresh, FIRST.name)
    answers = ask(ConPET.open(learner.path), TEXTS)
    assert all(row.keys() == set(learner.labels) == set(fresh.labels) for row in answers)
    assert all(abs(sum(row.values()) - 1) < 1e-4 for row in answers)
    assert learner.tasks[0].active.description["counts"] == {"train": 12, "validation": 4, "test": 6}
    assert learner.learn(SECOND).skipped
    assert learner.store.verify() == []


@pytest.mark.parametrize("method", ["dynamic", "emr", "ranpac"])
def test_of_a_retired_label_no_file_knows_any_more(tmp_path: Path, method: str) -> None:
    first = marked(FIRST, GONE)
    learner = taught(tmp_path, [first, replace(first, train=first.train[::2])], method=method)
    learner.rename(GONE, "former")  # versions 1 and 2 hold the texts under the old name
    learner.learn(SECOND, evaluate=False)
    assert files_with(learner, WORD)
    learner.retire("former")
    assert files_with(learner, WORD) == []
    assert files_with(learner, "former") == []
    assert files_with(learner, GONE) == []
    assert [version.number for version in learner.tasks[0].versions] == [4]
    assert learner.store.verify() == []


def test_versions_of_other_tasks_that_held_a_retired_label_go_too(tmp_path: Path) -> None:
    first = marked(FIRST, GONE)
    learner = taught(tmp_path, [first, without(first, GONE)])
    mine = tuple(one for one in first.train if one.label == GONE)
    learner.learn(Task("heir", (*mine, *SECOND.train)), evaluate=False)
    learner.retire(GONE, evaluate=False)
    assert [version.number for version in learner.tasks[0].versions] == [2]
    assert files_with(learner, WORD) == []


@BOTH
def test_the_rows_of_other_labels_stay_as_they_were_trained(tmp_path: Path, method: str) -> None:
    """Without the label, the softmax over the other labels does not change, with any fusion."""
    learner = taught(tmp_path, [FIRST], method=method, fusion="paper")
    before = ask(learner, TEXTS)
    learner.retire(GONE)
    for row, now in zip(before, ask(learner, TEXTS), strict=True):
        rest = 1 - row[GONE]
        assert now == pytest.approx({label: score / rest for label, score in row.items() if label != GONE}, abs=1e-5)


def test_the_last_label_of_a_task_is_not_retired(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST])
    for label in FIRST.labels[:-1]:
        learner.retire(label, evaluate=False)
    assert learner.labels == FIRST.labels[-1:]
    assert learner.predict(TEXTS[:1])[0].label == FIRST.labels[-1]
    with frozen_state(learner), pytest.raises(ConfigError, match=r"is the last of task .*conpet modules remove"):
        learner.retire(FIRST.labels[-1])


def test_a_memory_with_a_limit_forgets_the_label_and_keeps_its_place_for_the_rest(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST, SECOND], replay={"memory_examples": 18})
    learner.retire(GONE, evaluate=False)
    version = learner.tasks[0].active
    memory = examples_without_test_labels(version)
    labels, answers = memory.labels(Subset.TRAIN), version.objects["module"].tensors("features")["answers"]
    assert GONE not in labels
    assert [version.labels[answers[index]] for index in memory.indices] == labels
    learner.rename(FIRST.labels[0], "other", evaluate=False)
    assert (
        sum(examples_without_test_labels(one).count(Subset.TRAIN) for task in learner.tasks for one in task.versions)
        <= 18
    )


def test_states_alone_are_relabelled_too(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST, SECOND], replay={"latent_only": True})
    before = ask(learner, TEXTS)
    learner.rename(FIRST.labels[0], "other")
    require_same(renamed(before, FIRST.labels[0], "other"), ask(learner, TEXTS), "after renaming")
    learner.retire(GONE)
    memory = examples_without_test_labels(learner.tasks[0].active)
    assert {subset: memory.count(subset) for subset in Subset} == {"train": 12, "validation": 4, "test": 6}
    assert set(memory.labels(Subset.TRAIN)) == {"other", FIRST.labels[2]}
    assert torch.equal(
        memory.states(learner.backbone, Subset.TRAIN).features,
        learner.tasks[0].active.objects["module"].tensors("features")["features"],
    )


# The same labels again


@BOTH
def test_more_examples_of_known_labels_make_new_versions_of_their_tasks(tmp_path: Path, method: str) -> None:
    learner = taught(tmp_path, [FIRST, SECOND], method=method)
    more = [Example.of_text(f"another {task.train[0].text}", task.labels[0]) for task in (FIRST, SECOND)]
    held = replace(more[0], text="held out")
    reports = learner.extend(Examples((more[0], more[0], more[1], FIRST.train[3]), validation=(held,)))
    assert [(one.task, one.version, one.skipped) for one in reports] == [
        (FIRST.name, 2, False),
        (SECOND.name, 2, False),
    ]
    assert reports[0].notes[0].startswith("ignored 2 of 4 examples: 1 stored already, 1 given twice")
    assert not reports[1].notes
    assert stored(learner, FIRST.name)[Subset.TRAIN] == [*FIRST.train, more[0]]
    assert stored(learner, FIRST.name)[Subset.VALIDATION] == [*FIRST.validation, held]
    assert stored(learner, FIRST.name)[Subset.TEST] == list(FIRST.test)
    assert stored(learner, SECOND.name)[Subset.TRAIN] == [*SECOND.train, more[1]]
    whole = taught(tmp_path, [replace(SECOND, train=(*SECOND.train, more[1]))], "whole")
    assert learner.tasks[1].active.digest == whole.tasks[0].active.digest
    with frozen_state(learner):
        assert [one.skipped for one in learner.extend(Examples(tuple(more)))] == [True, True]


def test_examples_that_cannot_be_added_are_refused_before_anything_is_learned(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST, SECOND])
    good = Example.of_text("quite new", FIRST.labels[0])
    with frozen_state(learner):
        with pytest.raises(DataError, match=r"`--mixed` instead of `--extend`(.|\n)*no task has a label 'unheard'"):
            learner.extend(Examples((good, replace(good, label="unheard", text="b"))))
        wrong = replace(SECOND.train[0], label=SECOND.labels[1])
        with pytest.raises(DataError, match=r"cannot be extended(.|\n)*contradicts the stored label"):
            learner.extend(Examples((good, wrong)))
        with pytest.raises(DataError, match="empty text"):
            Examples((replace(good, text=" "),))


def test_what_a_limited_memory_let_go_is_said(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST], replay={"memory_examples": 10})
    (report,) = learner.extend(Examples((Example.of_text("quite new", FIRST.labels[0]),)), evaluate=False)
    assert report.notes == (
        "of the 18 training examples of version 1, 10 were still stored: the replay memory has no room for more",
    )
    (again,) = learner.extend(Examples((Example.of_text("quite new", FIRST.labels[0]),)), evaluate=False)
    assert again.skipped
    assert again.notes[0].startswith("ignored 1 of 1 example: 1 stored already")
    assert learner.rename(GONE, "other", evaluate=False).notes == ()


def test_a_task_with_a_label_of_which_nothing_is_left_is_not_learned_again_without_it(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST], replay={"memory_examples": 1})
    left = stored(learner, FIRST.name)[Subset.TRAIN][0].label
    lost = [label for label in FIRST.labels if label != left]
    finer = tuple(Example.of_text(f"new {name}", name) for name in ("x", "y"))
    with frozen_state(learner):
        with pytest.raises(DataError, match=rf"holds no training examples of(.|\n)*{lost[0]!r}(.|\n)*{lost[1]!r}"):
            learner.extend(Examples((Example.of_text("quite new", left),)))
        with pytest.raises(DataError, match=rf"holds no training examples of(.|\n)*{lost[1]!r}"):
            learner.split_label(lost[0], Examples(finer), replace=True)
    more = tuple(Example.of_text(f"quite new {label}", label) for label in lost)
    assert learner.extend(Examples(more), evaluate=False)[0].version == 2


def test_without_texts_nothing_is_learned_again(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST], replay={"latent_only": True})
    with frozen_state(learner):
        with pytest.raises(ConfigError, match="latent_only=true"):
            learner.extend(Examples((Example.of_text("quite new", FIRST.labels[0]),)))
        finer = tuple(Example.of_text(f"new {name}", name) for name in ("x", "y"))
        with pytest.raises(ConfigError, match="latent_only=true"):
            learner.split_label(GONE, Examples(finer))


# Splitting


@BOTH
def test_a_split_label_gives_way_to_finer_ones(tmp_path: Path, method: str) -> None:
    learner = taught(tmp_path, [FIRST, SECOND], method=method)
    coarse = [one for one in FIRST.train if one.label == GONE]
    tested = [one for one in FIRST.test if one.label == GONE]
    finer = [one.labelled(f"fine-{index % 2}") for index, one in enumerate((*coarse[:4], tested[0]))]
    added = Example.of_text("quite new", "fine-0")
    report = learner.split_label(GONE, Examples((*finer, added)))
    assert (report.task, report.version, report.labels) == (FIRST.name, 2, 4)
    dropped = len(coarse) - 4 + len(tested) - 1 + 2
    assert report.notes == (f"{dropped} stored examples of the split label have no finer label and were dropped",)
    kept = stored(learner, FIRST.name)
    assert [one for one in kept[Subset.TRAIN] if one.label not in FIRST.labels] == [*finer[:4], added]
    assert [one for one in kept[Subset.TEST] if one.label not in FIRST.labels] == [finer[4]]
    others = [one for one in FIRST.train if one.label != GONE]
    assert kept[Subset.TRAIN][: len(others)] == others
    assert set(learner.labels) == {*FIRST.labels, *SECOND.labels, "fine-0", "fine-1"} - {GONE}
    assert [event.verb for event in learner.store.events()][-1] == "split"
    learner.rollback(FIRST.name, 1, evaluate=False)
    assert set(learner.labels) == {*FIRST.labels, *SECOND.labels}


def test_splits_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST, SECOND])

    def examples(*labels: str) -> Examples:
        return Examples(tuple(Example.of_text(f"new {label}", label) for label in labels))

    with frozen_state(learner):
        with pytest.raises(DataError, match="into 'x' only; give examples of two or more labels"):
            learner.split_label(GONE, examples("x"))
        with pytest.raises(DataError, match=f"{SECOND.labels[0]!r} is already owned by task"):
            learner.split_label(GONE, examples("x", SECOND.labels[0]))
        with pytest.raises(UnknownNameError, match="no label 'nope'"):
            learner.split_label("nope", examples("x", "y"))
        with pytest.raises(DataError, match="label 'z' has no training example"):
            learner.split_label(GONE, replace(examples("x", "y"), test=examples("z").train), replace=True)
        count = sum(one.label == GONE for some in stored(learner, FIRST.name).values() for one in some)
        with pytest.raises(DataError, match=f"none of the {count} stored examples of label {GONE!r}.*Check the label"):
            learner.split_label(GONE, examples("x", "y"))
        foreign = SECOND.train[0]
        mine = next(one for one in FIRST.train if one.label == GONE)
        given = Examples((mine.labelled("x"), foreign.labelled("y")))
        with pytest.raises(DataError, match=f"'y' is stored as {foreign.label!r} of task {SECOND.name!r}"):
            learner.split_label(GONE, given)


def test_one_of_the_finer_labels_may_keep_the_name_and_all_examples_may_be_new(tmp_path: Path) -> None:
    learner = taught(tmp_path, [FIRST])
    finer = Examples(tuple(Example.of_text(f"new {label}", label) for label in (GONE, "fine")))
    learner.split_label(GONE, finer, replace=True, evaluate=False)
    assert set(learner.labels) == {*FIRST.labels, "fine"}
    kept = [one for one in stored(learner, FIRST.name)[Subset.TRAIN] if one.label in (GONE, "fine")]
    assert kept == list(finer.train)


# History


def test_accuracy_is_not_compared_across_a_label_that_went(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first = stream()[0]
    learner.rename(first.labels[0], "other")
    report = learner.retire("other")
    assert [event.verb for event in learner.store.events()][-2:] == ["rename", "retire"]
    assert report.evaluation is not None
    assert report.evaluation.tasks[first.name]["accuracy"].n == 4
    renaming, retiring = matrix_of(learner.store.events()).rows[-2:]
    assert (renaming.learned, retiring.learned) == (None, first.name)
