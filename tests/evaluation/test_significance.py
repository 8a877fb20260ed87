"""Tests of paired answers, against hand calculations and simulated answers."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from conpet.evaluation.significance import holm, no_worse_p, worse_p


def binomial(n: int, share: float, counts: range) -> float:
    return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in counts)


def test_without_gains_and_changes_the_proof_is_that_no_example_was_lost() -> None:
    # A fall of 5 points would leave all of 100 examples unchanged with probability 0.95 ** 100.
    assert no_worse_p(100, 0, 0, 0.05) == pytest.approx(0.95**100)
    assert no_worse_p(58, 0, 0, 0.05) > 0.05 > no_worse_p(59, 0, 0, 0.05)


def test_losses_far_above_the_margin_are_significant_and_gains_count_against_them() -> None:
    assert worse_p(100, 5, 0, 0.05) == pytest.approx(binomial(100, 0.05, range(5, 101)), abs=0.02)
    assert worse_p(100, 20, 0, 0.05) < 0.001 < worse_p(100, 20, 10, 0.05)
    assert worse_p(100, 10, 10, 0.0) > 0.4
    assert worse_p(20, 0, 0, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "margin", "gains"), [(20, 0.1, 0.1), (100, 0.05, 0.03), (400, 0.02, 0.05)])
def test_false_alarms_at_the_margin_are_as_rare_as_stated(n: int, margin: float, gains: float) -> None:
    draw = np.random.default_rng(0)
    drawn = draw.multinomial(n, [gains + margin, gains, 1 - 2 * gains - margin], size=4000)
    for test in (worse_p, no_worse_p):
        alarms = [test(n, int(lost), int(gained), margin) <= 0.05 for lost, gained, _ in drawn]
        assert 0.01 < np.mean(alarms) < 0.055


def test_few_examples_show_a_large_fall_if_it_is_known_how_many_answers_change_by_chance() -> None:
    assert worse_p(20, 14, 0, 0.1, chance=0.02) < 1e-6 < 1e-4 < worse_p(20, 14, 0, 0.1)
    assert worse_p(20, 14, 6, 0.1, chance=0.02) > 0.05
    assert worse_p(20, 6, 0, 0.1, chance=0.02) > 0.01


def test_holm_steps_down_and_never_reverses_the_order() -> None:
    # ascending 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; each at least the one before
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
