"""Sums are exact: the same bytes in any order, batching, and after learning and removing."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from conpet.errors import ConfigError, CorruptionError, DataError
from conpet.features.feature_map import MAX_EXAMPLES, RADIUS, STEPS, FeatureMap, View
from conpet.features.statistics import ClassSums, ClosedFormState, Gram

MAP = FeatureMap(dim=7, projection=19, seed=3, views=tuple(View))


def features_of(seed: int, rows: int = 40, dim: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, dim, generator=generator)
    features[0] *= 100  # an outlier
    return features


def same_bytes(left: Gram, right: Gram) -> bool:
    first, second = left.to_tensors(), right.to_tensors()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_any_order_of_tasks_gives_the_same_bytes() -> None:
    tasks = [features_of(seed) for seed in range(3)]
    joint = Gram.zero(MAP).plus(torch.cat(tasks))
    for order in itertools.permutations(tasks):
        gram = Gram.zero(MAP)
        for features in order:
            gram = gram.plus(features)
        assert same_bytes(gram, joint)


def test_learning_and_removing_leaves_no_trace_to_the_bit() -> None:
    before = Gram.zero(MAP).plus(features_of(0))
    after = before.plus(features_of(1)).minus(features_of(1))
    assert same_bytes(after, before)
    example = features_of(0)[5:6]
    assert same_bytes(before.minus(example).plus(example), before)
    assert same_bytes(before.minus(features_of(0)), Gram.zero(MAP))


def test_sums_are_never_changed_in_place() -> None:
    gram = Gram.zero(MAP)
    gram.plus(features_of(0))
    assert same_bytes(gram, Gram.zero(MAP))


def test_sums_equal_integer_arithmetic() -> None:
    features = features_of(4, rows=300)
    gram = Gram.zero(MAP).plus(features)
    for view in View:
        whole = MAP.view(view, features).numpy().astype(np.int64)
        assert np.array_equal(gram.products[view].numpy().astype(np.int64), whole.T @ whole)
        assert np.array_equal(gram.sums[view].numpy().astype(np.int64), whole.sum(axis=0))


def test_the_largest_sums_allowed_are_exact() -> None:
    feature_map = FeatureMap(dim=2, projection=1)
    top = torch.full((1, 2), float(RADIUS))
    full = Gram.zero(feature_map).plus(top)
    while full.count < MAX_EXAMPLES:  # doubling: as if 2**25 rows had been added
        doubled = {view: products * 2 for view, products in full.products.items()}
        full = Gram(feature_map, full.count * 2, {view: sums * 2 for view, sums in full.sums.items()}, doubled)
    assert full.products[View.RAW][0, 1].item() == MAX_EXAMPLES * (RADIUS * STEPS) ** 2 == 2**53
    less = full.minus(torch.tensor([[1 / STEPS, float(RADIUS)]]))
    assert int(less.products[View.RAW][0, 0]) == 2**53 - 1
    with pytest.raises(DataError, match="exact for up to"):
        full.plus(top)


@pytest.mark.parametrize("view", View)
def test_views_of_a_row_do_not_depend_on_the_batch(view: View) -> None:
    features = features_of(2, rows=257)
    whole = MAP.view(view, features)
    assert torch.equal(whole, torch.cat([MAP.view(view, row[None]) for row in features]))
    assert torch.equal(whole.flip(0), MAP.view(view, features.flip(0)))
    assert torch.equal(whole, torch.cat([MAP.view(view, chunk) for chunk in features.split(10)]))


def test_projection_is_the_rectified_random_projection() -> None:
    feature_map = FeatureMap(dim=300, projection=4000, seed=1)
    features = features_of(1, rows=3, dim=300)[1:]
    projected = feature_map.projected(features) / STEPS
    # A Gaussian projection scaled by 1/sqrt(F) keeps the second moment; ReLU halves it, and zeroes half the entries.
    assert torch.allclose(projected.square().mean(1), features.double().square().mean(1) / 2, rtol=0.1)
    assert abs((projected == 0).double().mean().item() - 0.5) < 0.03
    again = FeatureMap(dim=300, projection=4000, seed=1).projected(features)
    assert torch.equal(again / STEPS, projected)
    assert not torch.equal(FeatureMap(dim=300, projection=4000, seed=2).projected(features) / STEPS, projected)


def test_projection_has_fixed_values() -> None:
    """Workspaces hold sums of these numbers: another draw would part them from new features."""
    feature_map = FeatureMap(dim=3, projection=4, seed=0)
    projected = feature_map.projected(torch.tensor([[1.0, -2.0, 0.5], [-1.0, 2.0, 30.0]]))
    assert projected.tolist() == [[1444.0, 974.0, 0.0, 0.0], [2896.0, 8873.0, 0.0, 4695.0]]


def standardised(rows: int = 40, dim: int = 50) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 2.0])
def test_fourier_products_approach_the_kernel_with_the_root_of_the_width(bandwidth: float) -> None:
    features = standardised()
    squares = torch.cdist(features.double(), features.double()).square()
    kernel = (-squares / (2 * bandwidth**2 * 50)).exp()
    errors = {}
    for width in (1000, 16000):
        rows = FeatureMap(50, width, seed=1, bandwidth=bandwidth).fourier(features) / STEPS
        errors[width] = float((rows @ rows.T / width - kernel).square().mean().sqrt())
        assert errors[width] < 1.2 / width**0.5
    assert 2 < errors[1000] / errors[16000] < 8  # 4 expected


def test_fourier_view_is_the_cosine_of_a_random_angle_but_for_the_grid() -> None:
    feature_map = FeatureMap(dim=50, projection=300, seed=2, bandwidth=0.7)
    features = standardised()
    bytes_drawn = np.random.PCG64(2).random_raw(50 * 300).astype("<u8").view(np.uint8).reshape(50, 300, 8)
    gaussian = (bytes_drawn.sum(2, dtype=float) - 8 * 127.5) / np.sqrt(8 * (256**2 - 1) / 12)
    phases = 2 * np.pi * np.random.PCG64([2, 1]).random_raw(300) / 2**64
    plain = np.sqrt(2) * np.cos(features.numpy() @ gaussian / (0.7 * np.sqrt(50)) + phases)
    assert np.abs(feature_map.fourier(features).numpy() / STEPS - plain).max() < 3 / STEPS


def test_fourier_view_has_fixed_values() -> None:
    """Workspaces hold sums of these numbers: another draw, or another cosine, would part them from new features."""
    feature_map = FeatureMap(dim=3, projection=4, seed=0, bandwidth=0.5)
    fourier = feature_map.fourier(torch.tensor([[1.0, -2.0, 0.5], [-1.0, 2.0, 30.0]]))
    assert fourier.tolist() == [[-765.0, 923.0, -1254.0, -1292.0], [360.0, -577.0, -852.0, -1251.0]]


def test_every_cosine_is_rounded_clear_of_a_tie() -> None:
    """So any machine's cosine gives the same grid values, though their last bits may differ."""
    turn = FeatureMap(dim=1, projection=1)
    values = np.sqrt(2) * STEPS * np.cos(np.arange(2**14) * 2 * np.pi / 2**14)
    assert np.abs(np.abs(values % 1) - 0.5).min() > 1e-4
    assert set(turn.fourier(torch.linspace(-16, 16, 50_001)[:, None]).flatten().tolist()) <= set(np.round(values))


def test_only_the_views_asked_for_are_kept() -> None:
    feature_map = FeatureMap(dim=7, projection=19, seed=3, views=(View.RAW, View.FOURIER))
    gram, full = Gram.zero(feature_map).plus(features_of(0)), Gram.zero(MAP).plus(features_of(0))
    kept = {"raw.sum", "raw.products", "fourier.sum", "fourier.products"}
    assert gram.to_tensors().keys() == {"map", "map.bandwidth", "map.views", "count"} | kept
    assert all(torch.equal(gram.to_tensors()[name], full.to_tensors()[name]) for name in kept)
    assert Gram.stored(gram.to_tensors).feature_map == feature_map
    assert ClassSums.of(feature_map, features_of(0), ["a"] * 40).sums.keys() == {View.RAW, View.FOURIER}
    assert FeatureMap(dim=7).views == (View.RAW, View.PROJECTED)


def test_raw_view_rounds_to_the_grid_and_clips() -> None:
    raw = FeatureMap(dim=4, projection=1).raw(torch.tensor([[0.5, 0.00051, -99.0, 99.0]]))
    assert raw.tolist() == [[512.0, 1.0, -RADIUS * STEPS, RADIUS * STEPS]]


def test_class_sums_by_hand_and_in_any_order_of_rows() -> None:
    feature_map = FeatureMap(dim=2, projection=3)
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [-1.0, 0.5]])
    sums = ClassSums.of(feature_map, features, ["pay", "card", "pay"])
    assert sums.labels == ("card", "pay")
    assert sums.counts.tolist() == [1, 2]
    assert (sums.sums[View.RAW] / STEPS).tolist() == [[3.0, 4.0], [0.0, 2.5]]
    turned = ClassSums.of(feature_map, features.flip(0), ["pay", "card", "pay"])
    assert all(torch.equal(turned.sums[view], sums.sums[view]) for view in feature_map.views)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = features_of(6), [f"label {row % 3}" for row in range(40)]
    gram, sums = Gram.zero(MAP).plus(features), ClassSums.of(MAP, features, labels)
    monkeypatch.setattr("conpet.features.feature_map._CHUNK_NUMBERS", 19 * 7)
    assert same_bytes(Gram.zero(MAP).plus(features), gram)
    assert all(torch.equal(ClassSums.of(MAP, features, labels).sums[view], sums.sums[view]) for view in View)


def test_stored_and_reloaded_is_the_same() -> None:
    gram = Gram.zero(MAP).plus(features_of(0))
    tensors = gram.to_tensors()
    assert same_bytes(Gram.stored(lambda: tensors), gram)
    assert torch.equal(Gram.stored(lambda: tensors).products[View.RAW], gram.products[View.RAW])
    assert tensors["projected.products"].shape == (19 * 20 // 2,)
    sums = ClassSums.of(MAP, features_of(0), ["a", "b"] * 20)
    reloaded = ClassSums.from_tensors(sums.to_tensors(), ["a", "b"])
    ClosedFormState(Gram.stored(lambda: tensors), (reloaded,))
    assert (reloaded.feature_map, reloaded.labels, reloaded.counts.tolist()) == (MAP, ("a", "b"), [20, 20])


def test_stored_products_are_read_when_they_are_used_and_not_kept() -> None:
    gram = Gram.zero(MAP).plus(features_of(0))
    readings: list[dict[str, torch.Tensor]] = []
    stored = Gram.stored(lambda: readings.append(gram.to_tensors()) or readings[-1])  # type: ignore[func-returns-value]
    kept = [weakref.ref(tensor) for name, tensor in readings.pop().items() if name.endswith(".products")]
    assert [one for one in kept if one() is not None] == []
    first, second = stored.factor(View.RAW, 0.1), stored.factor(View.RAW, 0.1)
    assert len(readings) == 2
    assert torch.equal(first.lower, second.lower)
    assert torch.equal(first.lower, gram.factor(View.RAW, 0.1).lower)
    assert same_bytes(stored.plus(features_of(1)), gram.plus(features_of(1)))


@pytest.mark.parametrize(
    "name", ["map", "map.bandwidth", "map.views", "count", "raw.products", "projected.sum", "fourier.sum"]
)
def test_a_missing_surplus_or_misshapen_tensor_is_an_error(name: str) -> None:
    tensors = Gram.zero(MAP).to_tensors()
    missing = {key: tensor for key, tensor in tensors.items() if key != name}
    misshapen = tensors | {name: torch.zeros(2, 2)}
    for wrong in (missing, misshapen, tensors | {"other": torch.zeros(1)}, tensors | {name: tensors[name].half()}):
        with pytest.raises(CorruptionError):
            Gram.stored(partial(dict, wrong))
    with pytest.raises(CorruptionError, match="class sums of 2 labels"):
        ClassSums.from_tensors(ClassSums.of(MAP, features_of(0), ["a"] * 40).to_tensors(), ["a", "b"])


def test_a_map_that_cannot_be_is_an_error() -> None:
    tensors = Gram.zero(MAP).to_tensors()
    for name, wrong in (
        ("map", torch.tensor([0, 19, 3])),
        ("map.bandwidth", torch.tensor(-1.0, dtype=torch.float64)),
        ("map.views", torch.zeros(3, dtype=torch.bool)),
        ("map.views", torch.tensor([True, True, False])),
    ):
        with pytest.raises(CorruptionError, match="closed-form statistics: "):
            Gram.stored(partial(dict, tensors | {name: wrong}))


def test_a_state_whose_sums_are_not_those_of_its_tasks_is_refused() -> None:
    first = ClassSums.of(MAP, features_of(0), ["a", "b"] * 20)
    second = ClassSums.of(MAP, features_of(1), ["c", "d"] * 20)
    gram = Gram.zero(MAP).plus(features_of(0))
    assert ClosedFormState(gram.plus(features_of(1)), (second, first)).labels == ("c", "d", "a", "b")
    for classes in ((), (first, second), (second,)):
        with pytest.raises(CorruptionError, match="do not match the tasks"):
            ClosedFormState(gram, classes)
    with pytest.raises(DataError, match=r"two tasks.*: a, b"):
        ClosedFormState(gram.plus(features_of(0)), (first, first))
    for changes in ({"seed": 4}, {"bandwidth": 2.0}, {"views": (View.RAW,)}):
        other = ClassSums.of(replace(MAP, **changes), features_of(0), ["a", "b"] * 20)
        with pytest.raises(CorruptionError, match="another feature map"):
            ClosedFormState(gram, (other,))


def test_bad_input_says_what_is_wrong() -> None:
    gram = Gram.zero(MAP).plus(features_of(0))
    with pytest.raises(DataError, match=r"shape \[2, 6\]; this map takes \[n, 7\]"):
        gram.plus(torch.zeros(2, 6))
    broken = features_of(0)
    broken[3, 2] = torch.nan
    with pytest.raises(DataError, match="row 3"):
        gram.plus(broken)
    with pytest.raises(DataError, match="never added"):
        gram.minus(features_of(1, rows=50))
    with pytest.raises(DataError, match="never added"):
        gram.minus(features_of(1, rows=1) * 100)
    with pytest.raises(DataError, match="2 rows of features for 1 labels"):
        ClassSums.of(MAP, torch.zeros(2, 7), ["a"])
    with pytest.raises(ConfigError, match="dim and projection"):
        FeatureMap(0)
    for bandwidth in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="bandwidth must be a number above 0"):
            FeatureMap(7, bandwidth=bandwidth)
    for views in ((), (View.RAW, View.RAW), (View.FOURIER, View.RAW)):
        with pytest.raises(ConfigError, match="each once and in this order: raw, projected, fourier"):
            FeatureMap(7, views=views)
