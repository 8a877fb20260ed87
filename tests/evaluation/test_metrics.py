"""Metrics compared with hand calculations, also for tasks that are removed or learned again."""

from __future__ import annotations

import pytest

from conpet.errors import DataError
from conpet.evaluation.metrics import (
    AccuracyMatrix,
    Row,
    Tally,
    average_accuracy,
    backward_transfer,
    forgetting,
    forgetting_by_example,
    selector_accuracy,
    stream_average,
    whole_accuracy,
    within_task_accuracy,
)


def matrix_of(*events: tuple[str | None, dict[str, tuple[int, int]]]) -> AccuracyMatrix:
    return AccuracyMatrix(
        tuple(Row(name, {task: Tally(*t) for task, t in tallies.items()}) for name, tallies in events)
    )


# a: 0.9, 0.7, 0.8 (of 10); b: 0.5, 0.75 (of 20); c: 1.0 (of 2)
STREAM = matrix_of(
    ("a", {"a": (9, 10)}),
    ("b", {"a": (7, 10), "b": (10, 20)}),
    ("c", {"a": (8, 10), "b": (15, 20), "c": (2, 2)}),
)


def test_whole_accuracy_weighs_examples_and_average_accuracy_weighs_tasks() -> None:
    assert whole_accuracy(STREAM.rows[-1].tallies) == pytest.approx(25 / 32)
    assert average_accuracy(STREAM.rows[-1].tallies) == pytest.approx((0.8 + 0.75 + 1.0) / 3)


def test_stream_averages_are_means_over_the_rows() -> None:
    assert stream_average(whole_accuracy, STREAM) == pytest.approx((9 / 10 + 17 / 30 + 25 / 32) / 3)
    assert stream_average(average_accuracy, STREAM) == pytest.approx((0.9 + 0.6 + 0.85) / 3)


def test_forgetting_and_backward_transfer_by_hand() -> None:
    assert forgetting(STREAM) == pytest.approx(((0.9 - 0.8) + (0.5 - 0.75)) / 2)
    assert backward_transfer(STREAM) == pytest.approx(((0.8 - 0.9) + (0.75 - 0.5)) / 2)


def test_forgetting_is_from_the_best_and_backward_transfer_from_the_first() -> None:
    matrix = matrix_of(
        ("a", {"a": (5, 10)}),
        ("b", {"a": (9, 10), "b": (10, 10)}),
        ("c", {"a": (6, 10), "b": (10, 10), "c": (1, 10)}),
    )
    assert forgetting(matrix) == pytest.approx((0.3 + 0.0) / 2)
    assert backward_transfer(matrix) == pytest.approx((0.1 + 0.0) / 2)


def test_table_has_none_where_a_task_was_not_yet_seen() -> None:
    assert STREAM.tasks == ("a", "b", "c")
    assert STREAM.table() == [[0.9, None, None], [0.7, 0.5, None], [0.8, 0.75, 1.0]]


def test_after_one_task_nothing_can_be_forgotten() -> None:
    one = matrix_of(("a", {"a": (9, 10)}))
    assert forgetting(one) == 0.0
    assert backward_transfer(one) == 0.0


def test_nothing_measured_is_none_everywhere() -> None:
    for matrix in (AccuracyMatrix(), matrix_of(("a", {"a": (0, 0)}))):
        tallies = matrix.rows[-1].tallies if matrix.rows else {}
        values = [forgetting(matrix), backward_transfer(matrix), whole_accuracy(tallies), average_accuracy(tallies)]
        assert [*values, stream_average(whole_accuracy, matrix)] == [None] * 5
    assert selector_accuracy([], []) is None
    assert within_task_accuracy([], []) is None


def test_a_task_without_test_examples_is_left_out() -> None:
    matrix = matrix_of(
        ("a", {"a": (9, 10)}),
        ("empty", {"a": (8, 10), "empty": (0, 0)}),
        ("b", {"a": (7, 10), "empty": (0, 0), "b": (1, 2)}),
    )
    assert average_accuracy(matrix.rows[-1].tallies) == pytest.approx(0.6)
    assert forgetting(matrix) == pytest.approx(0.2)
    assert matrix.table()[-1] == [0.7, None, 0.5]


def test_a_removed_task_no_longer_counts_and_the_removal_is_no_learning_event() -> None:
    removed = STREAM.followed_by(Row(None, {"b": Tally(16, 20), "c": Tally(1, 2)}))
    assert removed.table()[-1] == [None, 0.8, 0.5]
    assert forgetting(removed) == pytest.approx(((0.75 - 0.8) + (1.0 - 0.5)) / 2)
    assert stream_average(whole_accuracy, removed) == stream_average(whole_accuracy, STREAM)


def test_a_tiny_task_weighs_little_in_forgetting_by_example() -> None:
    matrix = matrix_of(
        ("a", {"a": (90, 100)}),
        ("tiny", {"a": (90, 100), "tiny": (2, 2)}),
        ("b", {"a": (90, 100), "tiny": (1, 2), "b": (9, 10)}),
    )
    assert forgetting(matrix) == pytest.approx(0.25)
    assert forgetting_by_example(matrix) == pytest.approx(1 / 102)
    assert forgetting_by_example(matrix_of()) is None


def test_a_task_learned_again_starts_afresh() -> None:
    again = STREAM.followed_by(Row("a", {"a": Tally(3, 10), "b": Tally(15, 20), "c": Tally(2, 2)}))
    assert forgetting(again) == 0.0  # a is the last event's own task; b and c are as good as ever
    later = again.followed_by(Row("d", {"a": Tally(2, 10), "b": Tally(15, 20), "c": Tally(2, 2), "d": Tally(1, 1)}))
    assert forgetting(later) == pytest.approx((0.1 + 0.0 + 0.0) / 3)
    assert backward_transfer(later) == pytest.approx((-0.1 + 0.25 + 0.0) / 3)


def test_selector_accuracy_at_k() -> None:
    ranked = [["a", "b", "c"], ["b", "a", "c"], ["c", "b", "a"], ["a", "c", "b"]]
    truth = ["a", "a", "a", "b"]
    assert [selector_accuracy(ranked, truth, k) for k in (1, 2, 3)] == [0.25, 0.5, 1.0]


def test_within_task_accuracy() -> None:
    assert within_task_accuracy(["x", "y", "z", "z"], ["x", "y", "y", "z"]) == 0.75


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="3 correct of 2"):
        Tally(3, 2)
    with pytest.raises(DataError, match="1 predictions for 2 test examples"):
        within_task_accuracy(["x"], ["x", "y"])
