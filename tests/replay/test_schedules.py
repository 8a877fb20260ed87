"""Replay schedules: their draws, their budgets, and how a training step uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conpet.artifact import ArtifactReader, InMemoryObject, write_artifact
from conpet.config import ScheduleConfig
from conpet.data import Example, Kind
from conpet.replay import SCHEDULES
from conpet.replay.adaptive import EXPLORATION, FLOOR, PROBE_SHARE, PROBES, SMOOTHING, AdaptiveReplay
from conpet.replay.dynamic import draw_by_task
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Rehearsal, mean_loss
from conpet.replay.schedule import divide_budget, rehearse
from tests.helpers.replay import CRITICAL, Letters, artifact, chi_square, past_examples, texts

Loss = Callable[[str, int], float]
"""Task and step to the loss of one of its examples."""


def make_rehearsal(
    sizes: dict[str, int], schedule: str, steps: int = 100, per_step: int = 4, seed: int = 1, backbone: Any = None
) -> Rehearsal:
    memory = [past_examples(name, size) for name, size in sizes.items()]
    found = rehearse(
        memory, backbone or Letters(), schedule=ScheduleConfig(name=schedule), steps=steps, per_step=per_step, seed=seed
    )
    assert found is not None
    return found


def run(rehearsal: Rehearsal, loss: Loss = lambda task, step: 1.0) -> list[list[int]]:
    """Run a rehearsal through its steps as a method does; return the rows of each."""
    seen = []
    for step in range(rehearsal.budget.steps):
        rows = rehearsal.rows(step, rehearsal.budget.per_step)
        rehearsal.observe(rows, [loss(rehearsal.tasks[row], step) for row in rows])
        seen.append(rows)
    return seen


def forgetting(task: str) -> Loss:
    """Return losses that grow for one task and are constant for all others."""
    return lambda name, step: 1.0 + (0.05 * step if name == task else 0.0)


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
        drawn.append([[known[row] for row in rows] for rows in run(rehearsal, forgetting("a"))])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_draws_the_same_whenever_it_is_asked_if_training_can_be_resumed_there(schedule: str) -> None:
    rehearsal, other = make_rehearsal({"a": 9, "b": 20}, schedule), make_rehearsal({"a": 9, "b": 20}, schedule)
    if rehearsal.resumable:
        whole = run(rehearsal, forgetting("a"))
        assert [other.rows(step, 4) for step in reversed(range(100))] == whole[::-1]
    else:  # what was measured makes the difference
        assert run(rehearsal, forgetting("a")) != run(other, forgetting("b"))


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
    assert rehearsal.trained([0, 0]) == [True, True]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_budget_is_divided_and_never_grows(budget: int, share: float) -> None:
    new, replayed = divide_budget(budget, old_share=share, has_memory=True)
    assert new + replayed == budget
    assert 0 <= replayed <= budget
    assert abs(replayed - share * budget) <= 0.5
    assert divide_budget(budget, old_share=share, has_memory=False) == (budget, 0)


def test_the_mean_is_over_new_examples_and_old_ones_learned_from() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0, 100.0, 5.0], requires_grad=True)
    assert mean_loss(losses).item() == pytest.approx(112 / 5)
    rehearsal = make_rehearsal({"a": 20}, "adaptive", 8, 8)
    probe = next(row for row in range(len(rehearsal.states)) if not rehearsal.trained([row])[0])
    others = [row for row in range(len(rehearsal.states)) if rehearsal.trained([row])[0]]
    mean = mean_loss(losses, rehearsal, [others[0], probe, others[1]])
    assert mean.item() == pytest.approx((1 + 2 + 4 + 5) / 4)
    mean.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.25, 0.25, 0.25, 0.0, 0.25]  # measured examples have no gradient


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


# adaptive


def test_adaptive_reads_and_computes_what_dynamic_does() -> None:
    sizes = {"a": 300, "b": 20, "c": 3}
    ours, theirs = make_rehearsal(sizes, "adaptive"), make_rehearsal(sizes, "dynamic")
    assert texts(ours.states) == texts(theirs.states)
    assert [len(rows) for rows in run(ours, forgetting("b"))] == [len(rows) for rows in run(theirs)]


def test_probes_are_few_held_out_and_measured_in_their_share_of_the_places() -> None:
    rehearsal = make_rehearsal({"a": 300, "b": 20, "c": 3, "d": 1}, "adaptive")
    rows = [row for batch in run(rehearsal, forgetting("a")) for row in batch]
    trained = rehearsal.trained(rows)
    assert trained.count(False) == PROBE_SHARE * 400
    probes = {row for row, learned in zip(rows, trained, strict=True) if not learned}
    per_task = Counter(rehearsal.tasks[row] for row in probes)
    assert per_task == {"a": PROBES, "b": PROBES, "c": 1}
    assert {rehearsal.tasks[row] for row in set(rows) - probes} == {"a", "b", "c", "d"}


def test_adaptive_draws_like_dynamic_while_nothing_is_forgotten() -> None:
    rehearsal = make_rehearsal({"a": 10, "b": 20, "c": 40}, "adaptive", 2000)
    rows = [row for batch in run(rehearsal) for row in batch]
    learned = [row for row, trained in zip(rows, rehearsal.trained(rows), strict=True) if trained]
    assert chi_square(list(Counter(rehearsal.tasks[row] for row in learned).values())) < CRITICAL[2]
    for task in ("a", "b", "c"):
        counts = Counter(row for row in learned if rehearsal.tasks[row] == task)
        assert chi_square(list(counts.values())) < CRITICAL[39]


def test_adaptive_turns_to_the_task_that_is_forgotten() -> None:
    sizes = {"a": 30, "b": 30, "c": 30, "d": 30}
    rehearsal = make_rehearsal(sizes, "adaptive", 400)
    assert isinstance(rehearsal, AdaptiveReplay)
    tasks = [Counter(rehearsal.tasks[row] for row in rows) for rows in run(rehearsal, forgetting("c"))]
    late = sum(tasks[200:], Counter())
    assert late["c"] > 0.6 * late.total()
    # The other tasks are still drawn, equally often.
    assert min(late[name] for name in "abd") > EXPLORATION / 4 * 0.5 * late.total()
    assert rehearsal.task_weights()["c"] > 0.7


def test_adaptive_draws_in_proportion_to_the_forgetting() -> None:
    """Loss jumps once by 1 and by 3 nats: the shares are those of the formula."""
    jumps = {"a": 0.0, "b": 1.0, "c": 3.0}
    rehearsal = make_rehearsal(dict.fromkeys(jumps, 40), "adaptive", 4000)
    drawn = run(rehearsal, lambda task, step: 2.0 + (jumps[task] if step >= 100 else 0.0))
    rows = [row for batch in drawn[200:] for row in batch]
    counts = Counter(
        rehearsal.tasks[row] for row, learned in zip(rows, rehearsal.trained(rows), strict=True) if learned
    )
    total = sum(jump + FLOOR for jump in jumps.values())
    shares = [EXPLORATION / 3 + (1 - EXPLORATION) * (jump + FLOOR) / total for jump in jumps.values()]
    assert chi_square([counts[task] for task in jumps], shares) < CRITICAL[2]


def test_rises_are_smoothed_and_a_task_that_gets_better_counts_as_not_forgotten() -> None:
    rehearsal = make_rehearsal({"a": 20, "b": 20}, "adaptive", 20)
    assert isinstance(rehearsal, AdaptiveReplay)
    a, b = (
        next(
            row
            for row in range(len(rehearsal.states))
            if rehearsal.tasks[row] == name and not rehearsal.trained([row])[0]
        )
        for name in "ab"
    )
    rehearsal.observe([a, b], [1.0, 1.0])
    assert rehearsal.task_weights() == pytest.approx({"a": 0.5, "b": 0.5})
    rehearsal.observe([a, b], [3.0, 0.2])
    fall = SMOOTHING * 2.0
    rehearsal.observe([a], [2.0])
    fall += SMOOTHING * (1.0 - fall)
    weight = EXPLORATION / 2 + (1 - EXPLORATION) * (fall + FLOOR) / (fall + 2 * FLOOR)
    assert rehearsal.task_weights()["a"] == pytest.approx(weight)
    assert sum(rehearsal.task_weights().values()) == pytest.approx(1)


def test_within_a_task_every_candidate_is_drawn_before_any_is_drawn_again() -> None:
    rehearsal = make_rehearsal({"a": 40}, "adaptive", 200)
    candidates = {row for row in range(len(rehearsal.states)) if rehearsal.trained([row])[0]}
    rows = [row for batch in run(rehearsal) for row in batch if row in candidates]
    assert set(rows[: len(candidates)]) == candidates


def test_within_a_task_examples_that_were_hard_are_drawn_more_often() -> None:
    rehearsal = make_rehearsal({"a": 12}, "adaptive", 3000)
    easy = {row for row in range(len(rehearsal.states)) if row % 2}
    counts: Counter[bool] = Counter()
    for step in range(3000):
        rows = rehearsal.rows(step, 4)
        rehearsal.observe(rows, [0.0 if row in easy else 2.0 for row in rows])
        counts.update(row in easy for row, learned in zip(rows, rehearsal.trained(rows), strict=True) if learned)
    candidates = Counter(row in easy for row in range(len(rehearsal.states)) if rehearsal.trained([row])[0])
    share = 0.5 * candidates[True] / candidates.total()  # the uniform half alone reaches the easy ones
    assert counts[True] / counts.total() == pytest.approx(share, abs=0.03)


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
