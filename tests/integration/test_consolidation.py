"""A consolidation of a real model on real intents, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet import ConPET, Example, Task
from conpet.demo.stream import demo_stream
from conpet.testing import ask

pytestmark = pytest.mark.integration

COUNTS = {"train": 6, "validation": 5, "test": 6}


def small(task: Task, labels: int = 6) -> Task:
    """Keep the first intents of a task, and of each of them a few examples."""

    def of(subset: str) -> tuple[Example, ...]:
        examples = getattr(task, subset)
        return tuple(
            example
            for label in task.labels[:labels]
            for example in [one for one in examples if one.label == label][: COUNTS[subset]]
        )

    return Task(task.name, of("train"), of("validation"), of("test"))


def assert_alike(first: list[dict[str, float]], second: list[dict[str, float]]) -> None:
    """Check that scores are equal up to rounding, which real weights show more of than small random ones."""
    for left, right in zip(first, second, strict=True):
        assert left == pytest.approx(right, abs=1e-3)


def test_a_consolidation_is_no_worse_and_can_be_undone(tmp_path: Path) -> None:
    tasks = [small(task) for task in demo_stream()[:2]]
    texts = [example.text for task in tasks for example in task.test]
    settings = {"training": {"epochs": 4, "batch_size": 8}, "consolidation": {"epochs": 4}}
    learner = ConPET.create(tmp_path / "ws", backbone="minilm-l6", **settings)
    *_, last = learner.learn_stream(tasks)
    assert last.evaluation is not None
    assert last.consolidation_due is not None
    before, accuracy = ask(learner, texts), last.evaluation.whole_accuracy or 0

    report = learner.consolidate()
    assert report.after.correct >= report.before.correct
    assert report.evaluation is not None
    assert (report.evaluation.whole_accuracy or 0) > max(0.8, accuracy - 0.03)
    assert_alike(ask(learner, texts), ask(ConPET.open(learner.path), texts))

    learner.restore(report.replaced, evaluate=False)
    assert_alike(before, ask(learner, texts))
