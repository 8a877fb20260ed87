"""Refusals and messages that surprised the first users of a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet import ConPET, Example, Task
from conpet.errors import ConfigError, DataError
from conpet.testing import tiny_settings, toy_stream
from conpet.types import Evaluation, LearnReport, Measurement
from tests.helpers.workspaces import workspace


def test_another_task_under_a_taken_name_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    first, second = toy_stream(2)
    workspace = ConPET.create(tmp_path / "w", **tiny_settings())
    workspace.learn(first, evaluate=False)
    impostor = Task(first.name, second.train, second.validation, second.test)
    with pytest.raises(DataError, match="give the new task another name"):
        workspace.learn(impostor, evaluate=False)
    assert workspace.labels == first.labels


def test_a_template_that_does_not_fit_is_found_before_anything_is_learned(tmp_path: Path) -> None:
    first, second = toy_stream(2)
    workspace = ConPET.create(tmp_path / "w", **tiny_settings())
    unfit = Task(second.name, second.train, template="{slot} says {text}")
    with pytest.raises(ConfigError, match=second.name):
        workspace.check([first, unfit])
    assert workspace.labels == ()


@pytest.mark.parametrize(("name", "value"), [("top_n", 0), ("min_score", 1.1), ("on_error", "ignore")])
def test_options_of_predictions_out_of_range_are_refused(tmp_path: Path, name: str, value: object) -> None:
    learner = workspace(tmp_path, 1)
    with pytest.raises(ConfigError, match=f"{name}={value!r}"):
        learner.predict(["hello"], **{name: value})  # type: ignore[call-overload]


def test_one_input_in_place_of_a_list_is_refused(tmp_path: Path) -> None:
    learner = ConPET.create(tmp_path / "w", **tiny_settings())
    for one in ("a string", Example.of_text("a string")):
        with pytest.raises(DataError, match=r"a list .* a single one.*predict\(\[\.\.\.\]\)"):
            learner.predict(one)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="a single one"):
            next(learner.predict_stream(one))  # type: ignore[arg-type]


def test_no_forgetting_is_written_without_a_sign() -> None:
    report = LearnReport("cards", 1, False, 2, 2, 4, forgetting=-0.0001)
    assert str(report).endswith("forgetting 0.0 points")


def test_logistic_regression_stands_beside_the_accuracy_and_a_better_reference_after_it() -> None:
    tasks = {"cards": {"accuracy": Measurement(0.9, 20)}}
    both = {"logistic": Measurement(0.85, 20), "lda": Measurement(0.875, 40)}
    words = Evaluation(tasks, both).in_words(4)
    assert words == (
        "whole accuracy 90.0% over 4 labels (logistic regression on the same features 85.0%; best reference lda 87.5%)"
    )
    assert Evaluation(tasks, {"logistic": both["logistic"]}).in_words(1) == (
        "whole accuracy 90.0% over 1 label (logistic regression on the same features 85.0%)"
    )
    assert Evaluation(tasks).in_words(4) == "whole accuracy 90.0% over 4 labels"
