"""Logistic regression: alone it is the usual one, and a new task leaves the weights of learned labels alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from conpet import ConPET
from conpet.data import Example
from conpet.errors import ConfigError, CorruptionError
from conpet.features import CLASSIFIERS
from conpet.features.feature_map import FeatureMap
from conpet.features.logistic import LabelWeights, LogisticRegression
from conpet.features.statistics import ClassSums, ClosedFormState, Gram
from conpet.state import logistic
from conpet.state.logistic import KnownTask, NewTask, train_weights
from conpet.state.statistics import weights_of
from conpet.testing import live_of
from tests.helpers.workspaces import stream, workspace

DIM = 8


def blobs(labels: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of norm `sqrt(DIM)` around one centre per label, and the label of each."""
    centres = torch.randn(labels, DIM, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(rows) % labels
    noise = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(centres[targets] + 0.6 * noise) * DIM**0.5, targets


def gradient(weights: LabelWeights, features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Gradient of scikit-learn's objective at the weights, for features scaled to norm 1."""
    scaled = features / DIM**0.5
    weight = (weights.weight * DIM**0.5).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(scaled @ weight + weights.bias, targets, reduction="sum")
    (found,) = torch.autograd.grad(loss + weight.square().sum() / (2 * penalty), weight)
    return found


def test_of_one_task_it_is_the_minimum_of_the_usual_objective() -> None:
    features, targets = blobs(4, 80, seed=2)
    fitted = LogisticRegression().fit(features, targets, 4, torch.ones(80), None, DIM)
    at_zero = gradient(LabelWeights(torch.zeros(DIM, 4), torch.zeros(4)), features, targets, 30.0)
    assert gradient(fitted, features, targets, 30.0).norm() < 0.01 * at_zero.norm()


def test_an_example_of_weight_two_counts_as_two() -> None:
    features, targets = blobs(3, 30, seed=3)
    doubled = torch.ones(30).index_fill_(0, torch.arange(5), 2.0)
    one = LogisticRegression().fit(features, targets, 3, doubled, None, DIM)
    rows = torch.cat([torch.arange(30), torch.arange(5)])
    two = LogisticRegression().fit(features[rows], targets[rows], 3, torch.ones(35), None, DIM)
    torch.testing.assert_close(one.logits(features), two.logits(features), rtol=0, atol=0.1)


def test_new_columns_are_trained_against_fixed_ones() -> None:
    features, targets = blobs(6, 180, seed=4)
    old = targets < 3
    first = LogisticRegression().fit(features[old], targets[old], 3, torch.ones(int(old.sum())), None, DIM)
    second = LogisticRegression().fit(features, targets, 3, torch.ones(180), first.logits(features), DIM)
    test, truth = blobs(6, 300, seed=5)
    best = LabelWeights.joined([first, second]).logits(test).argmax(dim=1)
    at_once = LogisticRegression().fit(features, targets, 6, torch.ones(180), None, DIM).logits(test).argmax(dim=1)
    right, whole = (best == truth).float().mean(), (at_once == truth).float().mean()
    assert right > whole - 0.05 > 0.6


@pytest.mark.parametrize(
    "wrong", [{}, {"weight": torch.zeros(2, 3)}, {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}]
)
def test_stored_weights_that_do_not_fit_are_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(CorruptionError, match="do not fit its 3 labels"):
        LabelWeights.from_tensors(wrong, 3)


def test_statistics_without_weights_say_which_methods_train_them() -> None:
    feature_map = FeatureMap(dim=DIM, projection=64)
    features, _ = blobs(2, 10, seed=6)
    state = ClosedFormState(
        Gram.zero(feature_map).plus(features), (ClassSums.of(feature_map, features, ["a", "b"] * 5),)
    )
    with pytest.raises(ConfigError, match="use a method that trains them"):
        CLASSIFIERS["logistic"]().fit(state)


@pytest.mark.parametrize("method", ["logistic", "dynamic"])
def test_learning_a_task_leaves_the_weights_of_the_others_alone(method: str, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method=method)
    before = {task.name: weights_of(task) for task in live_of(learner).state.tasks}
    learner.learn(stream()[2], evaluate=False)
    after = {task.name: weights_of(task) for task in live_of(learner).state.tasks}
    assert len(after) == 3
    for name, weights in before.items():
        found = after[name]
        assert weights is not None
        assert found is not None
        assert torch.equal(weights.weight, found.weight)
        assert torch.equal(weights.bias, found.bias)


def test_a_renamed_label_keeps_its_weights_in_its_new_place(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="logistic")

    def predicted(examples: list[Example]) -> list[str]:
        return [prediction.label for prediction in learner.predict(examples)]

    label, other = learner.tasks[0].active.labels[:2]
    asked = [example for task in stream()[:2] for example in task.test]
    before = predicted(asked)
    learner.rename(label, "zz last")
    assert predicted(asked) == ["zz last" if found == label else found for found in before]
    learner.retire(other)
    assert other not in predicted(asked)


def test_only_so_many_old_examples_take_part_the_nearest_tasks_and_some_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner: ConPET = workspace(tmp_path, 3, method="logistic")
    live = live_of(learner)
    statistics = live.method.statistics(live.state)
    known = list(map(KnownTask, live.state.tasks, statistics.classes, statistics.logistic))
    read: list[str] = []

    def spied(task: object, features_of: object = logistic.features_of) -> Tensor:
        read.append(task.name)  # type: ignore[attr-defined]
        return features_of(task)  # type: ignore[operator,no-any-return]

    monkeypatch.setattr(logistic, "features_of", spied)
    own = NewTask(known[2].sums, logistic.features_of(known[2].task), logistic.classes_of(known[2].task))
    read.clear()
    monkeypatch.setattr(logistic, "REPLAYED_EXAMPLES", 2)
    train_weights(known, [own], live.method.backbone.hidden_size, seed=0)
    assert len(read) == 2  # one task of each half
    assert read[0] == known[2].task.name  # the nearest is the same task
