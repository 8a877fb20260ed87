"""Closed-form methods give exactly the classifier of the same name over all data, in any order of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet import ConPET
from conpet.errors import ConfigError
from conpet.features import CLASSIFIERS as CLOSED_FORMS
from conpet.methods import METHODS
from conpet.methods.closed_form import ClosedFormMethod
from conpet.testing import Trial, live_of, tiny_settings, toy_stream
from conpet.testing.checks import files

STREAM = toy_stream(3, 2, 8, 0, 6)
LEARNERS = [name for name in METHODS if issubclass(METHODS[name], ClosedFormMethod) and name != "logistic"]


def taught(folder: Path, method: str, order: tuple[int, ...] = (0, 1, 2), name: str = "ws") -> ConPET:
    return Trial(folder, tiny_settings(method=method)).taught([STREAM[index] for index in order], name)


def test_they_are_five() -> None:
    assert sorted(LEARNERS) == ["klda", "lda", "ncm", "ranpac", "ridge"]


@pytest.mark.parametrize("method", LEARNERS)
def test_answers_are_those_of_the_classifier(method: str, tmp_path: Path) -> None:
    workspace = taught(tmp_path, method)
    live = live_of(workspace)
    examples = [example for task in STREAM for example in task.test]
    classifier = CLOSED_FORMS[METHODS[method].classifier]().fit(live.method.statistics(live.state))
    best = classifier.scores(workspace.backbone.states(examples).features).argmax(dim=1).tolist()
    assert [one.label for one in workspace.predict(examples)] == [live.state.classes[column] for column in best]
    evaluation = workspace.evaluate()
    assert evaluation.whole_accuracy == evaluation.references[METHODS[method].classifier].value
    assert evaluation.whole_accuracy > 0.6  # chance: 0.17


@pytest.mark.parametrize("method", LEARNERS)
def test_the_order_of_tasks_does_not_matter_and_a_removed_one_leaves_no_trace(method: str, tmp_path: Path) -> None:
    forwards, backwards = taught(tmp_path, method, (0, 1)), taught(tmp_path, method, (1, 0), "other")
    removed = taught(tmp_path, method, (0, 2, 1), "removed")
    removed.remove(STREAM[2].name, evaluate=False, gate=False)
    shared = [
        # What decisions are calibrated on is fitted to scores, whose rounding depends on the order of columns.
        {name: digest for name, digest in files(one).items() if name.startswith("shared") and "refusal" not in name}
        for one in (forwards, backwards, removed)
    ]
    assert shared[0] == shared[1] == shared[2]
    assert shared[0]
    texts = [task.test[0].text for task in STREAM]
    first, *others = ([one.in_scope for one in learner.predict(texts)] for learner in (forwards, backwards, removed))
    assert all(other == pytest.approx(first, abs=1e-4) for other in others)


@pytest.mark.parametrize("method", LEARNERS)
def test_nothing_is_trained(method: str, tmp_path: Path) -> None:
    workspace = taught(tmp_path, method, (0,))
    report = workspace.learn(STREAM[1])
    assert (report.trainable_parameters, report.head_parameters) == (0, 0)
    assert sum(cost.steps for cost in report.cost) == 0
    with pytest.raises(ConfigError, match="no PET module to export"):
        workspace.export(STREAM[0].name, tmp_path / "module")


def test_klda_keeps_the_view_it_reads_and_no_other_random_one(tmp_path: Path) -> None:
    assert set(taught(tmp_path, "klda").evaluate().references) == {"nearest-mean", "lda", "ridge", "klda"}
    assert "klda" not in taught(tmp_path, "ranpac", name="other").evaluate().references


def test_a_model_without_linear_maps_above_the_cut_will_do(tmp_path: Path) -> None:
    workspace = Trial(tmp_path, tiny_settings(method="lda", backbone={"frozen_layers": 4})).taught(STREAM[:2])
    assert workspace.predict([STREAM[0].test[0]])[0].label in workspace.labels
    with pytest.raises(ConfigError, match="no linear maps"):
        Trial(tmp_path, tiny_settings(backbone={"frozen_layers": 4})).workspace("tuned")
