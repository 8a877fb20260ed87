"""Lower bounds on the accuracy of the methods on a toy stream, so that no change makes them worse unnoticed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from conpet.replay import SCHEDULES
from conpet.selectors import SELECTORS
from conpet.testing import Trial, tiny_settings, toy_stream
from conpet.types import LearnReport

SEEDS = (0, 1)


@cache
def reports(seed: int, **settings: Any) -> list[LearnReport]:
    """Learn five tasks of three labels."""
    with TemporaryDirectory() as folder:
        learner = Trial(Path(folder), tiny_settings(seed=seed, **settings)).workspace()
        return list(learner.learn_stream(toy_stream(5, 3, 12, 4, 10, seed=seed), gate=False))


def whole(seed: int, **settings: Any) -> float:
    evaluation = reports(seed, **settings)[-1].evaluation
    assert evaluation is not None
    assert evaluation.whole_accuracy is not None
    return evaluation.whole_accuracy


@pytest.mark.parametrize("seed", SEEDS)
def test_dynamic_learns_and_does_not_forget(seed: int) -> None:
    assert whole(seed) > 0.85  # chance: 0.07
    last = reports(seed)[-1]
    assert last.forgetting is not None
    assert last.forgetting < 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_dynamic_stays_near_the_best_closed_form_even_where_that_is_hard_to_beat(seed: int) -> None:
    evaluation = reports(seed)[-1].evaluation
    assert evaluation is not None
    assert evaluation.best_reference is not None
    assert whole(seed) > evaluation.best_reference[1] - 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_modules_know_their_own_labels(seed: int) -> None:
    evaluation = reports(seed)[-1].evaluation
    assert evaluation is not None
    assert (evaluation.within_task_accuracy or 0) > 0.87


@pytest.mark.parametrize("selector", SELECTORS)
def test_selectors_find_the_task(selector: str) -> None:
    evaluation = reports(0, selector=selector)[-1].evaluation
    assert evaluation is not None
    assert (evaluation.selector_accuracy or 0) > {"linear": 0.85, "prototypes": 0.6, "learned": 0.6}[selector]


@pytest.mark.parametrize("seed", SEEDS)
def test_more_modules_cost_the_calibrated_fusion_nothing(seed: int) -> None:
    assert whole(seed, **{"selector.top_k": 3}) > whole(seed) - 0.05


def test_the_papers_fusion_works_at_k_1_and_the_calibrated_one_beats_it_beyond() -> None:
    more = {"selector.top_k": 3}
    assert whole(0, fusion="paper") > 0.7
    assert whole(0, **more) > whole(0, fusion="paper", **more) + 0.1


def test_parameters_a_task_do_not_grow() -> None:
    assert len({(report.trainable_parameters, report.head_parameters) for report in reports(0)}) == 1


@pytest.mark.parametrize("replay", SCHEDULES)
def test_steps_and_tokens_of_learning_a_task_do_not_grow(replay: str) -> None:
    # A budget that is small compared with a task, so that few examples are drawn twice (and read once).
    replayed = {"replay.schedule": replay, "replay.memory_per_label": 12}
    learned = reports(0, **{"selector.name": "learned", "selector.steps": 4}, **replayed)
    stages = [{stage.stage: stage for stage in report.cost} for report in learned[1:]]
    for name in ("selector", "module"):
        assert len({stage[name].steps for stage in stages}) == 1
        tokens = [stage[name].tokens + stage[name].cached_tokens for stage in stages]
        assert max(tokens) < 1.25 * min(tokens)


def forgetting(seed: int, **settings: Any) -> float:
    found = reports(seed, **settings)[-1].forgetting
    assert found is not None
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["ewc", "der++"])
def test_penalty_and_recorded_outputs_beat_sequential(method: str, seed: int) -> None:
    assert whole(seed, method=method) > whole(seed, method="sequential") + 0.25


@pytest.mark.parametrize("seed", SEEDS)
def test_lwf_forgets_less_but_cannot_tell_tasks_apart(seed: int) -> None:
    assert forgetting(seed, method="lwf") < forgetting(seed, method="sequential") - 0.15
    evaluation = reports(seed, method="lwf")[-1].evaluation
    assert evaluation is not None
    assert whole(seed, method="lwf") < (evaluation.within_task_accuracy or 0) - 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_projected_gradient_is_no_replay(seed: int) -> None:
    assert forgetting(seed, method="a-gem") < forgetting(seed, method="sequential") + 0.03
    assert whole(seed, method="a-gem") < whole(seed, method="emr") - 0.2
