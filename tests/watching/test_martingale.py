"""Sequential tests: p-values are uniform, false alarms are as rare as stated, changes are found."""

from __future__ import annotations

import numpy as np
import pytest

from conpet.watching.martingale import (
    BLOCK,
    ERROR_BETS,
    SCORE_BETS,
    SHARE_BETS,
    Martingales,
    Ranks,
    Shares,
    error_gains,
    highest_rate,
    score_gains,
    share_gains,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_ranks_are_those_among_all_scores_before() -> None:
    scores = generator().integers(0, 20, 9100).astype(float)  # with ties, over several chunks
    former, later = scores[:100], scores[100:]
    draws = generator(1).random(len(later))
    found = Ranks(former).p_values(later, draws)
    for at in (0, 1, 500, 1023, 1024, 5500, 8999):
        before = scores[: 100 + at + 1]
        expected = ((before < later[at]).sum() + draws[at] * (before == later[at]).sum()) / len(before)
        assert found[at] == pytest.approx(expected)
    parts = Ranks(former)
    pieces = [parts.p_values(later[at : at + 7], draws[at : at + 7]) for at in range(0, 70, 7)]
    assert np.concatenate(pieces) == pytest.approx(found[:70])


def test_p_values_are_uniform_and_independent_if_nothing_changes() -> None:
    draws = generator(1).random((5000, 1))
    of_scores = Ranks(generator(2).normal(size=200)).p_values(generator(3).normal(size=5000), draws[:, 0])
    events = generator(4).random((5200, 1)) < 0.1
    of_shares = Shares(events[:200].sum(axis=0), 200).p_values(events[200:], draws)[:, 0]
    for p_values in (of_scores, of_shares):
        counts = np.histogram(p_values, 10, (0, 1))[0]
        assert abs(counts - 500).max() < 100
        assert abs(np.corrcoef(p_values[1:], p_values[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize("kind", ["scores", "shares"])
def test_false_alarms_are_at_most_as_frequent_as_stated(kind: str) -> None:
    runs, blocks, alpha = (100, 80, 0.1) if kind == "scores" else (400, 160, 0.1)
    tests = Martingales(np.full(runs, 1 / alpha), SCORE_BETS if kind == "scores" else SHARE_BETS)
    random = generator(5)
    ranks = [Ranks(random.normal(size=100)) for _ in range(runs if kind == "scores" else 0)]
    shares = Shares(random.binomial(100, 0.05, runs).astype(float), 100)
    for _ in range(blocks):
        if kind == "scores":
            gains = [score_gains(one.p_values(random.normal(size=BLOCK), random.random(BLOCK))) for one in ranks]
            tests.add(np.concatenate(gains))
        else:
            expected = shares.expected
            events = random.random((BLOCK, runs)) < 0.05
            tests.add(share_gains(shares.p_values(events, random.random(events.shape)), expected))
    assert (tests.alarm >= 0).mean() <= alpha


@pytest.mark.parametrize("after", [0.0, 0.25])
def test_a_changed_share_is_found_and_dated(after: float) -> None:
    random = generator(6)
    shares, tests = Shares(np.array([50.0]), 500), Martingales(np.full(1, 1000.0), SHARE_BETS)
    for block in range(120):
        expected = shares.expected
        events = random.random((BLOCK, 1)) < (0.1 if block < 60 else after)
        tests.add(share_gains(shares.p_values(events, random.random(events.shape)), expected))
    assert 60 <= tests.alarm[0] < 90
    assert abs(tests.since[0] - 60) <= 6
    assert tests.highest[0] >= np.log(1000)


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_lower_and_higher_scores_are_found(shift: float) -> None:
    random = generator(7)
    ranks, tests = Ranks(random.normal(size=300)), Martingales(np.full(1, 1000.0), SCORE_BETS)
    for block in range(60):
        scores = random.normal(size=BLOCK) + (shift if block >= 30 else 0.0)
        tests.add(score_gains(ranks.p_values(scores, random.random(BLOCK))))
    assert 30 <= tests.alarm[0] < 40
    assert abs(tests.since[0] - 30) <= 8


def test_the_highest_rate_is_the_limit_of_clopper_and_pearson() -> None:
    assert highest_rate(0, 60, 0.05) == pytest.approx(1 - 0.05 ** (1 / 60))
    assert highest_rate(7, 7, 0.05) == 1.0
    rate = highest_rate(6, 300, 0.01)
    drawn = generator().binomial(300, rate, 200_000)
    assert (drawn <= 6).mean() == pytest.approx(0.01, abs=0.001)


def test_bets_on_errors_raise_no_more_false_alarms_than_stated_and_find_a_fall() -> None:
    runs, alpha, limit = 400, 0.1, 0.1
    tests = Martingales(np.full(runs, 1 / alpha), ERROR_BETS)
    random = generator(6)
    for _ in range(300):
        tests.add(np.concatenate([error_gains(int(errors), 5, limit) for errors in random.binomial(5, limit, runs)]))
    assert (tests.alarm >= 0).mean() <= alpha
    for _ in range(60):
        tests.add(np.concatenate([error_gains(int(errors), 5, limit) for errors in random.binomial(5, 0.4, runs)]))
    assert (tests.alarm >= 0).mean() > 0.95
