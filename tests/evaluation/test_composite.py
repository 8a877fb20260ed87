"""The composite score, against calculations by hand."""

from __future__ import annotations

import pytest

from conpet.config import PricesConfig
from conpet.errors import ConfigError
from conpet.evaluation.composite import Composite, composite, energy, price_of, require_prices, shown_money

PRICES = PricesConfig(
    cpu_hour=0.36, gpu_hour=3.6, kwh=0.5, cpu_watts=36, gpu_watts=360, review_hour=60, wrong_answer=2, late_day=5
)


def test_resources_have_their_price() -> None:
    assert energy(PRICES, cpu_seconds=100_000, gpu_seconds=0) == pytest.approx(1.0)
    assert energy(PRICES, cpu_seconds=0, gpu_seconds=10_000) == pytest.approx(1.0)
    assert price_of(PRICES, cpu_seconds=100_000, gpu_seconds=0) == pytest.approx(10 + 0.5)
    assert price_of(PRICES, cpu_seconds=0, gpu_seconds=10_000, minutes=30) == pytest.approx(10 + 0.5 + 30)
    assert price_of(PricesConfig(), cpu_seconds=1e9, gpu_seconds=1e9, minutes=1e9) == 0


def test_the_score_is_money_for_a_thousand_answers() -> None:
    score = composite(PRICES, error_rate=0.05, answers=10_000, late_days=4, updates=30, running=20, review=10)
    assert score.errors == pytest.approx(1000 * 0.05 * 2)
    assert score.freshness == pytest.approx(4 * 5 / 10)
    assert (score.updates, score.running, score.review) == pytest.approx((3, 2, 1))
    assert score.total == pytest.approx(100 + 2 + 3 + 2 + 1)
    assert Composite.from_json(score.to_json()) == score


def test_weights_leave_out_what_does_not_count() -> None:
    weights = {"freshness_weight": 0, "update_weight": 0.5, "running_weight": 2, "review_weight": 0}
    prices = PRICES.model_copy(update=weights)
    score = composite(prices, error_rate=0, answers=1000, late_days=1, updates=8, running=3, review=9)
    assert score == Composite(errors=0, freshness=0, updates=4, running=6, review=0)


def test_a_score_that_lacks_prices_says_which_and_how_to_set_them() -> None:
    with pytest.raises(ConfigError, match=r"prices\.answers: run `conpet costs set WORKSPACE --answers N`"):
        require_prices(PRICES, "the gate")
    with pytest.raises(ConfigError, match=r"the gate needs prices\.wrong_answer and prices\.answers"):
        require_prices(PricesConfig(), "the gate")
    assert require_prices(PRICES.model_copy(update={"answers": 7}), "the gate") == 7


@pytest.mark.parametrize(
    ("amount", "shown"), [(0.0, "0.00"), (0.00012, "0.00012"), (0.5, "0.50"), (1234.5, "1,234.50")]
)
def test_small_amounts_keep_two_digits(amount: float, shown: str) -> None:
    assert shown_money(amount) == shown
