"""Consolidating: the backbone is tuned on all tasks, everything is learned again over it, and nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET, Example, Task
from conpet.commands.generations import just_consolidated
from conpet.commands.report import report_data
from conpet.commands.tuned import TunedBackbones
from conpet.data import Kind
from conpet.errors import AccuracyBoundError, ConfigError, DataError, UnknownNameError
from conpet.methods import METHODS
from conpet.methods.closed_form import ClosedFormMethod
from conpet.modules import optimisation
from conpet.modules.folded_info import FOLDED, FoldedNote
from conpet.report.page import render_page
from conpet.state.slots import ASSIGNMENT, MODULE, shared_slot_of
from conpet.state.statistics import features_of
from conpet.testing import Trial, ask, tiny_settings, toy_stream
from conpet.testing.checks import digest_of_weights, files, require_same
from conpet.testing.registration import registered
from tests.helpers.workspaces import Stopped, files_with, frozen_state, shared_digests, stop_at, stream, workspace

FIRST, SECOND, THIRD = stream()
TEXTS = [example.text for task in stream() for example in task.test]
ANY = {"bound": 100.0, "evaluate": False, "gate": False}
"""Random weights may lose accuracy; most tests are not about that."""
CLOSED_FORMS = [name for name in METHODS if issubclass(METHODS[name], ClosedFormMethod)]


def note_of(learner: ConPET) -> FoldedNote | None:
    return FoldedNote.among(learner.store.snapshot().shared)


def weights_of(learner: ConPET) -> dict[str, torch.Tensor]:
    return {name: weight.float() for name, weight in learner.backbone.cut.model.state_dict().items()}


# What it does


@pytest.mark.parametrize("method", ["dynamic", *CLOSED_FORMS])
def test_everything_is_learned_again_over_a_tuned_backbone(method: str, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, method=method)
    weights, before = digest_of_weights(learner), ask(learner, TEXTS)
    report = learner.consolidate(bound=100)
    assert report.tasks == tuple(task.name for task in stream())
    assert (report.examples, report.before.total, report.after.total) == (48, 12, 12)
    assert report.evaluation is not None
    assert report.evaluation.whole_accuracy == ConPET.open(learner.path).evaluate().whole_accuracy
    assert digest_of_weights(learner) == digest_of_weights(ConPET.open(learner.path)) != weights
    assert ask(learner, TEXTS) != before
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    assert learner.store.verify() == []
    for task, learned in zip(learner.tasks, stream(), strict=True):
        again = learner.backbone.states(learned.train).features
        torch.testing.assert_close(features_of(task.active), again, rtol=0, atol=0)  # type: ignore[arg-type]
    event = learner.store.events()[-1]
    assert event.verb == "consolidate"
    assert event.detail["tasks"] == list(report.tasks)
    assert "consolidation" in {cost.stage for cost in event.costs}
    assert {stage.stage for stage in report.cost} >= {"consolidation", "prefix", "statistics", "validation"}


def test_the_statistics_are_those_of_learning_over_that_backbone(tmp_path: Path) -> None:
    """Computed from zero in one step, they equal to the last bit what the tasks add one by one."""
    learner = workspace(tmp_path, 2, method="lda")
    learner.consolidate(**ANY)
    learner.learn(THIRD, evaluate=False)
    whole = workspace(tmp_path, 2, "other", method="lda")
    whole.consolidate(**ANY)
    whole.learn(THIRD, evaluate=False)
    whole.remove(THIRD.name, evaluate=False)
    whole.learn(THIRD, evaluate=False)
    require_same(ask(learner, TEXTS), ask(whole, TEXTS), "in another order")


def test_one_module_serves_all_labels_and_later_tasks_have_their_own(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    own = learner.store.events()[-1].bytes_stored
    report = learner.consolidate(**ANY)
    assert {shared_slot_of(task.active.objects) for task in learner.tasks} == {"consolidated"}
    assert report.bytes_before == own
    assert report.bytes_after == learner.store.events()[-1].bytes_stored
    weights, before = digest_of_weights(learner), ask(learner, TEXTS)
    learner.learn(THIRD)
    assert shared_slot_of(learner.tasks[2].active.objects) is None
    assert digest_of_weights(learner) == weights
    assert learner.predict([THIRD.test[0]])[0].label in THIRD.labels
    learner.remove(THIRD.name, evaluate=False)
    assert [max(row, key=row.__getitem__) for row in ask(learner, TEXTS)] == [
        max(row, key=row.__getitem__) for row in before
    ]


def test_it_learns_what_a_cut_backbone_cannot(tmp_path: Path) -> None:
    settings = tiny_settings(training={"epochs": 1}, backbone={"frozen_layers": 3}, consolidation={"epochs": 8})
    learner = Trial(tmp_path, settings).taught(toy_stream(3, 3, 10, 6, 4))
    report = learner.consolidate()
    assert report.after.correct > report.before.correct
    assert "accuracy on 54 validation examples" in str(report)


def test_a_second_one_starts_from_the_original_weights_and_replaces_the_first(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.consolidate(**ANY)
    first = note_of(learner)
    learner.learn(THIRD, evaluate=False)
    learner.consolidate(**ANY)
    alone = workspace(tmp_path, 3, "alone")
    alone.consolidate(**ANY)
    assert first is not None
    assert note_of(learner) == note_of(alone) != first
    assert digest_of_weights(learner) == digest_of_weights(alone)
    assert {shared_slot_of(task.active.objects) for task in learner.tasks} == {"consolidated"}


def test_it_replaces_a_warm_up(tmp_path: Path) -> None:
    warm, cold = workspace(tmp_path, 2, "warm", backbone={"warmup": "first-task"}), workspace(tmp_path, 2, "cold")
    for learner in (warm, cold):
        learner.consolidate(**ANY)
    assert digest_of_weights(warm) == digest_of_weights(cold)
    for task in warm.tasks:
        warm.remove(task.name, evaluate=False)
    warm.learn(FIRST, evaluate=False)
    assert digest_of_weights(warm) == digest_of_weights(cold)


def test_its_settings_are_a_section_and_can_differ_for_one_time(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, consolidation={"rank": 3, "epochs": 2})
    learner.consolidate(**ANY, settings={"epochs": 1, "learning_rate": 1e-4})
    config = learner.store.snapshot().shared[FOLDED].document("adapter_config")
    assert (config["r"], config["target_modules"] is None) == (3, False)
    assert learner.store.events()[-1].detail["steps"] == 1 * 4 + 2 * 4 * 2
    assert learner.settings.consolidation.epochs == 2
    with frozen_state(learner), pytest.raises(ConfigError, match=r"unknown setting 'consolidation\.epoch'"):
        learner.consolidate(settings={"epoch": 1})


@pytest.mark.parametrize(
    ("tasks", "share"),
    [
        ([FIRST, SECOND], 0.5),
        (toy_stream(2, 2, 6, 2, 2, kind=Kind.TYPING), 0.5),
        (toy_stream(2, 2, 6, 2, 2, kind=Kind.RELATION), 1.0),
        ([FIRST, toy_stream(1, 2, 8, 2, 2, kind=Kind.RELATION)[0]], 0.75),
    ],
    ids=["text", "mentions", "relations", "half of each"],
)
def test_the_tuned_weights_are_between_the_original_and_the_trained_ones(
    tasks: Sequence[Task], share: float, tmp_path: Path
) -> None:
    """By default as far as the kinds of the training examples say, or as far as `share` says."""
    trial, tuned = Trial(tmp_path, tiny_settings()), TunedBackbones()
    plain, default, whole, tenth = (trial.taught(tasks, name) for name in ("plain", "default", "whole", "tenth"))
    default.consolidate(**ANY, tuned=tuned)
    whole.consolidate(**ANY, tuned=tuned, settings={"share": 1.0})
    tenth.consolidate(**ANY, tuned=tuned, settings={"share": 0.1})
    before, half, after, little = (weights_of(learner) for learner in (plain, default, whole, tenth))
    assert not all(torch.equal(before[name], after[name]) for name in before)
    for name, weight in before.items():
        change = after[name] - weight
        torch.testing.assert_close(half[name], weight + share * change)
        torch.testing.assert_close(little[name], weight + 0.1 * change)
    assert tuned.cpu_seconds_saved > 0
    assert note_of(default) != note_of(tenth)
    assert [one.store.events()[-1].detail["share"] for one in (default, tenth)] == [share, 0.1]


def test_labels_compete_with_those_of_their_own_kind_and_templates_stay(tmp_path: Path) -> None:
    relations = toy_stream(1, 2, 6, 2, 2, kind=Kind.RELATION)[0]
    own = replace(SECOND, template="{text}. They want:")
    learner = Trial(tmp_path, tiny_settings()).taught([FIRST, relations, own])
    learner.consolidate(**ANY)
    assert {answer.label for answer in learner.predict(relations.test)} <= set(relations.labels)
    assert {answer.label for answer in learner.predict(own.test)} <= {*FIRST.labels, *own.labels}


def test_a_learned_selector_is_learned_again(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, selector="learned", fusion="paper")
    learner.consolidate(**ANY)
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    assert learner.evaluate().selector_accuracy is not None


def test_a_task_without_labels_gets_a_module_of_its_own_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugin"))
    import conpet_plugin

    numbers = Task(
        "numbers",
        tuple(example.labelled(str(row)) for row, example in enumerate(THIRD.train)),
        tuple(example.labelled(str(row)) for row, example in enumerate(THIRD.validation)),
        settings={"head": "number"},
    )
    with registered("head", conpet_plugin.NumberHead):
        learner = Trial(tmp_path, tiny_settings()).taught([FIRST, numbers, SECOND])
        learner.consolidate(**ANY)
        assert [shared_slot_of(task.active.objects) for task in learner.tasks] == ["consolidated", None, "consolidated"]
        answers = [answer.answer for answer in learner.predict(THIRD.train) if answer.task == "numbers"]
        assert answers
        assert all(isinstance(answer, float) for answer in answers)


def test_a_limited_memory_counts_as_all_there_is(tmp_path: Path) -> None:
    memory = {"memory_examples": 12, "retention": "k-means"}
    learner = Trial(tmp_path, tiny_settings(replay=memory)).taught(toy_stream(2, 3, 6, 2, 2))
    learner.consolidate(**ANY)
    assert sum(len(features_of(task.active)) for task in learner.tasks) == 12  # type: ignore[arg-type]
    learner.learn(toy_stream(3, 3, 6, 2, 2)[2], evaluate=False)
    task = learner.tasks[0]
    learner.retire(task.active.labels[0], evaluate=False)
    learner.rename(task.active.labels[1], "another", evaluate=False)
    assert learner.store.verify() == []


# What is refused


def test_a_candidate_that_is_worse_is_not_kept(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    before = ask(learner, TEXTS)
    spoiled = {"epochs": 1, "learning_rate": 3.0, "share": 1.0}
    with frozen_state(learner), pytest.raises(AccuracyBoundError, match="Nothing was changed; raise the bound"):
        learner.consolidate(settings=spoiled)
    assert ask(learner, TEXTS) == before
    report = learner.consolidate(settings=spoiled, bound=100, gate=False)
    assert report.after.correct < report.before.correct


def test_one_module_methods_are_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, method="emr")
    with frozen_state(learner):
        with pytest.raises(ConfigError, match=r"has no consolidation.*conpet upgrade"):
            learner.consolidate()
        with pytest.raises(ConfigError, match="Nothing was learned"):
            next(learner.learn_stream([SECOND], consolidate="doubling"))
    assert learner.consolidation_due() is None


def test_what_cannot_be_consolidated_is_refused(tmp_path: Path) -> None:
    latent = workspace(tmp_path, 2, "latent", replay={"latent_only": True})
    with frozen_state(latent), pytest.raises(ConfigError, match=r"latent_only=true.*layers=top"):
        latent.consolidate()
    empty = workspace(tmp_path, 0, "empty")
    with frozen_state(empty), pytest.raises(ConfigError, match="no task with labels"):
        empty.consolidate()
    learner = workspace(tmp_path, 2)
    with frozen_state(learner):
        with pytest.raises(ConfigError, match="bound=-1"):
            learner.consolidate(bound=-1)
        with pytest.raises(ConfigError, match="consolidate='always'"):
            next(learner.learn_stream([THIRD], consolidate="always"))  # type: ignore[arg-type]
    unjudged = Trial(tmp_path, tiny_settings()).taught([replace(FIRST, validation=())], "unjudged")
    with frozen_state(unjudged), pytest.raises(DataError, match="no task has any"):
        unjudged.consolidate()
    unjudged.learn(SECOND, evaluate=False)
    report = unjudged.consolidate(**ANY)
    assert report.notes == (f"without validation examples, so not compared: {FIRST.name}",)
    assert report.before.total == 4
    few = tiny_settings(replay={"memory_examples": 2})
    limited = Trial(tmp_path, few).taught(toy_stream(2, 3, 6, 2, 2), "limited")
    with (
        frozen_state(limited),
        pytest.raises(DataError, match=r"stored examples of every label(.|\n)*--extend|label '"),
    ):
        limited.consolidate()


# Only the layers above the cut


TOP = {"settings": {"layers": "top"}, **ANY}


def test_of_the_top_layers_one_module_is_trained_and_everything_else_stays(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    learner.learn(replace(FIRST, train=FIRST.train[::2]), evaluate=False)
    learner.learn(SECOND, evaluate=False)
    weights, before, statistics = digest_of_weights(learner), ask(learner, TEXTS), shared_digests(learner, "statistics")
    report = learner.consolidate(**TOP)
    assert (report.share, report.examples) == (None, 24)
    assert "one module for all labels" in str(report)
    assert len({shared_slot_of(task.active.objects) for task in learner.tasks} - {None}) == 1
    assert digest_of_weights(learner) == weights
    assert shared_digests(learner, "statistics") == statistics
    assert ask(learner, TEXTS) != before
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    assert learner.consolidation_due() is None
    assert [(row.consolidated, row.layers) for row in learner.generations] == [(0, None), (2, "top")]
    learner.rollback(FIRST.name, 1, evaluate=False)
    trained = ["module" in {cost.stage for cost in event.costs} for event in learner.store.events()[-2:]]
    assert trained == [True, False], "the module of the older version is still there"
    learner.restore(report.replaced, evaluate=False)
    require_same(ask(learner, TEXTS), before, "in the generation before")
    assert learner.consolidation_due() is not None
    assert learner.store.verify() == []


def test_the_top_layers_can_be_consolidated_before_and_after_all_layers(tmp_path: Path) -> None:
    learner, alone = workspace(tmp_path, 2), workspace(tmp_path, 3, "alone")
    learner.consolidate(**TOP)
    learner.learn(THIRD, evaluate=False)
    learner.consolidate(**ANY)
    alone.consolidate(**ANY)
    assert learner.store.snapshot().shared.keys() == alone.store.snapshot().shared.keys()
    weights = digest_of_weights(learner)
    assert weights == digest_of_weights(alone)
    learner.consolidate(**TOP)
    assert digest_of_weights(learner) == weights
    assert note_of(learner) is not None
    assert {shared_slot_of(task.active.objects) for task in learner.tasks} == {"merged-1"}
    assert "consolidated" not in learner.store.snapshot().shared
    assert learner.store.verify() == []


def test_the_top_layers_need_no_texts(tmp_path: Path) -> None:
    settings = {"replay": {"latent_only": True}, "consolidation": {"layers": "top"}}
    learner = workspace(tmp_path, 2, **settings)
    assert learner.consolidation_due() is not None
    assert learner.consolidate(**ANY).after.total == 8


def test_the_top_layers_need_not_be_consolidated_right_after_all_layers(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    top = learner.settings.changed({"consolidation.layers": "top"})
    learner.consolidate(**ANY, settings={"epochs": 1})
    assert just_consolidated(learner.store, top)
    assert not just_consolidated(learner.store, learner.settings)  # other epochs
    learner.learn(stream()[2], gate=False, evaluate=False)
    assert not just_consolidated(learner.store, top)


def test_the_top_layers_are_not_done_for_a_method_without_modules(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="lda")
    learner.consolidate(**ANY)
    assert just_consolidated(learner.store, learner.settings)
    assert not just_consolidated(learner.store, learner.settings.changed({"consolidation.layers": "top"}))


def test_settings_without_effect_on_the_top_layers_are_named(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    given = {"layers": "top", "epochs": 2, "share": 0.5}
    with (
        frozen_state(learner),
        pytest.raises(ConfigError, match=r"consolidation\.epochs, consolidation\.share have no"),
    ):
        learner.consolidate(bound=100, gate=False, settings=given)
    top = workspace(tmp_path, 2, "top", consolidation={"layers": "top", "epochs": 2})
    assert top.consolidate(**ANY).after.total == 8  # those of the workspace are for layers=all


def test_the_top_layers_need_modules(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="lda")
    with frozen_state(learner), pytest.raises(ConfigError, match=r"'lda' has no modules.*layers=top.*layers=all"):
        learner.consolidate(**TOP)


def test_a_module_for_all_labels_is_trained_again_to_forget(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    learner.consolidate(**TOP)
    report = learner.forget([FIRST.train[0].text])
    assert report.learned_again == tuple(task.name for task in stream())
    assert report.complete
    assert learner.consolidation_due() is None


# Interruptions


@pytest.mark.parametrize("stage", ["consolidation", "module"])
def test_an_interrupted_one_changes_nothing_and_goes_on(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    learner, whole = workspace(tmp_path, 3), workspace(tmp_path, 3, "whole")
    with frozen_state(learner), pytest.raises(Stopped):
        learner.consolidate(**ANY, progress=stop_at(stage, 0.5))
    seen: list[float] = []
    learner.consolidate(**ANY, progress=lambda name, share: seen.append(share) if name == stage else None)
    assert seen[0] > 0.4
    whole.consolidate(**ANY)
    assert files(learner) == files(whole)
    assert learner.store.scratches() == []


def test_another_share_after_a_refusal_does_not_train_the_backbone_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    learner, whole = workspace(tmp_path, 3), workspace(tmp_path, 3, "whole")
    spoiled = {"epochs": 1, "learning_rate": 3.0}
    with pytest.raises(AccuracyBoundError):
        learner.consolidate(settings=spoiled | {"share": 1.0})
    steps: list[str] = []
    mild = ANY | {"settings": spoiled | {"share": 0.01}}
    learner.consolidate(**mild, progress=lambda name, _: steps.append(name))
    assert "module" in steps
    assert "consolidation" not in steps
    whole.consolidate(**mild)
    assert files(learner) == files(whole)


def test_another_process_that_has_the_workspace_open_sees_it(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    reader = ConPET.open(learner.path)
    ask(reader, TEXTS)
    for change in (learner.consolidate, lambda **_: learner.restore(learner.generations[0].number)):
        change(**ANY)
        require_same(ask(reader, TEXTS), ask(learner, TEXTS), "in the other process")
        assert digest_of_weights(reader) == digest_of_weights(learner)


# Going back


def test_the_generation_before_comes_back_exactly_and_the_one_after_too(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.learn(replace(FIRST, train=FIRST.train[::2]), evaluate=False)
    before, stored = ask(learner, TEXTS), files(learner)
    replaced = learner.consolidate(**ANY).replaced
    learner.learn(THIRD, evaluate=False)
    after, latest = ask(learner, TEXTS), learner.store.generation()
    evaluation = learner.restore(replaced)
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    require_same(before, ask(learner, TEXTS), "after going back")
    assert set(learner.labels) == {*FIRST.labels, *SECOND.labels}
    assert {name: value for name, value in files(learner).items() if name in stored} == stored
    assert evaluation is not None
    assert evaluation.whole_accuracy == learner.evaluate().whole_accuracy
    learner.rollback(FIRST.name, 1, evaluate=False)  # versions of that time have their modules
    learner.restore(latest, evaluate=False)
    require_same(after, ask(learner, TEXTS), "after going forward")
    assert learner.store.verify() == []


def test_learning_goes_on_after_going_back(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    replaced = learner.consolidate(**ANY).replaced
    learner.restore(replaced, evaluate=False)
    learner.learn(THIRD, evaluate=False)
    plain = workspace(tmp_path, 3, "plain")
    for there, here in zip(ask(plain, TEXTS), ask(learner, TEXTS), strict=True):
        assert here == pytest.approx(there, abs=1e-3)  # the fit of the fusion carries rounding further
    assert note_of(learner) is None
    with frozen_state(learner), pytest.raises(UnknownNameError, match=rf"generation 99 is not kept.*kept: {replaced}"):
        learner.restore(99)


def test_settings_come_back_with_their_generation(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="emr")
    learner.upgrade(evaluate=False)
    before = learner.settings
    replaced = learner.consolidate(**ANY).replaced
    learner.tune(FIRST, trials=2, choices={"warmups": ["none"], "epochs": 2})
    learner.restore(replaced, evaluate=False)
    assert learner.settings == before == ConPET.open(learner.path).settings


def test_generations_are_listed_with_their_storage_and_can_be_dropped(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    assert [row.present for row in learner.generations] == [True]
    learner.consolidate(bound=100)
    kept, present = learner.generations
    assert (kept.present, kept.verb, kept.consolidated, kept.labels) == (False, "learn", 0, 4)
    assert (present.present, present.verb, present.consolidated) == (True, "consolidate", 2)
    assert present.bytes == learner.store.events()[-1].bytes_stored
    assert present.whole_accuracy == learner.evaluate().whole_accuracy
    size = sum(path.stat().st_size for path in (learner.path / "objects").rglob("*"))
    learner.drop_generation(kept.number)
    left = sum(path.stat().st_size for path in (learner.path / "objects").rglob("*") if path.is_file())
    assert 0 < kept.bytes <= size - left
    assert [row.number for row in learner.generations] == [present.number]
    with pytest.raises(UnknownNameError, match="is not kept"):
        learner.restore(kept.number)


# Other changes afterwards


@pytest.mark.parametrize("method", ["dynamic", "lda"])
def test_an_older_version_is_learned_again_when_it_is_rolled_back_to(method: str, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method=method)
    half = replace(FIRST, train=FIRST.train[::2])
    learner.learn(half, evaluate=False)
    learner.consolidate(**ANY)
    assert MODULE not in learner.tasks[0].version(1).objects
    assert ASSIGNMENT not in learner.tasks[0].version(1).objects
    report = learner.rollback(FIRST.name, 1)
    assert "learned again from its 16 stored training examples" in report.notes[0]
    assert report.version == 1
    assert report.evaluation is not None
    require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), "when it is opened again")
    learner.rollback(FIRST.name, 2)  # learned again by the consolidation
    assert learner.rollback(FIRST.name, 1).notes == ()
    again = learner.backbone.states(FIRST.train).features
    torch.testing.assert_close(features_of(learner.tasks[0].active), again, rtol=0, atol=0)  # type: ignore[arg-type]


def test_exporting_a_version_without_module_is_refused_and_others_come_with_the_backbone(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.learn(replace(FIRST, train=FIRST.train[::2]), evaluate=False)
    learner.consolidate(**ANY)
    with pytest.raises(ConfigError, match="learned before a consolidation"):
        learner.export(FIRST.name, tmp_path / "old", version=1)
    folder = learner.export(FIRST.name, tmp_path / "new")
    assert (folder / "backbone" / "adapter_model.safetensors").is_file()
    assert not list((folder / "backbone").glob("head*"))


def test_a_removed_task_leaves_no_examples_behind_not_even_in_kept_generations(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    learner.consolidate(**ANY)
    text = FIRST.train[0].text
    assert files_with(learner, text)
    learner.remove(FIRST.name, evaluate=False)
    assert files_with(learner, text) == files_with(learner, FIRST.labels[0]) == []
    assert [row.present for row in learner.generations] == [True]
    learner.consolidate(**ANY)
    learner.learn(FIRST, evaluate=False)
    learner.remove(FIRST.name, evaluate=False)
    assert len(learner.generations) == 2  # it is not in the generation kept


def test_a_retired_label_leaves_no_examples_behind_either(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.consolidate(**ANY)
    learner.rename(FIRST.labels[0], "another", evaluate=False)
    assert len(learner.generations) == 2
    learner.retire("another", evaluate=False)
    assert files_with(learner, "another") == files_with(learner, FIRST.labels[0]) == []
    assert len(learner.generations) == 1
    assert len(learner.predict(TEXTS)) == len(TEXTS)


def test_every_other_change_works_afterwards(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    learner.consolidate(**ANY)
    learner.rename(FIRST.labels[0], "renamed")
    more = Task("more", tuple(Example.of_text(f"{example.text} again", example.label) for example in SECOND.train[::4]))
    learner.extend(more)
    finer = [
        example.labelled(f"finer-{row % 2}")
        for row, example in enumerate(THIRD.train)
        if example.label == THIRD.labels[0]
    ]
    learner.split_label(THIRD.labels[0], Task("finer", tuple(finer)))
    learner.merge([SECOND.name, THIRD.name], bound=100)
    learner.learn(
        replace(
            FIRST,
            name="fresh",
            train=tuple(one.labelled(f"new {one.label}") for one in FIRST.train),
            validation=(),
            test=(),
        )
    )
    learner.consolidate(**ANY)
    for generation in [row.number for row in learner.generations if not row.present]:
        learner.restore(generation)
        require_same(ask(learner, TEXTS), ask(ConPET.open(learner.path), TEXTS), f"generation {generation}")
    assert learner.store.verify() == []


# When it is due


def test_reports_say_when_it_is_due_with_the_last_cost_and_gain(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    tasks = toy_stream(6, 2, 8, 2, 4)
    assert learner.learn(tasks[0]).consolidation_due is None
    due = learner.learn(tasks[1]).consolidation_due
    assert due == "32 training examples in 2 tasks, and no consolidation so far"
    learner.consolidate(**ANY)
    assert learner.consolidation_due() is None
    assert learner.learn(tasks[2]).consolidation_due is None
    due = learner.learn(tasks[3]).consolidation_due
    assert due is not None
    assert due.startswith("64 training examples, 32 at the last consolidation, which took ")
    assert "moved accuracy on validation examples from" in due
    assert due == learner.consolidation_due()
    assert learner.consolidation_due(since=64) is None


def test_a_refused_consolidation_is_not_due_again_before_the_examples_have_doubled(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    tasks = toy_stream(4, 2, 8, 2, 4)
    for task in tasks[:2]:
        learner.learn(task, evaluate=False)
    assert learner.consolidation_due()
    with pytest.raises(AccuracyBoundError):
        learner.consolidate(settings={"epochs": 1, "learning_rate": 3.0})
    assert ConPET.open(learner.path).consolidation_due() is None
    assert learner.learn(tasks[2], evaluate=False).consolidation_due is None
    assert learner.learn(tasks[3], evaluate=False).consolidation_due


def test_a_stream_is_consolidated_each_time_it_has_doubled(tmp_path: Path) -> None:
    tasks = toy_stream(9, 2, 4, 2, 1)
    learner = workspace(tmp_path, consolidation={"epochs": 1}, training={"epochs": 2})
    reports = list(learner.learn_stream(tasks, consolidate="doubling"))
    tried = [report for report in reports if report.consolidation or report.notes]
    assert [report.tasks_seen for report in tried] == [2, 4, 8]
    for report in tried:
        if report.consolidation:
            assert report.consolidation.examples == 8 * report.tasks_seen
            assert report.evaluation == report.consolidation.evaluation
        else:
            assert "Nothing was changed" in report.notes[-1]
    assert len(learner.tasks) == 9


def test_a_stream_is_learned_to_its_end_if_it_cannot_be_consolidated(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    tasks = [replace(task, validation=()) for task in stream()]
    reports = list(learner.learn_stream(tasks, consolidate="doubling", evaluate=False))
    assert [len(report.notes) for report in reports] == [0, 1, 0]
    assert "no task has any" in reports[1].notes[0]
    assert reports[1].consolidation_due is not None


def test_learning_never_consolidates_by_itself(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    for report in learner.learn_stream(stream()):
        assert report.consolidation is None
    assert {event.verb for event in learner.store.events()} == {"create", "learn"}


# Reports


def test_reports_tell_of_it(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    replaced = learner.consolidate(bound=100).replaced
    learner.learn(THIRD)
    data = report_data(learner.store)
    assert [event.title for event in data.events][2:] == ["consolidate", THIRD.name]
    assert data.workspace.backbone.consolidated == (FIRST.name, SECOND.name)
    assert data.workspace.backbone.fingerprint == learner.backbone.fingerprint.digest
    assert "all layers were tuned on the 2 tasks of the last consolidation" in render_page(data)
    learner.restore(replaced)
    learner.remove(FIRST.name)
    events: Any = report_data(learner.store).events
    assert [event.title for event in events][-2:] == [f"restore {replaced}", f"− {FIRST.name}"]
    assert events[-1].version == 1
