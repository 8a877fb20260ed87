"""Retention: the examples kept in a full memory, compared with plain computations for each retention."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conpet.artifact import Artifact, InMemoryObject, write_artifact
from conpet.config import Settings
from conpet.data import Kind, Task
from conpet.replay import RETENTIONS
from conpet.replay.kmeans import k_means, nearest_to_centres
from conpet.replay.memory import StoredExamples, Subset, text_memory
from conpet.replay.memory_writer import MemoryWriter, examples_without_test_labels, retention_of, stored_examples
from conpet.replay.retention import Holding, Limits
from tests.helpers.replay import CRITICAL, Letters, chi_square, examples_of
from tests.helpers.workspaces import stream, workspace

LIMITS = st.builds(
    Limits, st.none() | st.integers(1, 30), st.none() | st.integers(0, 400), st.none() | st.integers(1, 5)
)
LABELS = st.lists(st.sampled_from("abc"), max_size=12)


def holding(labels: Sequence[str], seed: int = 0) -> Holding:
    """Make a holding whose ranks, sizes and representations are drawn at random."""
    draw = random.Random(seed)
    points = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(seed))
    return Holding(labels, [draw.randbytes(8) for _ in labels], [draw.randint(10, 40) for _ in labels], points)


def holdings(parts: Sequence[Sequence[str]]) -> list[Holding]:
    return [holding(labels, seed) for seed, labels in enumerate(parts)]


def cut(one: Holding, kept: Sequence[int]) -> Holding:
    assert one.representations is not None
    return Holding(
        [one.labels[row] for row in kept],
        [one.ranks[row] for row in kept],
        [one.sizes[row] for row in kept],
        one.representations[list(kept)],
    )


def groups(some: Sequence[Holding], kept: Sequence[Sequence[int]]) -> Counter[tuple[int, str]]:
    """Count the kept examples by holding and label."""
    return Counter((number, some[number].labels[row]) for number, rows in enumerate(kept) for row in rows)


# Every rule


@pytest.mark.parametrize("name", RETENTIONS)
def test_every_retention_is_known_by_its_own_name(name: str) -> None:
    assert RETENTIONS[name].name == name


@pytest.mark.parametrize("name", RETENTIONS)
@given(parts=st.lists(LABELS, max_size=4), limits=LIMITS)
def test_limits_hold_and_without_any_everything_stays(name: str, parts: list[list[str]], limits: Limits) -> None:
    some = holdings(parts)
    everything = [list(range(len(labels))) for labels in parts]
    assert RETENTIONS[name](Limits(), 0).keep(some) == everything
    kept = RETENTIONS[name](limits, 0).keep(some)
    assert all(
        rows == sorted(set(rows)) and set(rows) <= set(whole) for rows, whole in zip(kept, everything, strict=True)
    )
    assert sum(map(len, kept)) <= (limits.examples if limits.examples is not None else math.inf)
    used = sum(one.sizes[row] for one, rows in zip(some, kept, strict=True) for row in rows)
    assert used <= (limits.bytes if limits.bytes is not None else math.inf)


@pytest.mark.parametrize("name", ["reservoir", "class-balanced"])
@given(parts=st.lists(LABELS, min_size=1, max_size=5), examples=st.integers(1, 20))
def test_what_was_let_go_is_never_wanted_again(name: str, parts: list[list[str]], examples: int) -> None:
    """Task by task, with only the kept examples, the memory equals the one computed from all examples."""
    retention = RETENTIONS[name](Limits(examples=examples), 0)
    some = holdings(parts)
    kept: list[list[int]] = []
    for count, labels in enumerate(parts, start=1):
        kept = [*kept, list(range(len(labels)))]
        again = retention.keep([cut(one, rows) for one, rows in zip(some, kept, strict=False)])
        kept = [[rows[row] for row in stays] for rows, stays in zip(kept, again, strict=True)]
        assert kept == retention.keep(some[:count])


def test_ranks_are_those_of_contents_and_seed() -> None:
    memories = [
        StoredExamples(
            "t", None, Kind.TEXT, InMemoryObject(text_memory({subset: examples_of(name, 5) for subset in Subset}))
        )
        for name in ("a", "b")
    ]
    first, second = (Holding.of(memories[0], seed, represented=False).ranks for seed in (0, 1))
    assert first == Holding.of(memories[0], 0, represented=False).ranks
    assert not set(first) & set(second)
    assert not set(first) & set(Holding.of(memories[1], 0, represented=False).ranks)


def test_bytes_are_those_on_disk(tmp_path: Path) -> None:
    memory = text_memory({subset: examples_of('東京 "x"\n', 3) for subset in Subset})
    write_artifact(tmp_path / "memory", Artifact(tables=memory.tables))
    sizes = Holding.of(StoredExamples("t", None, Kind.TEXT, InMemoryObject(memory)), 0, represented=False).sizes
    assert (tmp_path / "memory" / "train.jsonl").stat().st_size == sum(sizes)


# reservoir


def test_the_reservoir_keeps_every_example_seen_with_the_same_chance() -> None:
    """Tasks of 6, 14 and 20 examples enter a memory of 10 in turn; only kept examples are available."""
    sizes = {"a": 6, "b": 14, "c": 20}
    counts: Counter[str] = Counter()
    for seed in range(800):
        retention = RETENTIONS["reservoir"](Limits(examples=10), seed)
        kept: list[StoredExamples] = []
        for name, size in sizes.items():
            kept.append(memory_of([f"{name} {number}" for number in range(size)]))
            rows = retention.keep([Holding.of(one, seed, represented=False) for one in kept])
            kept = [memory_of([texts_of(one)[row] for row in stays]) for one, stays in zip(kept, rows, strict=True)]
        counts.update(text for one in kept for text in texts_of(one))
    assert (len(counts), counts.total()) == (40, 8000)
    # Draws without replacement scatter less than chi-square supposes, so the bound holds all the more.
    assert chi_square(list(counts.values())) < CRITICAL[39]


def memory_of(texts: Sequence[str]) -> StoredExamples:
    some = [example for text in texts for example in examples_of(text, 1)]
    return StoredExamples("t", None, Kind.TEXT, InMemoryObject(text_memory(dict.fromkeys(Subset, some))))


def texts_of(memory: StoredExamples) -> list[str]:
    return [example.text.removesuffix(" 0") for example in memory.examples(Subset.TRAIN)]


# class-balanced


@given(parts=st.lists(LABELS, max_size=4), examples=st.integers(1, 30))
def test_class_balanced_deals_the_places_out_label_by_label(parts: list[list[str]], examples: int) -> None:
    """Reference: deal one place to each label in turn while it has examples and places are left."""
    some = holdings(parts)
    left = Counter((number, label) for number, labels in enumerate(parts) for label in labels)
    dealt: Counter[tuple[int, str]] = Counter()
    while left.total() and dealt.total() + sum(count > 0 for count in left.values()) <= examples:
        for group in [group for group, count in left.items() if count]:
            dealt[group] += 1
            left[group] -= 1
    kept = groups(some, RETENTIONS["class-balanced"](Limits(examples=examples), 0).keep(some))
    assert kept.total() == min(examples, sum(map(len, parts)))
    # Places left after the last full turn go to different labels.
    assert all(dealt[group] <= kept[group] <= dealt[group] + 1 for group in {*dealt, *kept})


def test_within_a_label_the_lowest_ranks_stay() -> None:
    one = holding(["a"] * 10 + ["b"] * 10)
    (kept,) = RETENTIONS["class-balanced"](Limits(examples=8), 0).keep([one])
    for rows in (range(10), range(10, 20)):
        assert {row for row in kept if row in rows} == set(sorted(rows, key=lambda row: one.ranks[row])[:4])


# k-means


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def plain_lloyd(points: list[list[float]], centres: list[list[float]]) -> list[list[float]]:
    for _ in range(100):
        owners = [min(range(len(centres)), key=lambda c: distance(point, centres[c])) for point in points]
        former = centres
        centres = []
        for cluster, centre in enumerate(former):
            own = [point for point, owner in zip(points, owners, strict=True) if owner == cluster]
            centres.append([sum(column) / len(own) for column in zip(*own, strict=True)] if own else centre)
        if centres == former:
            break
    return centres


@given(st.integers(0, 1000), st.integers(1, 5))
def test_centres_are_where_plain_lloyd_stays(seed: int, k: int) -> None:
    points = torch.randn(12, 2, generator=torch.Generator().manual_seed(seed))
    centres = k_means(points, k, seed)
    again = plain_lloyd(points.double().tolist(), centres.double().tolist())
    torch.testing.assert_close(centres, torch.tensor(again), atol=1e-5, rtol=0)


def test_first_centres_are_drawn_by_squared_distance() -> None:
    """Of points at 0, 1 and 3: given the first centre, the chances of the second one by hand (k-means++)."""
    points = torch.tensor([[0.0], [1.0], [3.0]])
    pairs: Counter[tuple[float, float]] = Counter()
    for seed in range(1500):
        centres = sorted(k_means(points, 2, seed).flatten().tolist())
        pairs[centres[0], centres[1]] += 1
    # {0, 1}: Lloyd goes on to {0, 2}. {0, 3} and {1, 3} both end in {0.5, 3}.
    first_two = (1 / 3) * (1 / 10) + (1 / 3) * (1 / 5)
    assert set(pairs) == {(0.0, 2.0), (0.5, 3.0)}
    counts = [pairs[0.0, 2.0], pairs[0.5, 3.0]]
    assert chi_square(counts, [first_two, 1 - first_two]) < CRITICAL[1]


@given(st.integers(0, 1000), st.integers(0, 14))
def test_chosen_points_are_the_nearest_to_each_centre_within_its_cluster(seed: int, k: int) -> None:
    points = torch.randn(12, 2, generator=torch.Generator().manual_seed(seed))
    chosen = nearest_to_centres(points, k, seed)
    assert len(chosen) == len(set(chosen)) == min(k, 12)
    if not 0 < k < 12:
        return
    known, centres = points.tolist(), k_means(points, k, seed).tolist()
    for cluster in range(k):
        own = [row for row in range(12) if min(range(k), key=lambda c: distance(known[row], centres[c])) == cluster]
        off = {row: distance(known[row], centres[cluster]) for row in own}
        # The two points of a cluster of two are equally near: rounding decides.
        assert not own or min(off[row] for row in chosen if row in own) == pytest.approx(min(off.values()), abs=1e-5)


def test_the_middle_of_each_heap_is_chosen() -> None:
    heap = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    points = torch.cat([heap, heap + 100, heap - 100])
    assert nearest_to_centres(points, 3, seed=0) == [0, 5, 10]


def test_points_that_coincide_still_fill_the_share() -> None:
    assert len(nearest_to_centres(torch.zeros(6, 2), 4, seed=0)) == 4


@given(parts=st.lists(LABELS, max_size=4), examples=st.integers(1, 30))
def test_k_means_gives_labels_the_shares_of_class_balanced(parts: list[list[str]], examples: int) -> None:
    some = holdings(parts)
    shares = [
        groups(some, RETENTIONS[name](Limits(examples=examples), 0).keep(some))
        for name in ("k-means", "class-balanced")
    ]
    assert shares[0] == shares[1]


def test_k_means_clusters_each_label_on_its_own() -> None:
    some = holdings([["a"] * 8 + ["b"] * 8, ["c"] * 8])
    kept = RETENTIONS["k-means"](Limits(per_label=3), 5).keep(some)
    for number, rows in ((0, range(8)), (0, range(8, 16)), (1, range(8))):
        points = some[number].representations
        assert points is not None
        expected = [rows[index] for index in nearest_to_centres(points[list(rows)], 3, seed=5)]
        assert [row for row in kept[number] if row in rows] == expected


# In a workspace


def test_fixed_replay_has_a_memory_of_its_own_whatever_the_retention() -> None:
    for retention in RETENTIONS:
        found = retention_of(Settings(replay={"schedule": "fixed", "retention": retention, "memory_per_label": 7}))
        assert (found.name, found.limits) == ("k-means", Limits(per_label=7))
        other = retention_of(Settings(replay={"retention": retention, "memory_examples": 5, "memory_per_label": 7}))
        assert (other.name, other.limits) == (retention, Limits(examples=5))


def test_fixed_replay_keeps_as_many_of_every_label_as_set(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, replay={"schedule": "fixed", "memory_per_label": 3}, selector="learned")
    for record, task in zip(learner.tasks, stream(), strict=False):
        memory = stored_examples(record.active)
        assert Counter(memory.labels(Subset.TRAIN)) == dict.fromkeys(task.labels, 3)
        assert memory.labels(Subset.TEST) == [example.label for example in task.test]
        texts = [example.text for example in memory.examples(Subset.TRAIN)]
        assert texts == [task.train[index].text for index in memory.indices]


def test_a_method_says_in_which_space_examples_are_clustered() -> None:
    task = Task("t", tuple(examples_of("x", 12, labels=2)))
    points = torch.tensor([[0.0] if number in (2, 3) else [100.0 + number // 2] for number in range(12)])
    writer = MemoryWriter(Letters(), Settings(replay={"retention": "k-means", "memory_examples": 4}))  # type: ignore[arg-type]
    (artifact,), _ = writer.retained([writer.all_examples(task, Letters().states(task.train), lambda: points)], [])
    # Of each label one example stands far off; the mean of the others is 102.8.
    assert [example.text for example in artifact.tables["train"]] == ["x 2", "x 3", "x 6", "x 7"]


def test_what_is_clustered_is_kept_so_that_it_can_be_clustered_again(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 0, replay={"retention": "k-means", "memory_examples": 8})
    first, second, third = stream()
    sizes, kept = [], {example.text for example in first.train}
    for task in (first, second, third):
        learner.learn(task, evaluate=False)
        memory = examples_without_test_labels(learner.tasks[0].active)
        now = memory.examples(Subset.TRAIN)
        assert torch.equal(memory.representations, learner.backbone.states(now).features)
        assert {example.text for example in now} < kept
        kept = {example.text for example in now}
        sizes.append(sorted(examples_without_test_labels(one.active).count(Subset.TRAIN) for one in learner.tasks))
    assert sizes[:2] == [[8], [4, 4]]
    of_labels = Counter(
        label for one in learner.tasks for label in examples_without_test_labels(one.active).labels(Subset.TRAIN)
    )
    assert sorted(of_labels.values()) == [1, 1, 1, 1, 2, 2]
