"""Replay schedules: their draws and their budgets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpet.artifact import ArtifactReader, InMemoryObject, write_artifact
from conpet.config import ScheduleConfig
from conpet.data import Example, Kind
from conpet.replay import SCHEDULES
from conpet.replay.dynamic import draw_by_task
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Rehearsal
from conpet.replay.schedule import divide_budget, rehearse
from tests.helpers.replay import CRITICAL, Letters, artifact, chi_square, past_examples, texts


def make_rehearsal(
    sizes: dict[str, int], schedule: str, steps: int = 100, per_step: int = 4, seed: int = 1, backbone: Any = None
) -> Rehearsal:
    memory = [past_examples(name, size) for name, size in sizes.items()]
    found = rehearse(
        memory, backbone or Letters(), schedule=ScheduleConfig(name=schedule), steps=steps, per_step=per_step, seed=seed
    )
    assert found is not None
    return found


def run(rehearsal: Rehearsal) -> list[list[int]]:
    """Run a rehearsal through its steps as a method does; return the rows of each."""
    return [rehearsal.rows(step, rehearsal.budget.per_step) for step in range(rehearsal.budget.steps)]


# Every schedule


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_is_known_by_its_own_name(schedule: str) -> None:
    assert SCHEDULES[schedule].name == schedule


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tasks", [1, 5, 40])
def test_the_number_drawn_and_read_does_not_grow_with_the_tasks(schedule: str, tasks: int) -> None:
    backbone = Letters()
    rehearsal = make_rehearsal(
        {f"task {number}": 5 + number for number in range(tasks)}, schedule, 16, 4, backbone=backbone
    )
    assert [len(rows) for rows in run(rehearsal)] == [4] * 16
    assert len(backbone.read) == len(set(backbone.read)) == len(rehearsal.states) <= 64


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_that_is_said_of_a_row_belongs_together(schedule: str) -> None:
    rehearsal = make_rehearsal({"a": 10, "b": 20}, schedule, 10)
    assert len(rehearsal.states) == len(rehearsal.labels) == len(rehearsal.tasks) == len(rehearsal.indices)
    for text, label, task, index in zip(
        texts(rehearsal.states), rehearsal.labels, rehearsal.tasks, rehearsal.indices, strict=True
    ):
        assert (text, label) == (f"{task} {index}", f"{task}-0")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_seed_decides_what_is_drawn(schedule: str) -> None:
    sizes = {"a": 50, "b": 50}
    drawn = []
    for seed in (3, 3, 4):
        rehearsal = make_rehearsal(sizes, schedule, 30, seed=seed)
        known = texts(rehearsal.states)
        drawn.append([[known[row] for row in rows] for rows in run(rehearsal)])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_draws_the_same_whenever_it_is_asked_so_training_can_be_resumed_there(schedule: str) -> None:
    rehearsal, other = make_rehearsal({"a": 9, "b": 20}, schedule), make_rehearsal({"a": 9, "b": 20}, schedule)
    assert [other.rows(step, 4) for step in reversed(range(100))] == run(rehearsal)[::-1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_past_there_is_no_rehearsal(schedule: str) -> None:
    assert rehearse([], Letters(), schedule=ScheduleConfig(name=schedule), steps=5, per_step=2, seed=0) is None
    assert (
        rehearse(
            [past_examples("a", 0)], Letters(), schedule=ScheduleConfig(name=schedule), steps=5, per_step=2, seed=0
        )
        is None
    )
    assert (
        rehearse(
            [past_examples("a", 5)], Letters(), schedule=ScheduleConfig(name=schedule), steps=5, per_step=0, seed=0
        )
        is None
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_example_is_rehearsed_again_and_again(schedule: str) -> None:
    rehearsal = make_rehearsal({"a": 1}, schedule, 3, 2)
    assert run(rehearsal) == [[0, 0]] * 3


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_budget_is_divided_and_never_grows(budget: int, share: float) -> None:
    new, replayed = divide_budget(budget, old_share=share, has_memory=True)
    assert new + replayed == budget
    assert 0 <= replayed <= budget
    assert abs(replayed - share * budget) <= 0.5
    assert divide_budget(budget, old_share=share, has_memory=False) == (budget, 0)


# fixed


def test_fixed_repeats_the_whole_memory_in_shuffled_passes() -> None:
    rehearsal = make_rehearsal({"a": 3, "b": 7}, "fixed", 25, 4)
    drawn = [row for rows in run(rehearsal) for row in rows]
    passes = [drawn[start : start + 10] for start in range(0, 100, 10)]
    assert [sorted(batch) for batch in passes] == [list(range(10))] * 10
    assert len({tuple(batch) for batch in passes}) > 1


def test_fixed_is_cut_off_at_the_budget() -> None:
    backbone = Letters()
    rehearsal = make_rehearsal({"a": 300}, "fixed", 5, 4, backbone=backbone)
    assert len(rehearsal.drawn) == len(set(rehearsal.drawn)) == len(backbone.read) == 20


def test_fixed_gives_every_example_the_same_chance() -> None:
    counts = Counter(
        text for seed in range(600) for text in texts(make_rehearsal({"a": 4, "b": 16}, "fixed", 2, 5, seed).states)
    )
    assert len(counts) == 20
    assert chi_square(list(counts.values())) < CRITICAL[19]


# dynamic


def test_dynamic_draws_past_tasks_uniformly_and_their_examples_uniformly() -> None:
    rehearsal = make_rehearsal({"small": 10, "middle": 20, "large": 40}, "dynamic", 3000)
    drawn = [row for rows in run(rehearsal) for row in rows]
    by_task = Counter(rehearsal.tasks[row] for row in drawn)
    assert by_task.keys() == {"small", "middle", "large"}
    assert chi_square(list(by_task.values())) < CRITICAL[2]
    for task, size in (("small", 10), ("middle", 20), ("large", 40)):
        counts = Counter(row for row in drawn if rehearsal.tasks[row] == task)
        assert len(counts) == size
        assert chi_square(list(counts.values())) < CRITICAL[size - 1]


def test_only_the_tasks_drawn_are_read() -> None:
    reads: list[str] = []

    class Watched(InMemoryObject):
        def rows(self, stem: str, wanted: Any = None) -> Any:
            reads.append(stem)
            return super().rows(stem, wanted)

    memory = [past_examples(str(number), 5, Watched(artifact(str(number), 5))) for number in range(50)]
    rehearsal = rehearse(memory, Letters(), schedule=ScheduleConfig(name="dynamic"), steps=1, per_step=3, seed=0)  # type: ignore[arg-type]
    assert rehearsal is not None
    assert len(reads) == len(set(rehearsal.tasks)) <= 3


def test_each_subset_is_drawn_from_itself_and_tasks_without_any_are_left_out() -> None:
    memory = [past_examples("one", 1), past_examples("many", 20)]
    drawn = draw_by_task(memory, Subset.VALIDATION, 40, seed=0)
    assert [source.task for source, _ in drawn] == ["many"]
    assert set(drawn[0][1]) <= set(range(10))
    assert len(drawn[0][1]) == 40
    assert draw_by_task(memory, Subset.TEST, 40, seed=0) == []
    assert draw_by_task([], Subset.TRAIN, 40, seed=0) == []


# Reading back


def test_examples_are_read_from_disk_as_they_were_kept(tmp_path: Path) -> None:
    manifest = write_artifact(tmp_path / "memory", artifact("日本", 6))
    memory = StoredExamples("日本", "{text}?", Kind.TEXT, ArtifactReader(tmp_path / "memory", manifest))
    assert memory.count(Subset.TRAIN) == 6
    assert memory.examples(Subset.TRAIN)[2] == Example.of_text("日本 2", "日本-0")
    assert [example.text for example in memory.chosen(Subset.TRAIN, [4, 1, 4])] == ["日本 4", "日本 1", "日本 4"]
    assert memory.labels(Subset.VALIDATION) == ["日本-0"] * 3
    assert memory.indices == list(range(6))
    assert texts(memory.states(Letters(), Subset.TRAIN, [5, 0])) == ["日本 5", "日本 0"]  # type: ignore[arg-type]
