"""Intervals and paired tests, against hand calculations and slow plain ones."""

from __future__ import annotations

import builtins
from itertools import product
from math import sqrt
from typing import Any

import pytest

from conpet.bench.statistics import (
    Line,
    by_order,
    compare,
    fit_line,
    flip_floor,
    mean_line,
    sign_flip_test,
    summarise,
    t_test,
)
from conpet.errors import ConfigError

T_4, T_2 = 2.776445105, 4.302652730
"""Two-sided 95% quantiles of Student's t with 4 and 2 degrees of freedom, from a printed table."""


def test_a_mean_has_its_deviation_and_its_interval() -> None:
    found = summarise([0.90, 0.92, 0.94, 0.96, 0.98])
    # squares of the differences to the mean 0.94: 0.0016, 0.0004, 0, 0.0004, 0.0016; sum 0.004, over n - 1: 0.001
    assert found.n == 5
    assert found.mean == pytest.approx(0.94)
    assert found.deviation == pytest.approx(sqrt(0.001))
    assert found.half_width == pytest.approx(T_4 * sqrt(0.001) / sqrt(5))


def test_one_order_and_two_have_no_interval() -> None:
    found = summarise([0.9])
    assert (found.mean, found.deviation, found.half_width, found.n) == (0.9, None, None, 1)
    found = summarise([0.8, 0.9])
    assert (found.half_width, found.n) == (None, 2)
    assert (found.mean, found.deviation) == pytest.approx((0.85, 0.1 / sqrt(2)))


def test_seeds_of_an_order_are_averaged_first() -> None:
    runs = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 4.0, (1, 1): 8.0}
    assert by_order(runs) == {0: 2.0, 1: 6.0}
    found = compare(runs, dict.fromkeys(runs, 0.0))
    assert found is not None
    assert (found.difference.n, found.difference.mean) == (2, 4.0)


def test_only_pairs_that_both_have_are_compared() -> None:
    ours = {(0, 0): 0.9, (1, 0): 0.8, (2, 0): 0.7}
    theirs = {(1, 0): 0.7, (2, 0): 0.5, (3, 0): 0.1}
    found = compare(ours, theirs)
    assert found is not None
    assert found.difference.n == 2
    assert found.difference.mean == pytest.approx(0.15)
    assert compare(ours, {(5, 0): 1.0}) is None


def test_the_t_test_is_that_of_the_paired_differences() -> None:
    # 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2) in closed form
    t = 2 * sqrt(3)
    assert t_test([1.0, 2.0, 3.0]) == pytest.approx(1 - t / sqrt(t * t + 2))
    assert t_test([-1.0, -2.0, -3.0]) == pytest.approx(1 - t / sqrt(t * t + 2))


@pytest.mark.parametrize("differences", [[0.0] * 3, [0.5] * 3, [0.1 + 0.2, 0.3, 0.3], [0.5], [0.5, 0.6]])
def test_few_differences_and_those_without_spread_allow_no_t_test_and_no_interval(differences: list[float]) -> None:
    assert t_test(differences) is None
    theirs = {(order, 0): 0.4 for order in range(len(differences))}
    found = compare({(order, 0): 0.4 + value for order, value in enumerate(differences)}, theirs)
    assert found is not None
    assert (found.t_p, found.difference.half_width) == (None, None)
    assert found.difference.mean == pytest.approx(sum(differences) / len(differences))


@pytest.mark.parametrize("differences", [[1.0, 2.0, 3.0], [0.1, 0.2, -0.3], [0.3, -0.1, 0.4, 0.1, 0.0], [0.1] * 6])
def test_sign_flips_are_counted_exactly(differences: list[float]) -> None:
    seen = abs(sum(differences)) - 1e-9
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product([1, -1], repeat=len(differences))
    ]
    assert sign_flip_test(differences) == sum(abs(one) >= seen for one in sums) / len(sums)


def test_sign_flips_cannot_fall_below_their_floor() -> None:
    assert sign_flip_test([1.0, 1.1, 0.9, 1.2, 1.0]) == flip_floor(5) == 2 / 2**5
    assert sign_flip_test([1.0]) is None
    assert sign_flip_test([1.0, 1.1]) is None
    assert sign_flip_test([1.0] * 21) is None


def test_a_line_has_the_slope_of_the_normal_equations_and_its_interval() -> None:
    # x 1..4, y 1, 3, 2, 4: means 2.5 and 2.5; sums of squares 5 and of products 4; residuals -.3, .9, -.9, .3
    line = fit_line([1, 2, 3, 4], [1, 3, 2, 4])
    assert line is not None
    assert (line.slope, line.intercept) == pytest.approx((0.8, 0.5))
    assert line.half_width == pytest.approx(T_2 * sqrt(1.8 / 2 / 5))


def test_few_points_have_no_interval_and_one_no_line() -> None:
    assert fit_line([1, 2], [1, 3]) == Line(-1.0, 2.0, None)
    assert fit_line([3], [1]) is None


def test_the_slope_over_orders_has_its_interval_over_them() -> None:
    line = mean_line([Line(0.0, 1.0, 9.0), Line(1.0, 2.0, 9.0), Line(2.0, 3.0, 9.0)])
    assert (line.intercept, line.slope) == (1.0, 2.0)
    assert line.half_width == pytest.approx(T_2 / sqrt(3))
    assert mean_line([Line(0.0, 1.0, 9.0)]).half_width == 9.0
    assert mean_line([Line(0.0, 1.0, 9.0), Line(1.0, 2.0, 9.0)]).half_width is None


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'conpet\[bench\]'"):
        summarise([0.1, 0.2, 0.3])
