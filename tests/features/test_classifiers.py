"""The classifiers against the plain formulas, written out in numpy over all examples at once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.features import CLASSIFIERS, classifiers
from conpet.features.cholesky import Factor
from conpet.features.classifiers import KernelDiscriminant, LinearDiscriminant, NearestMean, ProjectedRidge, Ridge
from conpet.features.feature_map import FeatureMap, View
from conpet.features.fitted import classifiers_for
from conpet.features.statistics import ClassSums, ClosedFormState, Gram, Scatter

MAP = FeatureMap(dim=12, projection=64, views=tuple(View))
CLOSED_FORMS = tuple(name for name in CLASSIFIERS if name != "logistic")
LABELS = tuple(f"label {index}" for index in range(6))


@dataclass(frozen=True)
class Data:
    features: Tensor
    labels: list[str]


def draw(labels: Sequence[str], rows: int, seed: int) -> Data:
    """Rows around one centre per label, in correlated dimensions of different spread."""
    world = torch.Generator().manual_seed(0)
    centres = torch.randn(len(LABELS), MAP.dim, generator=world)
    mixing = torch.randn(MAP.dim, MAP.dim, generator=world) * 0.25
    generator = torch.Generator().manual_seed(seed)
    owners = [labels[row % len(labels)] for row in range(rows)]
    noise = torch.randn(rows, MAP.dim, generator=generator) @ mixing
    return Data(centres[[LABELS.index(owner) for owner in owners]] + noise, owners)


def state_of(*tasks: Data, feature_map: FeatureMap = MAP) -> ClosedFormState:
    gram = Gram.zero(feature_map)
    for task in tasks:
        gram = gram.plus(task.features)
    return ClosedFormState(gram, tuple(ClassSums.of(feature_map, task.features, task.labels) for task in tasks))


TASKS = [draw(LABELS[first : first + 2], rows=50, seed=first) for first in (0, 2, 4)]
STATE = state_of(*TASKS)
TEST = draw(LABELS, rows=300, seed=9)
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def plain(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the training rows, one-hot targets, views of the test rows: float64, in units of the features."""
    rows = torch.cat([task.features for task in TASKS])
    owners = [label for task in TASKS for label in task.labels]
    targets = np.array([[float(owner == label) for label in LABELS] for owner in owners])
    return MAP.view(view, rows).numpy() / 1024, targets, MAP.view(view, TEST.features).numpy() / 1024


def test_nearest_mean_is_the_cosine_to_class_means() -> None:
    x, y, test = plain(View.RAW)
    means = (y.T @ x) / y.sum(0)[:, None]
    expected = (test @ means.T) / np.linalg.norm(test, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    assert np.allclose(NearestMean().fit(STATE).scores(TEST.features), expected, atol=1e-6)


@pytest.mark.parametrize("method", [Ridge(), ProjectedRidge(), LinearDiscriminant(), KernelDiscriminant()])
def test_scores_of_very_many_labels_are_the_same_with_and_without_weights(
    method: Ridge | LinearDiscriminant, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = method.fit(STATE).scores(TEST.features)
    monkeypatch.setattr(classifiers, "MAX_EAGER_LABELS", 0)
    found = method.fit(STATE)
    parts = [found.scores(TEST.features[first : first + 2]) for first in range(0, 10, 2)]
    assert found.solved  # with as many rows as labels they are worth it
    torch.testing.assert_close(torch.cat(parts), expected[:10])
    few = method.fit(STATE)
    torch.testing.assert_close(few.scores(TEST.features[:5]), expected[:5])
    assert not few.solved


def test_what_weights_were_solved_from_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Factor]] = []
    factor = Factor.of

    def noted(matrix: Tensor, ridge: float) -> Factor:
        result = factor(matrix, ridge)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(Factor, "of", noted)
    stored = ClosedFormState(Gram.stored(STATE.gram.to_tensors), STATE.classes)
    fitted = [method.fit(stored) for method in (ProjectedRidge(), LinearDiscriminant())]
    assert all(one() is not None for one in made)
    scores = [classifier.scores(TEST.features) for classifier in fitted]
    assert [one() for one in made] == [None, None]
    assert torch.equal(scores[0], ProjectedRidge().fit(STATE).scores(TEST.features))


@pytest.mark.parametrize("method", [Ridge(), ProjectedRidge(), LinearDiscriminant(), KernelDiscriminant()])
def test_hundreds_of_labels_more_are_scored_as_if_they_were_few(
    method: Ridge | LinearDiscriminant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more than `MAX_EAGER_LABELS` labels weights are rounded: answers do not change, alone or in a batch."""
    labels = [f"label {index}" for index in range(classifiers.MAX_EAGER_LABELS + 100)]
    features = 2.0 + torch.randn(2 * len(labels), MAP.dim, generator=torch.Generator().manual_seed(3))
    state = state_of(Data(features, labels * 2))
    scores = method.fit(state).scores(features)
    halves = method.fit(state)
    torch.testing.assert_close(torch.cat([halves.scores(half) for half in features.split(700)]), scores, **NEAR)
    monkeypatch.setattr(classifiers, "MAX_EAGER_LABELS", len(labels))
    exact = method.fit(state).scores(features)
    torch.testing.assert_close(scores, exact, **NEAR)
    found = scores.argmax(dim=1, keepdim=True)
    assert ((exact.gather(1, found) - exact.amax(dim=1, keepdim=True)).abs() < NEAR["atol"]).all()  # the best, or a tie


@pytest.mark.parametrize("method", [LinearDiscriminant(shrinkage=0.2), KernelDiscriminant(shrinkage=0.2)])
def test_discriminants_are_the_posterior_of_gaussians_with_one_shrunk_covariance(method: LinearDiscriminant) -> None:
    x, y, test = plain(method.view)
    means = (y.T @ x) / y.sum(0)[:, None]
    residual = x - y @ means
    covariance = residual.T @ residual / (len(x) - len(LABELS))
    shrunk = 0.8 * covariance + 0.2 * np.trace(covariance) / x.shape[1] * np.eye(x.shape[1])
    gaps = test[:, None] - means
    log_density = -0.5 * np.einsum("ncd,de,nce->nc", gaps, np.linalg.inv(shrunk), gaps)
    density = np.exp(log_density - log_density.max(1, keepdims=True))
    scores = method.fit(STATE).scores(TEST.features)
    assert np.allclose(scores.exp(), density / density.sum(1, keepdims=True), atol=1e-6)


def test_klda_tells_apart_what_no_line_parts() -> None:
    """A disc and the ring around it have the same mean: LDA can only guess."""
    generator = torch.Generator().manual_seed(5)
    angle, spread = torch.rand(400, generator=generator) * 6.283, torch.rand(400, generator=generator) * 0.3
    radius = torch.where(torch.arange(400) % 2 == 0, spread, 1.5 + spread)
    features = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    labels = ["disc", "ring"] * 200
    data, test = Data(features[:200], labels[:200]), Data(features[200:], labels[200:])
    state = state_of(data, feature_map=FeatureMap(dim=2, projection=64, bandwidth=0.5, views=tuple(View)))
    right = {}
    for method in (LinearDiscriminant(), KernelDiscriminant()):
        best = method.fit(state).scores(test.features).argmax(1).tolist()
        right[method.name] = sum(state.labels[b] == true for b, true in zip(best, test.labels, strict=True)) / 200
    assert right["lda"] < 0.7 < 0.99 < right["klda"]


@pytest.mark.parametrize(("method", "view"), [(Ridge(0.3), View.RAW), (ProjectedRidge(0.3), View.PROJECTED)])
def test_ridge_is_penalised_least_squares_with_a_free_intercept(method: Ridge, view: View) -> None:
    x, y, test = plain(view)
    penalty = 0.3 * ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    # The intercept as a column of ones that the penalty leaves out: no centring here.
    ones, test_ones = np.c_[x, np.ones(len(x))], np.c_[test, np.ones(len(test))]
    penalties = penalty * np.diag([*np.ones(x.shape[1]), 0.0])
    weights = np.linalg.solve(ones.T @ ones + penalties, ones.T @ y)
    scores = method.fit(STATE).scores(TEST.features)
    assert np.allclose(scores, test_ones @ weights, atol=1e-5)
    assert torch.allclose(scores.sum(1), torch.ones(len(test)), atol=1e-5)


def test_ridge_scores_of_a_task_are_the_sum_of_its_labels_scores() -> None:
    merged = [Data(task.features, [f"task {index}"] * len(task.labels)) for index, task in enumerate(TASKS)]
    by_task = Ridge().fit(state_of(*merged)).scores(TEST.features)
    by_label = Ridge().fit(STATE).scores(TEST.features)
    assert torch.allclose(by_label.reshape(-1, 3, 2).sum(2), by_task, atol=1e-6)


@pytest.mark.parametrize("name", CLOSED_FORMS)
class TestEveryMethod:
    def test_it_classifies_and_names_itself(self, name: str) -> None:
        classifier = CLASSIFIERS[name]().fit(STATE)
        scores = classifier.scores(TEST.features)
        assert (classifier.name, CLASSIFIERS[name].name, classifier.labels) == (name, name, LABELS)
        assert (scores.dtype, scores.shape) == (torch.float32, (300, 6))
        right = [classifier.labels[best] == true for best, true in zip(scores.argmax(1), TEST.labels, strict=True)]
        assert sum(right) / len(right) > 0.8

    def test_scores_follow_the_tasks_whatever_their_order(self, name: str) -> None:
        forward = CLASSIFIERS[name]().fit(STATE)
        backward = CLASSIFIERS[name]().fit(state_of(*reversed(TASKS)))
        columns = [backward.labels.index(label) for label in forward.labels]
        scores = forward.scores(TEST.features)
        assert torch.allclose(backward.scores(TEST.features)[:, columns], scores, atol=1e-5)

    def test_a_removed_task_leaves_no_trace_to_the_bit(self, name: str) -> None:
        kept = state_of(*TASKS[:2])
        gram = STATE.gram.minus(TASKS[2].features)
        removed = ClosedFormState(gram, STATE.classes[:2])
        scores = CLASSIFIERS[name]().fit(kept).scores(TEST.features)
        assert torch.equal(CLASSIFIERS[name]().fit(removed).scores(TEST.features), scores)

    def test_one_row_is_scored_as_in_a_batch(self, name: str) -> None:
        classifier = CLASSIFIERS[name]().fit(STATE)
        rows = torch.cat([classifier.scores(row[None]) for row in TEST.features])
        assert torch.allclose(rows, classifier.scores(TEST.features), atol=1e-6)

    def test_fitting_leaves_its_inputs_as_they_are(self, name: str) -> None:
        state = state_of(*TASKS)
        before = {key: tensor.clone() for key, tensor in state.gram.to_tensors().items()}
        features = TEST.features.clone()
        CLASSIFIERS[name]().fit(state).scores(features)
        assert all(torch.equal(tensor, before[key]) for key, tensor in state.gram.to_tensors().items())
        assert torch.equal(features, TEST.features)

    @pytest.mark.parametrize(
        "data",
        [
            Data(torch.ones(1, 12), ["only"]),
            Data(torch.zeros(3, 12), ["same", "same", "other"]),
            Data(torch.full((3, 12), 0.123), ["same"] * 3),
            Data(torch.eye(12)[:2], ["a", "b"]),
        ],
        ids=["one example", "all zero", "one label, no spread", "one example a label"],
    )
    def test_it_works_with_next_to_nothing(self, name: str, data: Data) -> None:
        classifier = CLASSIFIERS[name]().fit(state_of(data))
        scores = classifier.scores(torch.cat([data.features, torch.randn(2, 12)]))
        assert scores.isfinite().all()
        assert scores.shape == (len(data.labels) + 2, len(set(data.labels)))

    def test_one_example_a_label_is_enough_to_know_it_again(self, name: str) -> None:
        features = torch.eye(12)[:4] * 3
        classifier = CLASSIFIERS[name]().fit(state_of(Data(features, ["a", "b", "c", "d"])))
        assert classifier.scores(features).argmax(1).tolist() == [0, 1, 2, 3]

    def test_no_rows_give_no_scores(self, name: str) -> None:
        assert CLASSIFIERS[name]().fit(STATE).scores(torch.zeros(0, 12)).shape == (0, 6)

    def test_nothing_learned_is_an_error(self, name: str) -> None:
        with pytest.raises(DataError, match="no task has been learned"):
            CLASSIFIERS[name]().fit(ClosedFormState(Gram.zero(MAP), ()))


def test_the_gram_is_factored_once_for_other_labels_over_the_same_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(*TASKS)
    split = [Data(task.features, [f"{label}!" for label in task.labels]) for task in TASKS]
    relabel = ClosedFormState(state.gram, state_of(*split).classes)
    first = Ridge().fit(state).scores(TEST.features)
    monkeypatch.setattr(Factor, "of", None)
    assert torch.equal(Ridge().fit(relabel).scores(TEST.features), first)


def test_features_are_projected_once_for_all_who_score_them(monkeypatch: pytest.MonkeyPatch) -> None:
    classifiers = [ProjectedRidge(strength).fit(STATE) for strength in (0.1, 0.2)]
    project, projected = FeatureMap.projected, []
    monkeypatch.setattr(FeatureMap, "projected", lambda self, rows: projected.append(rows) or project(self, rows))
    features = TEST.features.clone()
    for classifier in classifiers:
        classifier.scores(features)
    assert len(projected) == 1


def test_a_penalty_lost_in_rounding_is_raised_until_the_system_can_be_solved() -> None:
    singular = torch.ones(50, 50, dtype=torch.float64) * 1e9
    solution = Factor.of(singular.clone(), 1e-12).solve(torch.ones(50, 1, dtype=torch.float64))
    assert torch.allclose(singular @ solution, torch.ones(50, 1, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_impossible_strengths_are_refused(wrong: float) -> None:
    for method in (Ridge, ProjectedRidge):
        with pytest.raises(ConfigError, match=f"{method.name}: strength is"):
            method(wrong)
    for method in (LinearDiscriminant, KernelDiscriminant):
        with pytest.raises(ConfigError, match=f"^{method.name}: shrinkage is"):
            method(wrong)


def test_methods_are_those_whose_view_is_kept() -> None:
    def names(*views: View) -> tuple[str, ...]:
        return classifiers_for(state_of(*TASKS, feature_map=FeatureMap(dim=12, projection=64, views=views)))

    assert names(View.RAW, View.PROJECTED) == ("nearest-mean", "lda", "ridge", "projected-ridge")
    assert names(View.RAW, View.FOURIER) == ("nearest-mean", "lda", "ridge", "klda")
    assert names(*View) == CLOSED_FORMS


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_method_needs_its_own_view_and_no_other(name: str) -> None:
    view = CLASSIFIERS[name].view
    alone = state_of(*TASKS, feature_map=FeatureMap(dim=12, projection=64, views=(view,)))
    assert torch.equal(
        CLASSIFIERS[name]().fit(alone).scores(TEST.features), CLASSIFIERS[name]().fit(STATE).scores(TEST.features)
    )
    others = tuple(other for other in View if other is not view)
    without = state_of(*TASKS, feature_map=FeatureMap(dim=12, projection=64, views=others))
    with pytest.raises(
        ConfigError, match=f"{name} reads the {view} view, but these statistics include only {', '.join(others)}"
    ):
        CLASSIFIERS[name]().fit(without)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(UnknownNameError, match="klda, lda, logistic, nearest-mean, projected-ridge, ridge"):
        CLASSIFIERS["svm"]


def test_the_scatter_of_labels_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {view: Scatter().of(view, STATE.classes).tril() for view in View}
    monkeypatch.setattr("conpet.features.statistics._LABELS_PER_CHUNK", 2)
    monkeypatch.setattr("conpet.features.statistics._ROWS_PER_BLOCK", 5)
    pieces = state_of(*TASKS)
    assert all(torch.equal(pieces.between(view).tril(), whole[view]) for view in View)


def test_the_scatter_of_labels_follows_tasks_that_come_and_go_to_the_last_bit() -> None:
    classes = STATE.classes
    scatter = Scatter()
    for some in (classes[:1], classes, classes[1:], (classes[0], classes[2]), classes[::-1], classes):
        for view in View:
            found = scatter.of(view, some)
            sums = torch.cat([one.sums[view] for one in some])
            counts = torch.cat([one.counts for one in some]).unsqueeze(1)
            expected = (sums / counts).T @ sums
            assert (found - expected).tril().abs().max() < 1e-5 * expected.diagonal().mean()
            assert torch.equal(found.tril(), Scatter().of(view, some).tril())
