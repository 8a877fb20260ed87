"""Predictions are made of the labels of an input's own kind, however many tasks there are."""

from __future__ import annotations

from pathlib import Path

from conpet.data import Kind
from tests.helpers.workspaces import many_tasks, workspace_of_many_tasks


def test_runners_up_are_of_the_inputs_kind_also_where_the_rule_gives_labels_no_probability(tmp_path: Path) -> None:
    learner, tasks = workspace_of_many_tasks(tmp_path), many_tasks()
    for kind in (Kind.TEXT, Kind.RELATION):
        labels = sorted(label for task in tasks if task.kind is kind for label in task.labels)
        inputs = [next(task for task in tasks if task.kind is kind).test[0]]
        for answer in learner.predict(inputs, runners_up=999):
            assert sorted([answer.label, *(other.label for other in answer.runners_up)]) == labels
            assert answer.score == max([answer.score, *(other.score for other in answer.runners_up)]) > 0
