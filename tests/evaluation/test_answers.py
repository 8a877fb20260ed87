"""Scores of labels, confusion and calibration against calculations by hand."""

from __future__ import annotations

import pytest

from conpet.evaluation.answers import (
    AnsweredExample,
    calibration,
    confusions,
    label_scores,
    macro_average,
    weighted_average,
)

ANSWERS = [
    AnsweredExample(label, answer, score, "t", "t" if answer in ("a", "b", "c") else "u", row)
    for row, (label, answer, score) in enumerate(
        [("a", "a", 0.95), ("a", "b", 0.55), ("a", "a", 0.9), ("b", "b", 1.0), ("b", "d", 0.3), ("c", "b", 0.6)],
        start=1,
    )
]


def test_scores_of_labels_are_those_worked_out_by_hand() -> None:
    scores = label_scores(ANSWERS)
    assert list(scores) == ["c", "b", "a", "d"]  # F1 0, 0.4, 0.8; d has no examples
    assert [(one.precision, one.recall, one.f1) for one in scores.values()] == [
        (None, 0.0, 0.0),
        (1 / 3, 1 / 2, 2 / 5),
        (1.0, 2 / 3, 4 / 5),
        (0.0, None, None),
    ]
    assert [(one.task, one.answered, one.support) for one in scores.values()] == [
        ("t", 0, 1),
        ("t", 3, 2),
        ("t", 2, 3),
        ("u", 1, 0),
    ]
    macro, weighted = macro_average(scores.values()), weighted_average(scores.values())
    assert macro is not None
    assert weighted is not None
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx((4 / 9, 7 / 18, 0.4))
    assert (weighted.precision, weighted.recall, weighted.f1) == pytest.approx(
        ((3 + 2 / 3) / 6, (2 + 1) / 6, (2.4 + 0.8) / 6)
    )


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    truth, predicted = [one.label for one in ANSWERS], [one.answer for one in ANSWERS]
    names = ["a", "b", "c"]
    expected = metrics.precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    scores = label_scores(ANSWERS)
    found = [
        (scores[name].precision or 0.0, scores[name].recall, scores[name].f1, scores[name].support) for name in names
    ]
    assert found == [pytest.approx(column) for column in zip(*expected, strict=True)]


def test_confusions_have_the_examples_behind_them_most_frequent_first() -> None:
    more = [*ANSWERS, AnsweredExample("c", "b", 0.8, "t", "t", 7), AnsweredExample("c", None, 0.2, "t", "u", 8)]
    pairs = confusions(more)
    assert [(pair.label, pair.answer, pair.count, pair.support) for pair in pairs] == [
        ("c", "b", 2, 3),
        ("a", "b", 1, 3),
        ("b", "d", 1, 2),
        ("c", None, 1, 3),
    ]
    assert [one.row for one in pairs[0].examples] == [7, 6]  # the highest score first


def test_calibration_is_that_worked_out_by_hand() -> None:
    measured = calibration(ANSWERS)
    assert measured is not None
    filled = [(each.low, each.high, each.n, each.accuracy) for each in measured.bins if each.n]
    # A score of 0.9 belongs to the bin up to 0.9, and 0.3 to that up to 0.3; 1.0 is in the last one.
    assert filled == [(0.2, 0.3, 1, 0.0), (0.5, 0.6, 2, 0.0), (0.8, 0.9, 1, 1.0), (0.9, 1.0, 2, 1.0)]
    assert measured.error == pytest.approx((0.3 + 2 * 0.575 + 0.1 + 2 * 0.025) / 6)
    assert measured.overconfidence == pytest.approx((0.95 + 0.55 + 0.9 + 1.0 + 0.3 + 0.6) / 6 - 3 / 6)
    assert measured.n == 6


def test_without_answers_nothing_is_measured() -> None:
    assert (calibration([]), macro_average([]), confusions([]), label_scores([])) == (None, None, (), {})
