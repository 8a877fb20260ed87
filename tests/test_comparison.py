"""Comparing learners on a stream: what is measured, what it costs, which one is chosen."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Task, compare_learners
from conpet.comparison import choose, sign_test
from conpet.errors import ConfigError, DataError, DivergedError, UnknownNameError
from conpet.report.comparison import ComparisonReport, LearnerResult
from conpet.testing import tiny_settings, toy_stream
from conpet.testing.registration import registered
from tests.helpers.workspaces import Stopped, stop_at

STREAM = toy_stream(2, 2, 8, 12, 2)
NAMED = ("joint", "dynamic+consolidate", "lda", "dynamic")


@pytest.fixture(scope="module")
def compared() -> ComparisonReport:
    return compare_learners(STREAM, NAMED, **tiny_settings())


def result(learner: str, correct: int, p_value: float, passes: float) -> LearnerResult:
    """Return a result in which only these values matter."""
    costs = {"seconds": 1.0, "cpu_seconds": 1.0, "ms_per_answer": 1.0, "bytes_stored": 1}
    return LearnerResult(
        learner=learner, correct=correct, only_it=0, only_best=0, p_value=p_value, passes_per_example=passes, **costs
    )


@pytest.fixture(scope="module")
def divided() -> ComparisonReport:
    return compare_learners(STREAM, ("lda", "ncm"), divisions=3, **tiny_settings())


def test_half_of_the_validation_examples_are_measured(compared: ComparisonReport) -> None:
    assert (compared.train, compared.validation, compared.measured) == (32, 24, 24)
    assert (compared.tasks, compared.labels) == (("text-0", "text-1"), 4)
    assert all(0 < one.correct <= compared.measured for one in compared.results)


def test_learners_are_listed_as_named_with_their_costs(compared: ComparisonReport) -> None:
    assert tuple(one.learner for one in compared.results) == NAMED
    assert compared.failed == {}
    assert all(one.seconds > 0 and one.ms_per_answer > 0 and one.bytes_stored > 0 for one in compared.results)
    lda, dynamic = compared.result("lda"), compared.result("dynamic")
    consolidated = compared.result("dynamic+consolidate")
    # Each training and validation example once, and after each task the validation examples for decisions.
    assert 0 < lda.passes_per_example <= 2.2 < dynamic.passes_per_example < consolidated.passes_per_example
    assert consolidated.seconds > dynamic.seconds
    assert consolidated.bytes_stored > dynamic.bytes_stored
    assert (consolidated.method, consolidated.consolidated) == ("dynamic", True)


def test_the_top_layers_can_be_consolidated_alone(compared: ComparisonReport) -> None:
    """Both consolidations start from the learned workspace, whichever is measured first."""
    report = compare_learners(STREAM, ("dynamic+consolidate", "dynamic+consolidate-top", "dynamic"), **tiny_settings())
    whole, top, dynamic = report.results
    assert (top.method, top.consolidated, top.only_top, whole.only_top) == ("dynamic", True, True, False)
    assert LearnerResult.model_validate(top.model_dump() | {"learner": "der++"}).method == "der++"
    alone = compared.result("dynamic+consolidate")
    assert whole.correct == alone.correct
    assert whole.passes_per_example == pytest.approx(alone.passes_per_example, rel=0.05)
    assert dynamic.passes_per_example < top.passes_per_example < whole.passes_per_example


def test_a_method_that_retrains_is_trained_once(compared: ComparisonReport) -> None:
    assert "joint: trained once, on all tasks; learning them one after another trains it 2 times" in compared.notes
    assert compared.result("joint").passes_per_example < 2 * compared.result("dynamic").passes_per_example


def test_the_best_is_compared_with_itself(compared: ComparisonReport) -> None:
    best = compared.result(compared.best)
    assert best.correct == max(one.correct for one in compared.results)
    assert (best.only_it, best.only_best, best.p_value) == (0, 0, 1.0)
    for one in compared.results:
        assert one.only_it - one.only_best == one.correct - best.correct


def test_divisions_are_repeated_with_other_halves(divided: ComparisonReport) -> None:
    assert (divided.divisions, divided.measured) == (3, 3 * 24)
    assert 24 < divided.distinct <= 48
    for one in divided.results:
        assert sum(one.accuracies) / 3 == pytest.approx(one.correct / divided.measured)
        assert one.only_it + one.only_best <= divided.distinct
    again = compare_learners(STREAM, ("lda", "ncm"), **tiny_settings())
    assert [one.accuracies for one in again.results] == [one.accuracies[:1] for one in divided.results]


def test_each_distinct_example_has_one_vote(divided: ComparisonReport) -> None:
    (other,) = (one for one in divided.results if one.learner != divided.best)
    assert other.p_value == sign_test(other.only_it, other.only_best)
    assert 0 < other.only_it + other.only_best <= divided.distinct


def test_learners_that_train_the_same_backbone_are_all_charged_for_it() -> None:
    names = ["lda+consolidate", "ncm+consolidate"]
    first, second = compare_learners(STREAM, names, **tiny_settings()).results
    (alone,) = compare_learners(STREAM, names[1:], **tiny_settings()).results
    assert second.passes_per_example == alone.passes_per_example == first.passes_per_example
    assert (second.correct, second.fall) == (alone.correct, alone.fall)
    assert second.seconds > first.seconds / 2


def test_a_single_task_and_too_few_steps_are_said() -> None:
    report = compare_learners(toy_stream(1, 2, 8, 40, 0), ["lda", "joint"], **tiny_settings())
    assert any(note.startswith("the stream has one task") for note in report.notes)
    assert any(note.startswith("joint: trained with only ") and "undertrained" in note for note in report.notes)


def test_no_warning_without_reason(divided: ComparisonReport, compared: ComparisonReport) -> None:
    assert not any("one task" in note or "undertrained" in note for note in divided.notes)
    assert any("undertrained" in note for note in compared.notes)


def test_the_settings_make_a_workspace(compared: ComparisonReport, tmp_path: Path) -> None:
    made = ConPET.create(tmp_path / "ws", method=compared.choice.method, **compared.settings)
    assert made.settings.method.name == compared.choice.method
    assert made.settings.training.epochs == tiny_settings()["training"]["epochs"]


def test_test_examples_change_nothing() -> None:
    swapped = [
        replace(task, test=tuple(example.labelled(task.labels[0]) for example in task.test), notes=())
        for task in STREAM
    ]
    reports = [compare_learners(tasks, ["lda"], **tiny_settings()) for tasks in (STREAM, swapped)]
    assert reports[0].result("lda").correct == reports[1].result("lda").correct


def test_without_a_validation_set_one_is_split_off() -> None:
    tasks = [replace(task, validation=()) for task in toy_stream(2, 2, 100, 0, 0)]
    report = compare_learners(tasks, ["lda"], **tiny_settings())
    assert (report.train, report.validation, report.measured) == (360, 20, 20)
    assert "text-0: no validation set: 20 training examples were split off" in report.notes


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(DataError, match=r"on: 4 can be measured, but at least 20 are needed.* Add validation examples"):
        compare_learners(toy_stream(2, 2, 8, 2, 20), ["lda"], **tiny_settings())


@pytest.mark.parametrize(
    ("learners", "settings", "error", "message"),
    [
        (["lda", "ldaa"], {}, UnknownNameError, "ldaa"),
        (
            ["emr+consolidate"],
            {},
            ConfigError,
            r"learner 'emr\+consolidate': method 'emr' has no consolidation; .* one: dynamic, .*lda.*'emr' alone",
        ),
        ([], {}, ConfigError, "give a list of methods"),
        ("lda", {}, ConfigError, "give a list of methods"),
        (["lda"], {"divisions": 0}, ConfigError, "divisions=0: give a whole number"),
        (["ridge+consolidat"], {}, UnknownNameError, r"'ridge\+consolidat' \(did you mean 'ridge\+consolidate'\?\)"),
        (["ewc"], {"method.penalty": 3}, ConfigError, "cannot be set for all learners"),
        (["lda"], {"training.epoch": 3}, ConfigError, "unknown setting"),
    ],
)
def test_wrong_learners_and_settings(learners: Any, settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare_learners(STREAM, learners, backbone="tiny-random", **settings)


def test_a_learner_that_fails_does_not_stop_the_others() -> None:
    wild = tiny_settings(training={"learning_rate": 1e30})
    report = compare_learners(STREAM, ["lda", "dynamic"], **wild)
    assert [one.learner for one in report.results] == ["lda"]
    assert "diverged" in report.failed["dynamic"]
    with pytest.raises(DivergedError, match="no learner has a result: dynamic: "):
        compare_learners(STREAM, ["dynamic"], **wild)


def test_a_consolidation_that_is_not_possible_has_its_reason() -> None:
    few = tiny_settings(replay={"memory_examples": 2})
    report = compare_learners(STREAM, ["lda", "lda+consolidate"], **few)
    assert [one.learner for one in report.results] == ["lda"]
    assert "stored examples of every label" in report.failed["lda+consolidate"]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Stopped):
        compare_learners(STREAM, ["lda", "ncm"], progress=stop_at("lda", 0.5), **tiny_settings())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 2 / 32), (6, 0, 2 / 64), (1, 9, 2 * 11 / 1024)],
)
def test_the_sign_test_counts_coin_tosses(wins: int, losses: int, p_value: float) -> None:
    assert sign_test(wins, losses) == sign_test(losses, wins) == pytest.approx(p_value)


def test_the_sign_test_of_many_examples_is_a_number() -> None:
    assert 0 < sign_test(4900, 5100) < 0.05


def test_the_cheapest_that_is_not_clearly_worse_is_chosen() -> None:
    worse, cheap, best = result("lda", 60, 0.01, 1), result("logistic", 88, 0.3, 2), result("dynamic", 90, 1, 5)
    assert choose([worse, cheap, best]) == "logistic"
    assert choose([worse, best]) == "dynamic"
    even = result("ridge", 89, 0.8, 2)
    assert choose([cheap, even, best]) == "ridge"


def test_a_task_without_labels_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugin"))
    conpet_plugin = importlib.import_module("conpet_plugin")
    (task,) = toy_stream(1, 2, 4, 2, 0, seed=1)
    numbers = Task(
        "numbers",
        tuple(example.labelled(f"{number}.5") for number, example in enumerate(task.train)),
        tuple(example.labelled("3.5") for example in task.validation),
        settings={"head": "number"},
    )
    with registered("head", conpet_plugin.NumberHead):
        report = compare_learners([*STREAM, numbers], ["dynamic"], **tiny_settings())
    assert "numbers: has no labels, so it is learned but not measured" in report.notes
    assert (len(report.tasks), report.labels, report.measured) == (3, 4, 24)
