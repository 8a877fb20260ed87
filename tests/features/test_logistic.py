"""Logistic regression: the usual one, trained further as tasks come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from conpet.data import Example
from conpet.errors import ConfigError, CorruptionError
from conpet.features import CLASSIFIERS
from conpet.features import logistic as logistic_regression
from conpet.features.feature_map import FeatureMap
from conpet.features.logistic import LogisticRegression, LogisticWeights
from conpet.features.statistics import ClassSums, ClosedFormState, Gram
from conpet.state import logistic
from conpet.state.statistics import logistic_weights
from conpet.testing import live_of
from tests.helpers.workspaces import stream, workspace

DIM = 8
LABELS = tuple(f"label {index}" for index in range(6))


def blobs(labels: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return rows of norm `sqrt(DIM)` around one centre per label, and the label of each."""
    centres = torch.randn(labels, DIM, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(rows) % labels
    noise = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(centres[targets] + 0.6 * noise) * DIM**0.5, targets


def fit(features: Tensor, targets: Tensor, start: LogisticWeights, **more: Tensor | list[int]) -> LogisticWeights:
    return LogisticRegression().fit(features, targets, start, block=DIM, **more)  # type: ignore[arg-type]


def gradient(weights: LogisticWeights, features: Tensor, targets: Tensor) -> float:
    """Return the norm of the gradient of scikit-learn's objective with C=30, for features scaled to norm 1."""
    weight = (weights.weight * DIM**0.5).requires_grad_(True)
    logits = features / DIM**0.5 @ weight + weights.bias
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") + weight.square().sum() / 60
    (found,) = torch.autograd.grad(loss, weight)
    return float(found.norm())


def test_it_is_the_minimum_of_the_usual_objective_at_once_or_in_two_steps() -> None:
    features, targets = blobs(4, 80, seed=2)
    start = LogisticWeights.zero(DIM, LABELS[:4])
    once = fit(features, targets, start)
    old = targets < 2
    first = fit(features[old], targets[old], LogisticWeights.zero(DIM, LABELS[:2]))
    twice = fit(features, targets, first.for_labels(LABELS[:4]))
    for found in (once, twice):
        assert gradient(found, features, targets) < 0.01 * gradient(start, features, targets)
    torch.testing.assert_close(
        once.logits(features).softmax(dim=1), twice.logits(features).softmax(dim=1), rtol=0, atol=0.02
    )


def test_an_example_of_weight_two_counts_as_two() -> None:
    features, targets = blobs(3, 30, seed=3)
    start = LogisticWeights.zero(DIM, LABELS[:3])
    doubled = torch.ones(30).index_fill_(0, torch.arange(5), 2.0)
    rows = torch.cat([torch.arange(30), torch.arange(5)])
    one, two = fit(features, targets, start, weight=doubled), fit(features[rows], targets[rows], start)
    torch.testing.assert_close(one.logits(features), two.logits(features), rtol=0, atol=0.1)


def test_a_last_block_of_weight_two_is_twice_as_long_as_another_and_the_norm_stays() -> None:
    features, targets = blobs(4, 80, seed=2)
    start = LogisticWeights.zero(DIM, LABELS[:4])
    factors = torch.tensor([1.0, 2.0]).repeat_interleave(DIM // 2) / 2.5**0.5
    weighted = LogisticRegression().fit(features, targets, start, block=DIM // 2, last_weight=2.0)
    by_hand = LogisticRegression().fit(features * factors, targets, start, block=DIM // 2)
    torch.testing.assert_close(weighted.logits(features), by_hand.logits(features * factors), rtol=1e-3, atol=1e-3)


def test_columns_that_are_not_free_take_part_and_stay() -> None:
    features, targets = blobs(6, 180, seed=4)
    old = targets < 3
    first = fit(features[old], targets[old], LogisticWeights.zero(DIM, LABELS[:3]))
    both = fit(features, targets, first.for_labels(LABELS), free=[3, 4, 5])
    assert torch.equal(both.weight[:, :3], first.weight)
    assert torch.equal(both.bias[:3], first.bias)
    test, truth = blobs(6, 300, seed=5)
    at_once = fit(features, targets, LogisticWeights.zero(DIM, LABELS))
    right, whole = (float((weights.logits(test).argmax(dim=1) == truth).float().mean()) for weights in (both, at_once))
    assert right > whole - 0.05
    assert whole > 0.6


def test_of_many_earlier_columns_few_are_trained_with_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = blobs(6, 240, seed=4)
    old = targets < 4
    first = fit(features[old], targets[old], LogisticWeights.zero(DIM, LABELS[:4]))
    monkeypatch.setattr(logistic_regression, "REVISED", 2)
    revised = fit(features, targets, first.for_labels(LABELS), new=[4, 5])
    moved = (revised.weight[:, :4] != first.weight).any(dim=0)
    assert int(moved.sum()) == 2
    at_once = fit(features, targets, LogisticWeights.zero(DIM, LABELS))
    test, truth = blobs(6, 300, seed=5)
    right, whole = (
        float((weights.logits(test).argmax(dim=1) == truth).float().mean()) for weights in (revised, at_once)
    )
    assert right > whole - 0.03
    assert whole > 0.6


@pytest.mark.parametrize(
    "wrong", [{}, {"weight": torch.zeros(2, 3)}, {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}]
)
def test_stored_weights_that_do_not_fit_are_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(CorruptionError, match="do not fit its 3 labels"):
        LogisticWeights.from_tensors(wrong, LABELS[:3])


def test_statistics_without_weights_say_which_methods_train_them() -> None:
    feature_map = FeatureMap(dim=DIM, projection=64)
    features, _ = blobs(2, 10, seed=6)
    state = ClosedFormState(
        Gram.zero(feature_map).plus(features), (ClassSums.of(feature_map, features, ["a", "b"] * 5),)
    )
    with pytest.raises(ConfigError, match="use a method that trains them"):
        CLASSIFIERS["logistic"]().fit(state)


@pytest.mark.parametrize("method", ["logistic", "dynamic"])
def test_task_by_task_it_becomes_what_all_tasks_at_once_give(method: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "once").mkdir()
    one, once = workspace(tmp_path / "one", 3, method=method), workspace(tmp_path / "once", method=method)
    once.learn_batch(list(reversed(stream()[:3])), evaluate=False)
    asked = [example for task in stream() for example in task.test]
    features = one.backbone.states(asked).features
    probabilities = []
    for learner in (one, once):
        (weights,) = logistic_weights(live_of(learner).state).values()
        probabilities.append(weights.for_labels(sorted(weights.labels)).logits(features).softmax(dim=1))
    torch.testing.assert_close(*probabilities, rtol=0, atol=0.05)


def test_removing_a_task_is_as_if_it_had_not_been_learned(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    first, second, third = stream()
    learner, without = workspace(tmp_path, 3, method="logistic"), workspace(tmp_path / "without", method="logistic")
    learner.remove(second.name)
    for task in (first, third):
        without.learn(task, evaluate=False)
    (left,), (never,) = (logistic_weights(live_of(each).state).values() for each in (learner, without))
    features = learner.backbone.states(first.test).features
    assert left.labels == never.labels
    torch.testing.assert_close(
        left.logits(features).softmax(dim=1), never.logits(features).softmax(dim=1), rtol=0, atol=0.05
    )


def test_a_renamed_label_keeps_its_weights_and_a_retired_one_is_gone(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="logistic")
    asked = [example for task in stream()[:2] for example in task.test]

    def predicted(examples: list[Example]) -> list[str | None]:
        return [prediction.label for prediction in learner.predict(examples)]

    label, other = learner.tasks[0].active.labels[:2]
    before = predicted(asked)
    learner.rename(label, "zz last")
    assert predicted(asked) == ["zz last" if found == label else found for found in before]
    learner.retire(other)
    (weights,) = logistic_weights(live_of(learner).state).values()
    assert sorted(weights.labels) == sorted(learner.labels)
    assert other not in predicted(asked)


def test_with_many_examples_only_the_nearest_tasks_are_trained_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(tmp_path, 2, method="logistic")
    (before,) = logistic_weights(live_of(learner).state).values()
    monkeypatch.setattr(logistic, "MAX_EXAMPLES", 2)  # less than a task has: one nearest and one other task
    learner.learn(stream()[2], evaluate=False)
    (after,) = logistic_weights(live_of(learner).state).values()
    moved = [
        not torch.equal(before.for_labels(task.labels).weight, after.for_labels(task.labels).weight)
        for task in stream()[:2]
    ]
    assert sorted(moved) == [False, True]
    assert after.for_labels(stream()[2].labels).weight.any()
