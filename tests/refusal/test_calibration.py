from __future__ import annotations

import json
import random

import pytest
import torch

from conpet.refusal.calibration import (
    MIN_EXAMPLES,
    Calibration,
    ScopeCalibration,
    Source,
    conformal_threshold,
    doubt,
    needed_examples,
)
from conpet.refusal.fit import fit_scope, fit_temperature, probability_of_scope, tempered


def scores(mean: float, deviation: float, count: int = 200, seed: int = 0) -> torch.Tensor:
    return mean + deviation * torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("coverage", "needed"), [(0.5, 3), (0.8, 9), (0.9, 19), (0.95, 39), (0.99, 199)])
def test_a_coverage_is_promised_from_the_stated_number_of_examples_on(coverage: float, needed: int) -> None:
    assert needed_examples(coverage) == needed
    values = [number / needed for number in range(needed)]
    assert conformal_threshold(values, coverage) == values[1]
    assert conformal_threshold(values[1:], coverage) is None


def test_the_threshold_reaches_the_coverage_on_further_examples() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(2000):
        *held_out, further = (draw.betavariate(4, 2) for _ in range(31))
        threshold = conformal_threshold(sorted(held_out), 0.9)
        assert threshold is not None
        hits += further >= threshold
    assert 0.9 - 0.02 < hits / 2000 < 0.94


def test_labels_with_few_examples_share_the_threshold_of_all() -> None:
    truth = {"many": [0.5 + number / 100 for number in range(20)], "few": [0.1, 0.2]}
    thresholds = Calibration(truth=truth).thresholds(["many", "few", "none"], 0.9)
    assert thresholds.promised == ("many",)
    assert thresholds.pooled
    assert thresholds.least == {"many": 0.51, "few": 0.2, "none": 0.2}
    assert not Calibration(truth={"few": [0.1, 0.2]}).thresholds(["few"], 0.9).pooled


def test_the_probability_of_belonging_rises_with_the_score() -> None:
    fitted = fit_scope(Source.VALIDATION, scores(0, 10), scores(-200, 80), 0.2)
    values = probability_of_scope(fitted, torch.tensor([-2000.0, -200.0, -60.0, 0.0, 30.0]))
    assert values.tolist() == sorted(values.tolist())
    assert values[0] < 0.01
    assert values[1] < 0.2
    assert values[3] > 0.9


def test_it_is_right_as_often_as_it_says() -> None:
    known, unknown = scores(0, 10, 4000, 1), scores(-25, 15, 4000, 2)
    fitted = fit_scope(Source.VALIDATION, known[:2000], unknown[:2000], 0.5)
    further = torch.cat([known[2000:], unknown[2000:]])
    truth = torch.cat([torch.ones(2000), torch.zeros(2000)])
    values = probability_of_scope(fitted, further)
    gaps = []
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (values >= low) & (values < low + 0.2)
        gaps.append(abs(float((truth[inside] - values[inside]).sum())))
    assert sum(gaps) / len(truth) < 0.05


def test_more_unknown_inputs_expected_makes_belonging_less_probable() -> None:
    fitted = fit_scope(Source.VALIDATION, scores(0, 10), scores(-200, 80), 0.2)
    at = torch.tensor([-40.0])
    few, as_fitted, many = (float(probability_of_scope(fitted, at, share)) for share in (0.01, 0.2, 0.9))
    assert few > as_fitted > many
    assert as_fitted == float(probability_of_scope(fitted, at))


def test_a_score_that_tells_nothing_gives_every_input_the_expected_share() -> None:
    fitted = fit_scope(Source.VALIDATION, scores(0, 10, seed=1), scores(0, 10, seed=2), 0.2)
    values = probability_of_scope(fitted, scores(0, 10, seed=3))
    assert values.mean() == pytest.approx(0.8, abs=0.05)
    assert values.std() < 0.1


def test_equal_scores_can_be_fitted() -> None:
    fitted = fit_scope(Source.MEANS, torch.zeros(1), torch.zeros(1), 0.2)
    assert 0 < float(probability_of_scope(fitted, torch.zeros(1))) < 1


def test_the_temperature_makes_overconfident_probabilities_honest() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1000, 5, generator=generator)
    targets = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    sure = torch.log_softmax(4 * logits, dim=1)
    assert fit_temperature(sure, targets) == pytest.approx(4, rel=0.15)
    honest = tempered(sure, fit_temperature(sure, targets)).exp()
    hits = (honest.argmax(dim=1) == targets).float().mean()
    assert float(honest.amax(dim=1).mean()) == pytest.approx(float(hits), abs=0.03)


def test_what_is_stored_is_read_back() -> None:
    fitted = fit_scope(Source.TRAINING, scores(0, 10), scores(-200, 80), 0.2)
    calibration = Calibration({"text": fitted}, {"a": [0.5, 0.75]})
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def test_doubt_says_how_many_examples_are_missing() -> None:
    def with_counts(known: int, answered: int) -> ScopeCalibration:
        return ScopeCalibration(Source.VALIDATION, known, known, 0.2, 0.0, 1.0, 0.0, 1.0, 1.0, answered)

    assert doubt(with_counts(MIN_EXAMPLES, MIN_EXAMPLES)) is None
    assert "3 held-out examples of learned labels, 20 are needed" in str(doubt(with_counts(3, 3)))
    assert "on which label it is: 0 validation examples, 20 are needed" in str(doubt(with_counts(40, 0)))
