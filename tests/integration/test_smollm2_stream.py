"""The real models on real intents: two departments of CLINC150, three intents each, six examples an intent."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from conpet import ConPET, Example, Task
from conpet.cost import metered
from conpet.demo.stream import demo_stream

pytestmark = pytest.mark.integration

COUNTS = {"train": 6, "validation": 2, "test": 6}


def small(task: Task) -> Task:
    """Keep a few intents of a task, and of each of them a few examples."""
    intents = task.labels[::5]  # three of fifteen; neighbours (bill_balance, bill_due) are near in meaning too
    subsets: dict[str, tuple[Example, ...]] = {}
    for subset, count in COUNTS.items():
        of: dict[str | None, list[Example]] = defaultdict(list)
        for example in getattr(task, subset):
            of[example.label].append(example)
        subsets[subset] = tuple(example for intent in intents for example in of[intent][:count])
    return replace(task, train=subsets["train"], validation=subsets["validation"], test=subsets["test"])


TASKS = [small(task) for task in demo_stream()[:2]]


@pytest.mark.parametrize("backbone", ["smollm2-135m", "minilm-l6"])
def test_a_real_model_learns_two_departments(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The states of other runs do not count: what is cached here is seen below.
    monkeypatch.setattr("conpet.state.live.conpet_home", lambda: tmp_path)
    learner = ConPET.create(tmp_path / "ws", backbone=backbone, training={"epochs": 4, "batch_size": 8})
    first, second = (learner.learn(task) for task in TASKS)

    for report in (first, second):
        assert report.evaluation is not None
        assert (report.evaluation.whole_accuracy or 0) > 0.8
        assert (report.evaluation.within_task_accuracy or 0) > 0.8
    assert second.evaluation is not None
    assert (second.evaluation.selector_accuracy or 0) > 0.9
    assert second.forgetting is not None
    assert second.forgetting < 0.08
    assert 0 < second.trainable_parameters < second.backbone_parameters / 20

    examples = [example for task in TASKS for example in task.test]
    answers = learner.predict(examples)
    assert sum(
        answer.task == learner.owners[str(example.label)] for answer, example in zip(answers, examples, strict=True)
    ) > 0.9 * len(examples)
    assert all(answer.version == 1 and 0 < answer.score <= 1 for answer in answers)
    assert [answer.label for answer in ConPET.open(learner.path).predict(examples)] == [a.label for a in answers]

    with metered() as costs:
        again = learner.evaluate()
    assert again.tallies == second.evaluation.tallies
    assert costs.cache_hits == costs.cache_lookups >= len(examples)
