"""What the engine takes as inputs, and which labels it answers with."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.data import Kind
from conpet.errors import ConfigError, DataError
from tests.helpers.workspaces import many_tasks, workspace, workspace_of_many_tasks


def test_runners_up_are_of_the_inputs_kind_also_where_the_rule_gives_labels_no_probability(tmp_path: Path) -> None:
    learner, tasks = workspace_of_many_tasks(tmp_path), many_tasks()
    for kind in (Kind.TEXT, Kind.RELATION):
        labels = sorted(label for task in tasks if task.kind is kind for label in task.labels)
        inputs = [next(task for task in tasks if task.kind is kind).test[0]]
        for answer in learner.predict(inputs, runners_up=999):
            assert sorted([answer.label, *(other.label for other in answer.runners_up)]) == labels
            assert answer.score == max([answer.score, *(other.score for other in answer.runners_up)]) > 0


def test_what_is_not_an_input_or_a_task_is_refused_with_what_to_give(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    with pytest.raises(DataError, match=r"input 2 is a NoneType; give texts or conpet\.Example objects"):
        learner.predict(["a b", None])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"a str is not a task; read one from files with conpet\.read_task\(path\)"):
        learner.learn("tasks/cards.csv")  # type: ignore[arg-type]
    message = r"a str is not examples or a task; read one from files with conpet\.read_examples\(path\)"
    with pytest.raises(ConfigError, match=message):
        learner.extend("tasks/cards.csv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        learner.split_label(learner.labels[0], "tasks/cards.csv")  # type: ignore[arg-type]
