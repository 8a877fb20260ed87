"""Forgetting: what is left is what a workspace has that never saw the rows, and nothing of them can be found."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET, Examples, Task
from conpet.commands import purge, traces
from conpet.commands.report import report_data
from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.modules.folded_info import FOLDED, FoldedNote
from conpet.replay import memory
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import stored_examples
from conpet.state.reading import task_state
from conpet.state.slots import CONSOLIDATED, LOGISTIC, REFIT, shared_slot_of
from conpet.state.statistics import features_of
from conpet.testing import Trial, ask, tiny_settings, toy_stream
from conpet.testing.checks import different, files, require_same
from tests.helpers.workspaces import stream, workspace

FIRST, SECOND, THIRD = stream()
ROW = SECOND.train[3]
TEXTS = [example.text for task in stream() for example in task.test]
EXACT = {"backbone.deterministic": True}


def without(task: Task, *texts: str) -> Task:
    kept = {
        subset: tuple(example for example in getattr(task, subset) if example.text not in texts)
        for subset in ("train", "validation", "test")
    }
    return replace(task, **kept)


def never_saw(folder: Path, *texts: str, **settings: Any) -> ConPET:
    folder.mkdir()
    trial = Trial(folder, tiny_settings(**settings))
    return trial.taught([without(task, *texts) for task in stream()])


def learned(learner: ConPET, name: str) -> dict[str, str]:
    """Return the hash of every file of the active version of a task, but its examples and stored digests."""
    task = next(task for task in learner.tasks if task.name == name)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(task.active.objects["module"].folder.iterdir())
    }


def trained(learner: ConPET, name: str) -> dict[str, str]:
    """Return what `learned` does, without statistics of validation examples."""
    return {file: digest for file, digest in learned(learner, name).items() if not file.startswith("refit_")}


def stored_texts(learner: ConPET, name: str) -> dict[str, list[str]]:
    held = stored_examples(next(task for task in learner.tasks if task.name == name).active)
    return {str(subset): [example.text for example in held.examples(subset)] for subset in Subset}


# What is left


def test_modules_and_statistics_are_those_of_a_workspace_that_never_saw_the_row(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, **EXACT)
    report = learner.forget([ROW.text], reason="request 17")
    other = never_saw(tmp_path / "other", ROW.text, **EXACT)
    assert (report.rows, report.learned_again, report.complete) == (1, (SECOND.name,), True)
    for task in stream():
        assert learned(learner, task.name) == learned(other, task.name)
    gram = [one.store.snapshot().shared["statistics"].tensors("statistics") for one in (learner, other)]
    assert all(torch.equal(gram[0][name], gram[1][name]) for name in gram[1])
    assert stored_texts(learner, SECOND.name) == stored_texts(other, SECOND.name)
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    for mine, theirs in zip(ask(learner, TEXTS), ask(other, TEXTS), strict=True):
        # One logistic regression was trained from zero and one task by task; they agree to their tolerance.
        assert mine == pytest.approx(theirs, abs=0.06)


@pytest.mark.parametrize("older", [False, True], ids=["present-version", "older-version"])
def test_the_classifiers_keep_no_trace_of_the_row(older: bool, tmp_path: Path) -> None:
    """Whatever they were trained on before, their weights depend on the examples that are left, and on nothing else."""
    learner, stranger = workspace(tmp_path, 3, **EXACT), replace(ROW, text="a stranger")
    if older:
        learner.learn(without(SECOND, ROW.text), gate=False)
    learner.forget([ROW.text])
    (tmp_path / "other").mkdir()
    rest = without(SECOND, ROW.text)
    rest = replace(rest, train=(*rest.train, stranger))
    other = Trial(tmp_path / "other", tiny_settings(**EXACT)).taught([FIRST, rest, THIRD])
    other.forget([stranger.text])
    require_same_classifiers(learner, other)
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")


@pytest.mark.parametrize("older", [False, True], ids=["present-version", "older-version"])
@pytest.mark.parametrize("method", ["dynamic", "logistic", "lda"])
def test_the_classifiers_keep_no_trace_of_a_validation_row(method: str, older: bool, tmp_path: Path) -> None:
    """The classifiers that answer learn from validation rows, too."""
    row = SECOND.validation[1]
    learner = workspace(tmp_path, 3, method=method, **EXACT)
    if older:
        learner.learn(without(SECOND, row.text), gate=False)
    before = ask(learner, TEXTS)
    report = learner.forget([row.text])
    assert (report.complete, report.learned_again, report.fitted_again) == (True, (), True)
    assert "classifiers fitted again without what is forgotten" in report.lines
    assert report.receipt is not None
    assert report.receipt["fitted_again"] is True
    stranger = replace(row, text="a stranger")
    (tmp_path / "other").mkdir()
    rest = without(SECOND, row.text)
    rest = replace(rest, validation=(*rest.validation, stranger))
    other = Trial(tmp_path / "other", tiny_settings(method=method, **EXACT)).taught([FIRST, rest, THIRD])
    other.forget([stranger.text])
    require_same_classifiers(learner, other)
    assert learned(learner, SECOND.name) == learned(other, SECOND.name)
    assert older or ask(learner, TEXTS) != before
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")


def require_same_classifiers(learner: ConPET, other: ConPET) -> None:
    for slot in {LOGISTIC, REFIT} & other.store.snapshot().shared.keys():
        mine, theirs = (one.store.snapshot().shared[slot].tensors("text") for one in (learner, other))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("settings", "scope"),
    [
        ({"method": "der++"}, "everything"),
        ({"selector": {"name": "learned"}}, "everything"),
        ({"method": "lda"}, None),
    ],
    ids=["der++", "learned-selector", "lda"],
)
def test_whatever_was_trained_on_the_row_is_trained_again(
    settings: dict[str, Any], scope: str | None, tmp_path: Path
) -> None:
    learner = workspace(tmp_path, 3, **EXACT, **settings)
    report = learner.forget([ROW.text], evaluate=False)
    other = never_saw(tmp_path / "other", ROW.text, **EXACT, **settings)
    assert (report.scope, report.complete) == (scope, True)
    assert [name for name in different(files(learner), files(other)) if not expected_to_differ(name)] == []
    assert learner.store.verify() == []
    assert learner.verify_history() == []


def expected_to_differ(name: str) -> bool:
    """Tell whether a file differs for another reason: other version numbers, dates or starting points of training."""
    _, slot = name.split("/")[:2]
    return name.startswith(f"{SECOND.name}/") or slot in ("answers", "logistic", "calibration", "refusal")


def test_modules_that_compete_are_all_trained_again(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, fusion={"name": "paper"}, selector={"top_k": 2})
    assert learner.forget([ROW.text], dry_run=True).scope == "everything"


def test_a_warm_up_that_saw_the_row_is_done_again(tmp_path: Path) -> None:
    settings = {"backbone.warmup": "first-task", **EXACT}
    learner, row = workspace(tmp_path, 3, **settings), FIRST.train[0].text
    later = learner.forget([ROW.text], evaluate=False)
    assert later.learned_again == (SECOND.name,)  # the warm-up saw the first task only
    former = FoldedNote.of(learner.store.snapshot().shared[FOLDED])
    report = learner.forget([row], evaluate=False)
    other = never_saw(tmp_path / "other", row, ROW.text, **settings)
    assert report.scope == "everything"
    note, anew = (FoldedNote.of(one.store.snapshot().shared[FOLDED]) for one in (learner, other))
    assert note.digest == anew.digest != former.digest
    for task in stream():
        assert learned(learner, task.name) == learned(other, task.name)
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")


def test_a_consolidation_that_saw_the_row_is_done_again_and_the_generation_before_is_dropped(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.consolidate(bound=100, gate=False, evaluate=False)
    learner.learn(THIRD, gate=False, evaluate=False)
    later = learner.forget([THIRD.train[0].text], evaluate=False)
    assert (later.scope, later.generations) == (None, ())  # it was learned after the consolidation
    former = FoldedNote.of(learner.store.snapshot().shared[FOLDED])
    plan = learner.forget([ROW.text], dry_run=True)
    assert (plan.scope, plan.generations) == ("consolidation", (3,))
    report = learner.forget([ROW.text])
    assert report.complete
    note = FoldedNote.of(learner.store.snapshot().shared[FOLDED])
    assert note.digest != former.digest
    assert note.tasks == tuple(task.name for task in stream())
    assert {shared_slot_of(task.active.objects) for task in learner.tasks} == {CONSOLIDATED}
    assert [row.present for row in learner.generations] == [True]
    assert learner.store.verify() == []
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    assert learner.consolidation_due() is None


def test_what_shared_weights_saw_in_an_older_version_is_learned_again(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.consolidate(bound=100, gate=False, evaluate=False)
    learner.learn(without(SECOND, ROW.text), gate=False, evaluate=False)
    plan = learner.forget([ROW.text], dry_run=True)
    assert (plan.rows, plan.scope, plan.tasks[0].versions) == (0, "consolidation", 1)
    report = learner.forget([ROW.text])
    assert report.complete
    assert [version.number for version in learner.tasks[1].versions] == [2]
    assert learner.store.verify() == []
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    assert report_data(learner.store).events[-1].title.startswith(f"forget {SECOND.name}")


def test_a_merged_module_is_trained_again_for_all_its_tasks(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    learner.merge([FIRST.name, SECOND.name], bound=100, gate=False, evaluate=False)
    slot = shared_slot_of(learner.tasks[0].active.objects)
    assert slot is not None
    before = learner.store.snapshot().shared[slot].folder
    report = learner.forget([ROW.text], evaluate=False)
    assert report.learned_again == (FIRST.name, SECOND.name)
    assert [shared_slot_of(task.active.objects) for task in learner.tasks] == [slot, slot, None]
    assert learner.store.snapshot().shared[slot].folder != before
    assert not before.exists()


def test_modules_can_be_kept_and_are_named(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    weights = learned(learner, SECOND.name)["adapter_model.safetensors"]
    report = learner.forget([ROW.text], keep_modules=True)
    assert (report.learned_again, report.still_trained) == ((), (f"the module of task {SECOND.name}",))
    assert learned(learner, SECOND.name)["adapter_model.safetensors"] == weights
    assert learner.store.events()[-1].detail["forget"]["still_trained"] == list(report.still_trained)
    counts = next(task for task in learner.tasks if task.name == SECOND.name).active.description["counts"]
    assert counts["train"] == len(features_of(task_state(learner.tasks[1].active))) == len(SECOND.train) - 1


@pytest.mark.parametrize("method", ["der++", "emr"])
def test_one_module_for_all_tasks_can_be_kept(method: str, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, method=method)
    report = learner.forget([ROW.text], labels=[THIRD.labels[0]], keep_modules=True, evaluate=False)
    names = ", ".join(task.name for task in stream())
    assert report.still_trained == (f"the module that tasks {names} share",)
    assert report.complete
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    learner.learn(toy_stream(4, 2, 8, 2, 4, seed=5)[3], gate=False, evaluate=False)


def test_of_a_validation_row_nothing_was_learned_without_refitting(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, features={"refit": False})
    before = learner.store.snapshot().shared[LOGISTIC].manifest
    report = learner.forget([SECOND.validation[0].text], evaluate=False)
    assert (report.complete, report.fitted_again) == (True, False)
    assert learner.store.snapshot().shared[LOGISTIC].manifest == before


def test_of_a_test_row_nothing_was_learned(tmp_path: Path) -> None:
    report = workspace(tmp_path, 2).forget([SECOND.test[0].text], dry_run=True)
    assert (report.learned_again, report.fitted_again) == ((), False)
    assert "fitted again" not in str(report)


def test_held_out_rows_are_forgotten_without_training(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    weights = trained(learner, SECOND.name)
    report = learner.forget([SECOND.validation[0].text, SECOND.test[0].text])
    assert report.tasks[0].rows == {"train": 0, "validation": 1, "test": 1}
    assert report.learned_again == report.still_trained == ()
    assert trained(learner, SECOND.name) == weights
    kept = stored_texts(learner, SECOND.name)
    assert (len(kept["validation"]), len(kept["test"])) == (len(SECOND.validation) - 1, len(SECOND.test) - 1)


# What is named


def test_rows_are_found_by_id_and_hash_in_all_tasks(tmp_path: Path) -> None:
    copy = SECOND.train[5]
    first = replace(FIRST, train=(*FIRST.train, replace(copy, label=FIRST.train[0].label)))
    second = replace(SECOND, train=tuple(replace(one, id=number) for number, one in enumerate(SECOND.train)))
    learner = Trial(tmp_path, tiny_settings()).taught([first, second])
    digest = hashlib.sha256(copy.text.encode()).hexdigest()
    report = learner.forget(ids=[0, "nobody"], hashes=[digest], evaluate=False)
    assert [(task.task, task.rows["train"]) for task in report.tasks] == [(FIRST.name, 1), (SECOND.name, 2)]
    assert len(report.unmatched) == 1
    kept = [text for name in (FIRST.name, SECOND.name) for text in stored_texts(learner, name)["train"]]
    assert {copy.text, SECOND.train[0].text} & set(kept) == set()
    assert len(kept) == len(first.train) + len(second.train) - 3


def test_labels_and_tasks_go_with_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_ROWS", 7)
    learner, label = workspace(tmp_path, 3), SECOND.labels[0]
    report = learner.forget(labels=[label], tasks=[THIRD.name], evaluate=False)
    assert report.receipt is not None
    assert (report.receipt["check"]["rows"], report.receipt["check"]["of"]) == (7, report.rows)
    assert [(task.task, task.labels, task.removed) for task in report.tasks] == [
        (SECOND.name, (label,), False),
        (THIRD.name, THIRD.labels, True),
    ]
    assert [task.name for task in learner.tasks] == [FIRST.name, SECOND.name]
    assert learner.tasks[1].active.labels == SECOND.labels[1:]
    assert all(one.label != label for one in learner.predict(TEXTS))
    assert label not in str([event.detail for event in learner.store.events()])
    assert learner.verify_history() == []


def test_the_last_task_can_be_forgotten_and_another_learned(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, **{"backbone.warmup": "first-task"})
    assert learner.forget(tasks=[FIRST.name]).complete
    assert learner.store.snapshot().shared.get(FOLDED) is None
    learner.learn(SECOND, gate=False)
    assert FoldedNote.of(learner.store.snapshot().shared[FOLDED]).tasks == (SECOND.name,)


def test_the_last_example_of_a_label_takes_the_label_only_if_that_is_wanted(tmp_path: Path) -> None:
    label = SECOND.labels[0]
    rows = [one.text for one in SECOND.train if one.label == label]
    learner = workspace(tmp_path, 3)
    generation = learner.store.generation()
    with pytest.raises(DataError, match="--drop-labels"):
        learner.forget(rows)
    assert learner.store.generation() == generation
    report = learner.forget(rows, drop_labels=True, evaluate=False)
    assert report.tasks[0].labels == (label,)
    assert label not in learner.labels
    assert not any(one.label == label for one in stored_examples(learner.tasks[1].active).examples(Subset.TEST))


def test_rows_are_forgotten_by_the_day_they_were_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early, late = SECOND.train[:8], SECOND.train[8:]
    monkeypatch.setattr(memory, "today", lambda: "2024-02-01")
    learner = Trial(tmp_path, tiny_settings()).taught([replace(SECOND, train=(*early[:4], *late[:4]))])
    assert learner.forget(older_than=timedelta(days=36_500)).receipt is None
    monkeypatch.undo()
    learner.extend(Examples((*early[4:], *late[4:])), gate=False, evaluate=False)
    learner.rename(SECOND.labels[0], "renamed", gate=False, evaluate=False)
    report = learner.forget(older_than=timedelta(days=365), evaluate=False)
    held_out = {"validation": len(SECOND.validation), "test": len(SECOND.test)}
    assert report.tasks[0].rows == {"train": 8, **held_out}
    assert stored_texts(learner, SECOND.name)["train"] == [one.text for one in (*early[4:], *late[4:])]


def test_older_versions_that_may_hold_the_row_are_deleted(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.learn(without(SECOND, ROW.text), gate=False, evaluate=False)
    report = learner.forget([ROW.text])
    assert (report.rows, report.tasks[0].versions, report.learned_again) == (0, 1, ())
    assert [version.number for version in learner.tasks[1].versions] == [2]
    assert learner.verify_history() == []
    with pytest.raises(UnknownNameError):
        learner.rollback(SECOND.name, 1)


def test_data_that_was_learned_is_not_learned_again_by_the_next_run(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.forget([ROW.text])
    assert learner.learn(SECOND).skipped
    assert ROW.text not in stored_texts(learner, SECOND.name)["train"]


# Limited memory, and no texts


def test_a_row_that_the_memory_has_dropped_is_found_by_its_text(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, replay={"memory_examples": 12}, **EXACT)
    stored = stored_texts(learner, SECOND.name)["train"]
    gone = next(one for one in SECOND.train if one.text not in stored)
    with pytest.raises(DataError, match="found only by its text"):
        learner.forget(hashes=[hashlib.sha256(gone.text.encode()).hexdigest()])
    report = learner.forget([gone.text])
    assert report.tasks[0].rows["train"] == 1
    assert report.complete
    features = features_of(task_state(learner.tasks[1].active))
    (own,) = learner.backbone.states([gone], keep=False).features
    assert len(features) == len(SECOND.train) - 1
    assert not (features == own).all(dim=1).any()
    assert stored_texts(learner, SECOND.name)["train"] == stored


def test_without_texts_rows_are_found_by_their_features(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, replay={"latent_only": True})
    with pytest.raises(DataError, match="stores no texts and no ids"):
        learner.forget(ids=["7"])
    report = learner.forget([ROW.text, SECOND.test[0].text])
    assert report.tasks[0].rows == {"train": 1, "validation": 0, "test": 1}
    assert report.complete
    assert stored_examples(learner.tasks[1].active).count(Subset.TRAIN) == len(SECOND.train) - 1
    assert learner.forget([FIRST.train[0].text], evaluate=False).complete


def test_a_warm_up_without_texts_can_only_be_kept(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **{"backbone.warmup": "first-task", "replay.latent_only": True})
    with pytest.raises(ConfigError, match="--keep-modules"):
        learner.forget([FIRST.train[0].text])
    report = learner.forget([FIRST.train[0].text], keep_modules=True)
    assert "the backbone, by a warm-up" in report.still_trained
    assert report.complete


# What may stand in the way


def test_files_that_a_process_still_reads_are_deleted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "READERS_SECONDS", 0.1)
    learner = workspace(tmp_path, 2)
    reader = learner.store.snapshot()
    report = learner.forget([ROW.text], evaluate=False)
    assert report.receipt is not None
    assert not report.complete
    held = [learner.path / "objects" / name for name in report.receipt["still_read_by_a_process"]]
    assert held
    assert all(folder.exists() for folder in held)
    reader.close()
    receipt = learner.finish_forgetting()
    assert receipt is not None
    assert receipt["complete"]
    assert receipt["check"]["rows"] == 1  # the search is not lost
    assert not any(folder.exists() for folder in held)
    assert learner.finish_forgetting() is None


# Errors


def test_errors_say_what_to_do_and_quote_nothing(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    with pytest.raises(ConfigError, match="nothing to forget"):
        learner.forget()
    with pytest.raises(ConfigError, match="hash 1 is not a SHA-256 hash"):
        learner.forget(hashes=["abc"])
    with pytest.raises(UnknownNameError, match="did you mean"):
        learner.forget(labels=[FIRST.labels[0] + "x"])
    with pytest.raises(UnknownNameError, match="no task 'nothing'"):
        learner.forget(tasks=["nothing"])
    with pytest.raises(DataError, match="no stored row matches") as error:
        learner.forget(["a text that nobody has learned"])
    assert "nobody" not in str(error.value)
    with pytest.raises(DataError, match="is no input"):
        learner.forget([17])  # type: ignore[list-item]


def test_recorded_predictions_of_forgotten_rows_are_cleared(tmp_path: Path) -> None:
    learner = Trial(tmp_path, tiny_settings(**{"log.predictions": "text"})).taught([FIRST, SECOND])
    only_asked = "a question that was never learned"
    learner.predict([ROW.text, only_asked, FIRST.train[0].text])
    report = learner.forget([ROW.text], evaluate=False)
    assert (report.rows, report.recorded, report.complete) == (1, 1, True)
    assert learner.forget([only_asked], dry_run=True).recorded == 1
    report = learner.forget([only_asked])
    assert (report.rows, report.recorded) == (0, 1)
    assert not [path for path in learner.path.rglob("*.sqlite*") if only_asked.encode() in path.read_bytes()]
    with pytest.raises(DataError, match="no stored row matches"):
        learner.forget([only_asked])
