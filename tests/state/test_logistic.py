"""The logistic regression of a state, trained task by task on a bounded number of examples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conpet.artifact import Artifact, InMemoryObject
from conpet.data import Kind
from conpet.features.feature_map import FeatureMap, View
from conpet.features.statistics import ClassSums
from conpet.state import logistic
from conpet.state.logistic import LogisticTrainer, Rows
from conpet.state.slots import MODULE
from conpet.state.state import TaskState
from conpet.state.statistics import statistics_tensors

WIDTH, LABELS, EXAMPLES = 16, 3, 30


def tasks(count: int, seed: int) -> list[Rows]:
    """Return tasks with the same overlapping clusters, and examples by the seed."""
    centres = torch.randn(count, LABELS, WIDTH, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(count, LABELS, EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(seed))
    points = torch.nn.functional.normalize(centres.unsqueeze(2) + 1.2 * noise, dim=3) * WIDTH**0.5
    feature_map = FeatureMap(WIDTH, WIDTH, 0, views=(View.RAW,))
    made = []
    for number in range(count):
        classes = [f"{number} {label}" for label in range(LABELS) for _ in range(EXAMPLES)]
        features = points[number].flatten(0, 1)
        sums = ClassSums.of(feature_map, features, classes)
        stored = InMemoryObject(Artifact(tensors=statistics_tensors(sums, (features, classes))))
        task = TaskState(f"task {number}", 1, sums.labels, Kind.TEXT, None, objects={MODULE: stored})
        made.append(Rows.stored(task))
    return made


def accuracy_after(learned: list[Rows], asked: list[Rows]) -> float:
    """Return the accuracy of training task by task."""
    trainer, weights = LogisticTrainer(), {}
    for number, rows in enumerate(learned, start=1):
        weights = trainer.train(weights, learned[:number], [rows.name], {Kind.TEXT}, block=WIDTH, seed=0)
    (last,) = weights.values()
    features = torch.cat([rows.read()[0] for rows in asked])
    answers = [last.labels[column] for column in last.logits(features).argmax(dim=1).tolist()]
    truth = [label for rows in asked for label in rows.read()[1]]
    return sum(answer == label for answer, label in zip(answers, truth, strict=True)) / len(truth)


@pytest.mark.parametrize("size", [3, 4])
def test_large_tasks_cost_little_accuracy_when_only_a_part_of_the_examples_takes_part(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw of whole tasks would train new labels against few of the others only."""
    learned, asked = tasks(12, seed=1), tasks(12, seed=2)
    everything = accuracy_after(learned, asked)
    assert everything > 0.7
    monkeypatch.setattr(logistic, "MAX_EXAMPLES", size * LABELS * EXAMPLES)
    assert accuracy_after(learned, asked) > everything - 0.1


def test_of_very_many_tasks_some_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    learned, asked = tasks(12, seed=1), tasks(12, seed=2)
    everything = accuracy_after(learned, asked)
    monkeypatch.setattr(logistic, "MAX_EXAMPLES", 4 * LABELS * EXAMPLES)
    monkeypatch.setattr(logistic, "MAX_OTHERS", 7)
    assert accuracy_after(learned, asked) > everything - 0.1


@pytest.mark.parametrize(("kind", "weighs_more"), [(Kind.TEXT, True), (Kind.RELATION, False), (Kind.TYPING, False)])
def test_the_last_layer_weighs_more_for_plain_text_only(kind: Kind, weighs_more: bool) -> None:
    """Blocks of relations and mentions are not depths of the whole text."""
    (rows,) = tasks(1, seed=1)
    rows = rows._replace(task=replace(rows.task, kind=kind))
    with_last, without = (
        LogisticTrainer().train({}, [rows], [rows.name], {kind}, block=WIDTH // 2, last_layer=last_layer, seed=0)[kind]
        for last_layer in (True, False)
    )
    shares = [
        weights.weight[WIDTH // 2 :].square().sum() / weights.weight.square().sum() for weights in (with_last, without)
    ]
    assert bool(shares[0] > shares[1] + 0.1) is weighs_more
    assert bool(shares[0] == shares[1]) is not weighs_more
