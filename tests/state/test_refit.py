"""Classifiers that answer learn from validation examples; whatever is fitted or judged on these uses others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET
from conpet.features.fitted import fitted_classifier
from conpet.state.statistics import REFIT_CLASSES, REFIT_FEATURES
from conpet.testing import Trial, live_of, tiny_settings, toy_stream
from conpet.testing.checks import ask
from tests.helpers.live import encoded
from tests.helpers.workspaces import stream, workspace

EXACT = {"backbone.deterministic": True}
TEXTS = [example.text for task in stream() for example in task.test]
OFF = {"features": {"refit": False}}


def slots(learner: ConPET, *names: str) -> dict[str, Any]:
    shared = learner.store.snapshot().shared
    return {name: shared[name].manifest.to_json() for name in names if name in shared}


@pytest.mark.parametrize("method", ["dynamic", "logistic", "lda", "emr"])
def test_whatever_is_fitted_on_validation_examples_is_as_without_refitting(method: str, tmp_path: Path) -> None:
    """Calibration, decisions, the gate's answers, modules and statistics do not depend on it; answers do."""
    learner, without = (
        workspace(tmp_path, 3, name, method=method, **EXACT, **settings)
        for name, settings in (("with", {}), ("without", OFF))
    )
    kept = ("statistics", "logistic", "calibration", "refusal", "held_out", "static")
    assert slots(learner, *kept) == slots(without, *kept)
    assert ("refit" in learner.store.snapshot().shared) is (method != "lda")
    assert "refit" not in without.store.snapshot().shared
    for mine, theirs in zip(learner.tasks, without.tasks, strict=True):
        files = [task.active.objects["module"].manifest.to_json() for task in (mine, theirs)]
        refit = {name for name in files[0] if name.startswith("refit_")}
        assert refit == {
            f"{REFIT_CLASSES}.safetensors",
            *([] if method == "lda" else [f"{REFIT_FEATURES}.safetensors"]),
        }
        assert {name: entry for name, entry in files[0].items() if name not in refit} == files[1]
    if method != "emr":  # its module answers alone
        assert ask(learner, TEXTS) != ask(without, TEXTS)
    assert learner.evaluate().references != without.evaluate().references or method == "emr"


@pytest.mark.parametrize("method", ["dynamic", "logistic", "lda"])
def test_answers_are_those_of_training_on_both(method: str, tmp_path: Path) -> None:
    """A meaning that only validation examples have is known; the gate and the calibration do not know it."""
    (first, *others), seen = stream(), toy_stream(1, 2, 8, 6, 8, seed=5)[0]
    # The validation and test examples of the first label have words that no training example has.
    label = first.labels[0]
    strange = [replace(one, label=label) for one in (*seen.validation, *seen.test)]
    known, asked = strange[: len(seen.validation)], strange[len(seen.validation) :]
    first = replace(first, validation=(*first.validation, *known))
    learners = []
    for name, settings in (("with", {}), ("without", OFF)):
        (tmp_path / name).mkdir()
        trial = Trial(tmp_path / name, tiny_settings(method=method, **settings))
        learners.append(trial.taught([first, *others]))
    right = [sum(one.label == label for one in each.predict([one.text for one in asked])) for each in learners]
    assert right[0] > right[1]
    live = live_of(learners[0])
    inputs = encoded(live, asked)
    held_out = [each.method.score(each.state, inputs, first.kind).classes for each in map(live_of, learners)]
    torch.testing.assert_close(*held_out)


def test_the_logistic_regression_is_that_of_both_trained_at_once(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, method="logistic", **EXACT)
    both = [replace(task, train=(*task.train, *task.validation), validation=()) for task in stream()]
    (tmp_path / "other").mkdir()
    other = Trial(tmp_path / "other", tiny_settings(method="logistic", **EXACT)).taught(both)
    examples = [example for task in stream() for example in task.test]
    for name, tolerance in (("logistic", 0.05), ("nearest-mean", 1e-6)):
        scores = [
            fitted_classifier(live.method.statistics(live.state.refitted), name)
            .scores(encoded(live, examples)[None].features)
            .softmax(dim=1)
            for live in map(live_of, (learner, other))
        ]
        torch.testing.assert_close(*scores, rtol=0, atol=tolerance)


@pytest.mark.parametrize("change", ["rename", "retire", "remove", "merge", "rollback", "consolidate", "top"])
def test_classifiers_stay_refit_through_every_change(change: str, tmp_path: Path) -> None:
    learner, (first, second, _) = workspace(tmp_path, 3, **EXACT), stream()
    match change:
        case "rename":
            learner.rename(first.labels[0], "zz")
        case "retire":
            learner.retire(first.labels[0], gate=False)
        case "remove":
            learner.remove(first.name)
        case "merge":
            learner.merge([first.name, second.name], bound=100, gate=False)
        case "rollback":
            learner.learn(replace(first, train=first.train[1:], validation=first.validation[1:]), gate=False)
            learner.rollback(first.name, 1)
        case "consolidate":
            learner.consolidate(bound=100, gate=False)
        case "top":
            learner.consolidate(bound=100, gate=False, settings={"layers": "top"})
    live = live_of(learner)
    for task in live.state.tasks:
        counts, both = (
            sums.counts.sum()
            for refit in (False, True)
            for sums in live.method.statistics_reader.class_sums([task], refit=refit)
        )
        source = next(one for one in learner.tasks if one.name == task.name)
        assert int(both - counts) == source.active.description["counts"]["validation"]
    opened = ConPET.open(learner.path)
    assert ask(learner, TEXTS) == ask(opened, TEXTS)
    assert set(live.state.labels) == {label for kind in weights_of(learner) for label in kind}


def weights_of(learner: ConPET) -> list[list[str]]:
    stored = learner.store.snapshot().shared["refit"].document("logistic")
    return [list(labels) for labels in stored.values()]


def test_tasks_without_validation_examples_are_learned_as_before(tmp_path: Path) -> None:
    first, second, third = stream()
    learner = Trial(tmp_path, tiny_settings()).taught([replace(first, validation=())])
    assert "refit" not in learner.store.snapshot().shared
    before = ask(learner, TEXTS[:4])
    learner.learn(second, gate=False)
    learner.learn(third, gate=False)
    assert set(weights_of(learner)[0]) == set(learner.labels)
    learner.remove(second.name)
    learner.remove(third.name)
    assert "refit" not in learner.store.snapshot().shared
    for now, then in zip(ask(learner, TEXTS[:4]), before, strict=True):
        assert now == pytest.approx(then, abs=0.05)  # trained from zero, and task by task


def test_with_latent_only_stored_states_are_learned_from(tmp_path: Path) -> None:
    settings = {"replay": {"latent_only": True}}
    learner, texts = workspace(tmp_path, 3, "latent", **EXACT, **settings), workspace(tmp_path, 3, "texts", **EXACT)
    assert slots(learner, "refit") == slots(texts, "refit")
