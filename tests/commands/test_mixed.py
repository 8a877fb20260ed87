"""Examples of known and new labels at once: new versions of the known tasks, and a new task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conpet import ConPET, Example, Examples, read_mixed
from conpet.data import MixedExamples
from conpet.errors import DataError, UnknownNameError
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import stored_examples
from tests.helpers.workspaces import Stopped, frozen_state, stream, workspace

FIRST, SECOND, THIRD = stream()
KNOWN = tuple(Example.of_text(f"another {one.text}", one.label) for one in (FIRST.train[0], SECOND.train[0]))
MIXED = MixedExamples("extra", Examples((*KNOWN, *THIRD.train, FIRST.train[1]), test=(*THIRD.test, FIRST.test[0])))
ONE_NEW = MixedExamples("extra", Examples((*KNOWN, *(one for one in THIRD.train if one.label == THIRD.labels[0]))))


def stored(learner: ConPET, task: str, subset: Subset) -> list[Example]:
    return stored_examples(learner.store.snapshot().task(task).active).examples(subset)


def test_known_labels_extend_their_tasks_and_new_ones_become_a_task_in_one_change(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    generation = learner.store.generation()
    plan = learner.plan_mixed(MIXED)
    assert [(one.task, one.new, one.train, one.test, one.stored) for one in plan] == [
        (FIRST.name, False, 1, 0, 2),
        (SECOND.name, False, 1, 0, 0),
        ("extra", True, len(THIRD.train) - 2, len(THIRD.test), 0),
    ]
    assert learner.store.generation() == generation
    reports = learner.learn_mixed(MIXED)
    assert [(one.task, one.version, one.labels, one.skipped) for one in reports] == [
        (FIRST.name, 2, 2, False),
        (SECOND.name, 2, 2, False),
        ("extra", 1, 2, False),
    ]
    assert reports[-1].evaluation is not None
    assert reports[-1].notes == ("no validation set: 2 of 16 training rows were split off with seed 0",)
    assert stored(learner, FIRST.name, Subset.TRAIN) == [*FIRST.train, KNOWN[0]]
    assert stored(learner, "extra", Subset.TEST) == list(THIRD.test)
    assert learner.owners[THIRD.labels[0]] == "extra"
    with frozen_state(learner):
        assert [one.skipped for one in learner.learn_mixed(MIXED)] == [True, True, True]


def test_only_known_labels_extend_and_only_new_ones_make_a_task(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    (extended,) = learner.learn_mixed(MixedExamples("x", Examples(KNOWN[:1])), evaluate=False)
    assert (extended.task, extended.version) == (FIRST.name, 2)
    (new,) = learner.learn_mixed(MixedExamples("x", Examples(SECOND.train)), all_rows=True, evaluate=False)
    assert (new.task, new.version) == ("x", 1)
    assert stored(learner, "x", Subset.TRAIN) == list(SECOND.train)


def test_one_new_label_needs_a_known_task(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    with frozen_state(learner):
        with pytest.raises(DataError, match=r"only one new label(.|\n)*`--into TASK`"):
            learner.learn_mixed(ONE_NEW)
        with pytest.raises(UnknownNameError, match="no task 'nowhere'"):
            learner.learn_mixed(ONE_NEW, into="nowhere")
    reports = learner.learn_mixed(ONE_NEW, into=SECOND.name, evaluate=False)
    assert [(one.task, one.version, one.labels) for one in reports] == [(FIRST.name, 2, 2), (SECOND.name, 2, 3)]
    assert learner.owners[THIRD.labels[0]] == SECOND.name
    assert len(learner.predict([THIRD.train[0]], top_n=9)[0].runners_up) == 4


def test_new_labels_do_not_replace_a_task_of_the_same_name(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    taken = MixedExamples(SECOND.name, MIXED.examples)
    with frozen_state(learner), pytest.raises(DataError, match=f"`--into {SECOND.name}`"):
        learner.learn_mixed(taken)
    without_training = MixedExamples("x", Examples(THIRD.train[:1], test=THIRD.test))
    with frozen_state(learner), pytest.raises(DataError, match=f"{THIRD.labels[1]!r} has no training example"):
        learner.learn_mixed(without_training)


def test_a_method_that_learns_task_by_task_goes_on_after_an_interruption(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="emr")

    def interrupted(stage: str, done: float) -> None:
        if learner.store.snapshot().task(SECOND.name).active.number == 2:
            raise Stopped

    with pytest.raises(Stopped):
        learner.learn_mixed(MIXED, evaluate=False, progress=interrupted)
    assert len(learner.tasks) == 2
    reports = learner.learn_mixed(MIXED, evaluate=False)
    assert [(one.task, one.version, one.skipped) for one in reports] == [
        (FIRST.name, 2, True),
        (SECOND.name, 2, True),
        ("extra", 1, False),
    ]


def write(path: Path, examples: tuple[Example, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": one.text, "label": one.label}) + "\n" for one in examples))
    return path


def test_the_files_of_a_stream_are_divided_by_label(tmp_path: Path) -> None:
    learner, folder = workspace(tmp_path, 1), tmp_path / "inbox"
    write(folder / "1-cards" / "train.jsonl", (KNOWN[0], *SECOND.train))
    write(folder / "1-cards" / "test.jsonl", SECOND.test)
    write(folder / "2-loans.jsonl", (KNOWN[1], *THIRD.train))
    for part in read_mixed(folder, owned=learner.owners):
        learner.learn_mixed(part, evaluate=False)
    assert [(task.name, task.active.number) for task in learner.tasks] == [
        (FIRST.name, 2),
        ("1-cards", 2),
        ("2-loans", 1),
    ]
    assert stored(learner, "1-cards", Subset.TEST) == list(SECOND.test)
    assert stored(learner, "1-cards", Subset.TRAIN)[-1] == KNOWN[1]


def test_wrong_rows_of_a_mixed_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m" / "train.jsonl", (KNOWN[0], THIRD.train[0], Example.of_text(" ", FIRST.labels[0])))
    write(tmp_path / "m" / "test.jsonl", (Example.of_text("held out", "unheard"),))
    owned = dict.fromkeys(FIRST.labels, FIRST.name)
    with pytest.raises(DataError, match="nothing was learned") as raised:
        read_mixed(path.parent, owned=owned)
    assert [(Path(problem.file).name, problem.row) for problem in raised.value.problems] == [
        ("train.jsonl", 3),
        ("test.jsonl", 1),
        ("train.jsonl", None),
    ]
    assert "only one new label" in raised.value.problems[-1].reason
