"""Costs belong to one operation, whatever other threads do; peak memory belongs to a stage."""

from __future__ import annotations

import contextvars
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from conpet import cost as cost_module
from conpet.cost import CostLedger, StageCost, meter, metered, peak_memory
from conpet.errors import DivergedError
from tests.helpers.workspaces import stream, workspace

MEGABYTE = 1 << 20


def test_operations_are_nested_and_nothing_is_counted_outside() -> None:
    meter().tokens += 1
    with metered() as outer:
        meter().tokens += 2
        with metered() as inner:
            meter().tokens += 3
            meter().cache_hits += 4
        assert (inner.tokens, inner.cache_hits) == (3, 4)
        assert (outer.tokens, outer.cache_hits) == (5, 4)
    meter().tokens += 1
    assert (outer.tokens, inner.tokens) == (5, 3)


def test_an_operation_that_fails_is_over() -> None:
    def fail() -> None:
        with metered():
            meter().steps += 2
            raise DivergedError

    with metered() as outer:
        with pytest.raises(DivergedError):
            fail()
        meter().steps += 1
    assert outer.steps == 3


def test_a_thread_counts_in_an_operation_only_if_it_carries_the_context() -> None:
    def compute() -> None:
        meter().tokens += 7

    with metered() as costs:
        context = contextvars.copy_context()
        for target, counted in ((lambda: contextvars.Context().run(compute), 0), (lambda: context.run(compute), 7)):
            thread = Thread(target=target)
            thread.start()
            thread.join()
            assert costs.tokens == counted


def test_learning_is_not_charged_what_another_thread_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(folder: Path, *, disturbed: bool) -> list[Any]:
        monkeypatch.setenv("CONPET_HOME", str(folder / "home"))  # with a cache of its own
        learner = workspace(folder, 1)
        asked: list[int] = []

        def disturb(stage: str, share: float) -> None:
            if disturbed:
                thread = Thread(target=learner.predict, args=([f"{stage} {share} number {len(asked)}"],))
                thread.start()
                thread.join()
                asked.append(1)

        report = learner.learn(stream()[1], progress=disturb)
        assert bool(asked) == disturbed
        return [
            [(stage.stage, stage.tokens, stage.cached_tokens, stage.steps) for stage in report.cost],
            list(learner.store.events())[-1].detail["cache"],
        ]

    workspace(tmp_path / "first", 1)  # the other two are copies of it
    alone = learned(tmp_path / "alone", disturbed=False)
    assert alone[1]["asked"] > 0
    assert learned(tmp_path / "disturbed", disturbed=True) == alone


# Memory


def hold(megabytes: int) -> bytearray:
    held = bytearray(megabytes * MEGABYTE)
    held[::4096] = bytes(len(range(0, len(held), 4096)))  # touch every page
    return held


@pytest.fixture
def measurable() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        pytest.skip(f"only Linux keeps a peak of memory that can be reset; conpet records 0 here ({error})")


@pytest.mark.usefixtures("measurable")
def test_a_stage_after_a_large_one_has_its_own_peak() -> None:
    costs = CostLedger()
    for megabytes in (1, 300, 1):
        with costs.stage("some"):
            hold(megabytes)
    small, large, after = (stage.peak_bytes for stage in costs.stages)
    assert large - small > 250 * MEGABYTE
    assert large - after > 250 * MEGABYTE


@pytest.mark.usefixtures("measurable")
def test_what_begins_meanwhile_takes_nothing_from_a_peak() -> None:
    with peak_memory() as outer:
        before = outer()
        hold(300)
        with peak_memory() as inner:
            assert outer() - inner() > 250 * MEGABYTE
        begun = Event()

        def elsewhere() -> None:
            with peak_memory():
                begun.set()

        thread = Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert begun.is_set()
        assert outer() - before > 250 * MEGABYTE


@pytest.mark.parametrize("status", [None, "VmHWM:\t    2092 kB\n"])
def test_where_memory_cannot_be_measured_it_is_zero(
    status: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if status:
        (tmp_path / "status").write_text(status)
        (tmp_path / "clear_refs").mkdir()  # which cannot be written
    monkeypatch.setattr(cost_module, "_PROCESS", tmp_path if status else tmp_path / "missing")
    costs = CostLedger()
    with costs.stage("some"):
        pass
    assert costs.stages[0].peak_bytes == 0


def test_tasks_learned_together_share_costs_but_each_has_the_whole_peak() -> None:
    assert StageCost("some", 8.0, 40, 20, 4, 100).share(0.5) == StageCost("some", 4.0, 20, 10, 2, 100)
