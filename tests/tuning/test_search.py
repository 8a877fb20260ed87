"""`ConPET.tune`: the chosen design, the cost, and what does not change."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET, Example, Task
from conpet.config.base import flat
from conpet.data import Kind
from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.methods.dynamic import DynamicMethod
from conpet.replay.memory import StoredExamples, Subset
from conpet.report.design import Design, DesignTrial, Outcome, Rung
from conpet.testing import toy_stream
from conpet.testing.checks import live_of
from conpet.tuning.search import choose
from tests.helpers.live import encoded
from tests.helpers.workspaces import frozen_state, stream, workspace

TASK = toy_stream(1, 6, 8, 4, 4)[0]
QUICK = {"epochs": 4, "warmups": ["none"], "learning_rates": [3e-3, 3e-2]}


def told(found: Any) -> dict[str, Any]:
    """Return the report of a search without its times."""
    document = found.model_dump(mode="json")
    for part in (document, *document["trials"]):
        del part["seconds"]
    return document


# What is chosen


def test_a_better_design_than_the_planted_one_is_chosen_and_put_in_force(tmp_path: Path) -> None:
    planted = workspace(tmp_path, training={"learning_rate": 1e-9, "epochs": 1})
    beside = ConPET.open(planted.path)
    found = planted.tune(TASK, trials=6, choices=QUICK)
    design = found.choice.design
    assert found.before.design == Design(frozen_layers=3, rank=4, targets="all-linear", learning_rate=1e-9, epochs=1)
    assert found.choice.accuracy > found.before.accuracy + 0.3
    assert 3e-3 <= design.learning_rate <= 3e-2
    for settings in (planted.settings.to_json(), ConPET.open(planted.path).settings.to_json()):
        chosen = {key: flat(settings)[key] for key in design.for_workspace}
        assert chosen == json.loads(json.dumps(design.for_workspace))
        assert len(chosen) == len(Design.model_fields)
    assert beside.learn(TASK).trainable_parameters == found.choice.parameters
    assert beside.backbone.frozen_layers == design.frozen_layers


@pytest.mark.parametrize("warmup", ["none", "first-task"])
def test_what_is_measured_is_what_learning_gives(tmp_path: Path, warmup: str) -> None:
    learner = workspace(tmp_path, backbone={"warmup": warmup}, training={"epochs": 2})
    measured = learner.tune(TASK, trials=1).before.rungs[-1]
    learner.learn(TASK)
    taught = live_of(learner)
    assert isinstance(taught.method, DynamicMethod)
    modules = taught.method.modules(taught.state)
    first = torch.zeros(len(TASK.validation), 1, dtype=torch.int64)
    logits = modules.run(encoded(taught, TASK.validation), Kind.TEXT, first)
    answers = [TASK.labels[column] for column in logits.argmax(dim=1).tolist()]
    right = sum(answer == example.label for answer, example in zip(answers, TASK.validation, strict=True))
    assert measured == Rung(6 * 2 * (2 if warmup == "first-task" else 1), right, 24)


def trial(number: int, correct: int, price: float, *, parameters: int = 10, outcome: str = "finished") -> DesignTrial:
    return DesignTrial(
        number=number,
        design=Design(frozen_layers=0, rank=1, targets="all-linear", learning_rate=0.1, epochs=1),
        outcome=Outcome(outcome),
        rungs=(Rung(8, correct, 100),),
        steps=8,
        seconds=1,
        passes=1,
        parameters=parameters,
        passes_per_example=price,
    )


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        # 90 of 100, one right and one wrong added: p = 91 / 102, standard error sqrt(p (1 - p) / 100) = 0.0310
        ([trial(1, 90, 9.0), trial(2, 87, 3.0)], 2),
        ([trial(1, 90, 9.0), trial(2, 86, 3.0)], 1),
        ([trial(1, 90, 3.0), trial(2, 90, 3.0, parameters=9)], 2),
        ([trial(1, 89, 3.0), trial(2, 90, 3.0)], 2),
        # 100 of 100: p = 101 / 102, standard error 0.0099
        ([trial(1, 100, 9.0), trial(2, 99, 3.0)], 1),
        ([trial(1, 60, 9.0), trial(2, 100, 1.0, outcome="halved")], 1),
    ],
)
def test_the_cheapest_within_one_standard_error_of_the_best_is_chosen(trials: list[DesignTrial], chosen: int) -> None:
    choice = choose(trials)
    assert choice is not None
    assert choice.number == chosen


def test_designs_that_fall_behind_are_left_early(tmp_path: Path) -> None:
    found = workspace(tmp_path, training={"learning_rate": 1e-2, "epochs": 4}).tune(
        TASK, trials=12, choices={"warmups": ["none"], "learning_rates": [1e-9, 1e-2], "epochs": 4}
    )
    halved = [trial for trial in found.trials if trial.outcome is Outcome.HALVED]
    assert halved
    whole = {trial.design.epochs * 6: trial for trial in found.trials if trial.outcome is Outcome.FINISHED}
    assert all(trial.steps < trial.design.epochs * 6 for trial in halved)
    assert all(steps == trial.steps for steps, trial in whole.items())
    assert max(trial.accuracy or 0 for trial in halved) <= max(trial.accuracy or 0 for trial in whole.values())


def test_a_design_that_diverges_does_not_end_the_search(tmp_path: Path) -> None:
    choices = {"warmups": ["none"], "learning_rates": [1e30, 1e35], "epochs": 4}
    found = workspace(tmp_path).tune(TASK, trials=3, choices=choices)
    assert [trial.outcome for trial in found.trials] == [Outcome.FINISHED, Outcome.DIVERGED, Outcome.DIVERGED]
    assert found.chosen == 1


# What it costs


def test_passes_are_those_of_the_formula(tmp_path: Path) -> None:
    learner = workspace(
        tmp_path, backbone={"frozen_layers": 2, "cache": False}, features={"layers": (1, 3)}, training={"epochs": 2}
    )
    found = learner.tune(TASK, trials=1)
    train, validation = (
        sum(len(one.ids) for one in learner.backbone.encode(examples)) for examples in (TASK.train, TASK.validation)
    )
    one = found.before
    # Features are taken behind layer 3 of 4, modules sit on 2 of 4; a step costs a forward and a backward pass.
    reading = 3 / 4 * (train + validation)
    training = 2 * train * (1 + 2) * 2 / 4
    measuring = len(one.rungs) * validation * 2 / 4
    one_pass = train / len(TASK.train)
    assert found.passes == pytest.approx((reading + training + measuring) / one_pass, abs=1e-3)
    assert one.passes_per_example == pytest.approx(3 / 4 + 2 * 3 * 2 / 4)


def test_a_limit_in_passes_is_kept_and_the_search_is_the_same_again(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    first, again = (learner.tune(TASK, passes=900, choices={"epochs": 2}, dry_run=True) for _ in range(2))
    assert len(first.trials) > 2
    # At most one step, one measurement and one reading of the 72 examples come behind the limit.
    assert 900 <= first.passes < 900 + 8 * 3 + 24 + 72
    assert told(first) == told(again)  # the second time, states came from the cache
    assert told(learner.tune(TASK, passes=1000, choices={"epochs": 2}, dry_run=True)) != told(first)


def test_a_limit_in_seconds_ends_the_search(tmp_path: Path) -> None:
    found = workspace(tmp_path, training={"epochs": 1}).tune(TASK, seconds=1.5, choices=QUICK)
    assert found.seconds >= 1.5
    assert found.seconds_limit == 1.5


def test_a_limit_too_small_for_one_design_changes_nothing(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    with frozen_state(learner), pytest.raises(ConfigError, match=r"the present design alone needs [\d,]+\. Raise"):
        learner.tune(TASK, passes=100)


# What it leaves alone


def test_a_dry_run_or_an_interruption_changes_nothing(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    before = learner.settings

    def interrupt(stage: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with frozen_state(learner):
        assert not learner.tune(TASK, trials=3, choices=QUICK, dry_run=True).applied
        with pytest.raises(KeyboardInterrupt):
            learner.tune(TASK, trials=3, choices=QUICK, progress=interrupt)
    assert learner.settings == before == ConPET.open(learner.path).settings
    assert learner.tune(TASK, trials=1).applied


def test_test_examples_are_never_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = workspace(tmp_path)
    planted = replace(TASK, test=[Example.of_text("planted secret", TASK.labels[0])])
    learner.learn(planted)
    read = StoredExamples.chosen
    looked_at: set[Subset] = set()

    def guarded(self: StoredExamples, subset: Subset, positions: Any) -> list[Example]:
        assert subset is not Subset.TEST
        looked_at.add(subset)
        examples = read(self, subset, positions)
        assert all("planted" not in str(example.text) for example in examples)
        return examples

    monkeypatch.setattr(StoredExamples, "chosen", guarded)
    for task in (planted, planted.name):
        assert learner.tune(task, trials=2, choices=QUICK).validation == 24
        assert looked_at == {Subset.TRAIN, Subset.VALIDATION}
        looked_at.clear()


def test_with_learned_tasks_frozen_layers_and_warm_up_stay(tmp_path: Path) -> None:
    learner = workspace(tmp_path, tasks=1)
    before = learner.predict(["a b c"])
    found = learner.tune("text-0", trials=8, choices={"epochs": 2})
    assert {(trial.design.frozen_layers, trial.design.warmup) for trial in found.trials} == {(3, "none")}
    assert len({trial.design.rank for trial in found.trials}) > 2
    assert "frozen layers and warm-up stay" in found.notes[0]
    assert [replace(one, generation=before[0].generation) for one in learner.predict(["a b c"])] == before


def test_a_warm_up_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    learner = workspace(tmp_path, tasks=1, backbone={"warmup": "first-task"})
    warmed = learner.backbone.fingerprint
    found = learner.tune(TASK, trials=2, choices={"epochs": 2})
    assert {trial.design.warmup for trial in found.trials} == {"first-task"}
    assert found.before.steps == 4 * 6
    assert learner.backbone.fingerprint == warmed


def test_with_one_module_for_all_tasks_its_shape_stays_once_it_is_learned(tmp_path: Path) -> None:
    empty, taught = (workspace(tmp_path, tasks, name=str(tasks), method="emr") for tasks in (0, 1))
    shapes = [
        {(trial.design.rank, trial.design.targets) for trial in learner.tune(TASK, trials=6, choices=QUICK).trials}
        for learner in (empty, taught)
    ]
    assert len(shapes[0]) > 1
    assert shapes[1] == {(4, "all-linear")}
    taught.learn(TASK)


def test_what_a_kind_of_module_does_not_have_is_not_searched(tmp_path: Path) -> None:
    found = workspace(tmp_path, module="pfeiffer").tune(TASK, trials=5, choices=QUICK)
    assert {(trial.design.rank, trial.design.targets) for trial in found.trials} == {(None, None)}
    assert len({trial.design.frozen_layers for trial in found.trials}) > 1


# Wrong input, and examples


def test_validation_examples_are_split_off_where_there_are_none(tmp_path: Path) -> None:
    found = workspace(tmp_path).tune(replace(TASK, validation=()), trials=1)
    assert (found.train, found.validation) == (42, 6)
    assert "6 training examples were split off by seed 0" in found.notes[0]


def test_wrong_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = workspace(tmp_path)
    few = Task("few", [Example.of_text("a b", "x"), Example.of_text("c d", "y")])
    with frozen_state(learner):
        for wrong, error, message in (
            ({"task": TASK}, ConfigError, "give seconds, passes"),
            ({"task": TASK, "seconds": 0}, ConfigError, "seconds=0"),
            ({"task": TASK, "passes": float("nan")}, ConfigError, "passes=nan"),
            ({"task": TASK, "trials": 1, "choices": {"rank": 4}}, ConfigError, "unknown choice 'rank'"),
            ({"task": TASK, "trials": 1, "choices": {"learning_rates": (2, 1)}}, ConfigError, "is above the highest"),
            ({"task": TASK, "trials": 1, "choices": {"ranks": ()}}, ConfigError, "ranks"),
            ({"task": TASK, "trials": 1, "choices": {"targets": [["nosuch"]]}}, ConfigError, "no linear map nosuch"),
            ({"task": "nosuch", "trials": 1}, UnknownNameError, "no task 'nosuch'"),
            ({"task": few, "trials": 1}, DataError, "no validation examples"),
        ):
            with pytest.raises(error, match=message):
                learner.tune(**wrong)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "optuna", None)
            with pytest.raises(ConfigError, match=r"pip install 'conpet\[tune\]'"):
                learner.tune(TASK, trials=1)
        monkeypatch.setattr(DynamicMethod, "tunes", False)
        with pytest.raises(ConfigError, match="trains no module"):
            learner.tune(TASK, trials=1)


def test_the_composite_score_weighs_accuracy_against_the_cost_of_learning(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    with pytest.raises(ConfigError, match=r"the objective composite needs prices\.wrong_answer and prices\.answers"):
        learner.tune(stream()[0], trials=1, objective="composite")
    with pytest.raises(ConfigError, match="give 'accuracy' or 'composite'"):
        learner.tune(stream()[0], trials=1, objective="speed")  # type: ignore[arg-type]
    learner.set_costs(prices={"wrong_answer": 0, "cpu_hour": 1, "answers": 10})
    found = learner.tune(stream()[0], trials=4, objective="composite", dry_run=True)
    finished = [trial for trial in found.trials if trial.score is not None]
    assert found.objective == "composite"
    assert found.choice == min(finished, key=lambda trial: trial.score)
    cheap, dear = (sorted(finished, key=lambda trial: trial.passes_per_example)[place] for place in (0, -1))
    assert cheap.score <= dear.score  # a wrong answer costs nothing, so only the passes count
    learner.set_costs(prices={"wrong_answer": 1000})
    best = learner.tune(stream()[0], trials=4, objective="composite")
    assert best.choice.accuracy == max(trial.accuracy for trial in best.trials if trial.score is not None)
    assert best.choice.score == pytest.approx(1000 * 1000 * (1 - best.choice.accuracy), abs=1000)
