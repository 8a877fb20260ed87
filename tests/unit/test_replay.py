"""Replay: what is drawn (a task uniformly, then an example uniformly), what it costs, and what the memory keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpet.artifact import Artifact, ArtifactReader, write_artifact
from conpet.data import Example
from conpet.readable import Held
from conpet.replay.memory import Limits, Remembered, Split, row_bytes
from conpet.replay.schedule import draw_dynamic, split_budget

TEXTS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), max_size=40)
# Upper 0.1% points of the chi-square distribution, by degrees of freedom.
CRITICAL = {2: 13.82, 9: 27.88, 19: 43.82, 39: 72.05}


def artifact(name: str, size: int) -> Artifact:
    examples = [Example.of_text(f"{name} {number}", name) for number in range(size)]
    return Artifact(
        documents={"counts": {"train": size, "validation": size // 2, "test": 0}},
        tables={
            "train": [example.to_json() for example in examples],
            "validation": [example.to_json() for example in examples[: size // 2]],
            "test": [],
        },
    )


def remembered(name: str, size: int) -> Remembered:
    return Remembered(name, None, Held(artifact(name, size)))


def chi_square(counts: Sequence[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def rows(count: int) -> list[dict[str, Any]]:
    return [Example.of_text(f"text {number}" + "x" * (number % 7)).to_json() for number in range(count)]


# What is drawn


def test_past_tasks_are_drawn_uniformly_and_their_examples_uniformly() -> None:
    memory = [remembered("small", 10), remembered("middle", 20), remembered("large", 40)]
    drawn = draw_dynamic(memory, 12_000, Split.TRAIN, seed=1)
    assert [source.task for source, _ in drawn] == ["small", "middle", "large"]
    assert chi_square([len(examples) for _, examples in drawn]) < CRITICAL[2]
    for source, examples in drawn:
        counts = Counter(example.text for example in examples)
        assert len(counts) == source.count(Split.TRAIN)
        assert {example.label for example in examples} == {source.task}
        assert chi_square(list(counts.values())) < CRITICAL[len(counts) - 1]


def test_the_seed_decides_what_is_drawn() -> None:
    memory = [remembered("a", 50), remembered("b", 50)]
    drawn = [[examples for _, examples in draw_dynamic(memory, 30, Split.TRAIN, seed)] for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("tasks", [1, 5, 40])
def test_the_number_drawn_does_not_grow_with_the_tasks(tasks: int) -> None:
    memory = [remembered(f"task {number}", 5 + number) for number in range(tasks)]
    drawn = draw_dynamic(memory, 64, Split.TRAIN, seed=0)
    assert sum(len(examples) for _, examples in drawn) == 64


def test_only_the_tasks_drawn_are_read() -> None:
    reads: list[str] = []

    class Watched(Held):
        def rows(self, stem: str) -> Any:
            reads.append(stem)
            return super().rows(stem)

    memory = [Remembered(str(number), None, Watched(artifact(str(number), 5))) for number in range(50)]
    drawn = draw_dynamic(memory, 3, Split.TRAIN, seed=0)
    assert len(reads) == len(drawn) <= 3


def test_each_split_is_drawn_from_itself_and_tasks_without_any_are_left_out() -> None:
    memory = [remembered("one", 1), remembered("many", 20)]
    drawn = draw_dynamic(memory, 40, Split.VALIDATION, seed=0)
    assert [source.task for source, _ in drawn] == ["many"]
    assert {example.text for example in drawn[0][1]} <= {f"many {number}" for number in range(10)}
    assert draw_dynamic(memory, 40, Split.TEST, seed=0) == []
    assert draw_dynamic([], 40, Split.TRAIN, seed=0) == []


def test_examples_are_read_from_disk_as_they_were_kept(tmp_path: Path) -> None:
    manifest = write_artifact(tmp_path / "memory", artifact("日本", 6))
    memory = Remembered("日本", "{text}?", ArtifactReader(tmp_path / "memory", manifest))
    assert memory.count(Split.TRAIN) == 6
    assert memory.examples(Split.TRAIN)[2] == Example.of_text("日本 2", "日本")
    assert [example.text for example in memory.chosen(Split.TRAIN, [4, 1, 4])] == ["日本 4", "日本 1", "日本 4"]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_budget_is_divided_and_never_grows(budget: int, share: float) -> None:
    new, replayed = split_budget(budget, old_share=share, has_memory=True)
    assert new + replayed == budget
    assert 0 <= replayed <= budget
    assert abs(replayed - share * budget) <= 0.5
    assert split_budget(budget, old_share=share, has_memory=False) == (budget, 0)


# What is kept


def test_without_limits_everything_is_kept() -> None:
    assert Limits().unlimited
    assert Limits().keep(rows(9), tasks=100, seed=0) == rows(9)


def test_a_limit_in_examples_is_shared_equally_and_order_is_kept() -> None:
    kept = Limits(examples=60).keep(rows(100), tasks=3, seed=0)
    assert len(kept) == 20
    assert kept == [row for row in rows(100) if row in kept]
    assert Limits(examples=60).keep(rows(5), tasks=3, seed=0) == rows(5)


def test_what_is_kept_is_a_uniform_sample() -> None:
    counts = Counter(row["text"] for seed in range(1000) for row in Limits(examples=10).keep(rows(40), 1, seed))
    assert len(counts) == 40
    # Draws without replacement scatter less than chi-square supposes, so the bound holds all the more.
    assert chi_square(list(counts.values())) < CRITICAL[39]


@given(TEXTS, st.integers(1, 50), st.integers(0, 2000), st.integers(0, 5))
def test_a_smaller_share_keeps_a_subset_of_what_a_larger_one_kept(
    texts: list[str], examples: int, size: int, seed: int
) -> None:
    given_rows = [{"text": text} for text in texts]
    for limits in (Limits(examples=examples), Limits(bytes=size), Limits(examples=examples, bytes=size)):
        kept = given_rows
        for tasks in range(1, 8):
            fresh = limits.keep(given_rows, tasks, seed)
            # Cutting what is left gives what cutting everything would have given: nothing is ever read back.
            assert limits.keep(kept, tasks, seed) == fresh
            kept = fresh


@given(TEXTS, st.integers(0, 3000), st.integers(1, 4))
def test_a_limit_in_bytes_holds(texts: list[str], size: int, tasks: int) -> None:
    given_rows = [{"text": text} for text in texts]
    kept = Limits(bytes=size).keep(given_rows, tasks, seed=0)
    assert sum(row_bytes(row) for row in kept) <= size // tasks


def test_bytes_are_those_on_disk(tmp_path: Path) -> None:
    table = [Example.of_text("東京", "天気").to_json(), Example.of_text('a "b"\n').to_json()]
    write_artifact(tmp_path / "memory", Artifact(tables={"train": table}))
    assert (tmp_path / "memory" / "train.jsonl").stat().st_size == sum(row_bytes(row) for row in table)
