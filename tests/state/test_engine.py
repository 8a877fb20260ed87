"""What the engine takes as inputs, and which labels it answers with."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.data import Example, Kind
from conpet.errors import ConfigError, DataError
from tests.helpers.workspaces import many_tasks, stream, workspace, workspace_of_many_tasks


def test_runners_up_are_of_the_inputs_kind_also_where_the_rule_gives_labels_no_probability(tmp_path: Path) -> None:
    learner, tasks = workspace_of_many_tasks(tmp_path), many_tasks()
    for kind in (Kind.TEXT, Kind.RELATION):
        labels = sorted(label for task in tasks if task.kind is kind for label in task.labels)
        inputs = [next(task for task in tasks if task.kind is kind).test[0]]
        for answer in learner.predict(inputs, runners_up=999):
            assert sorted([answer.label, *(other.label for other in answer.runners_up)]) == labels
            assert answer.score == max([answer.score, *(other.score for other in answer.runners_up)]) > 0


def test_mappings_with_the_fields_of_a_row_are_inputs(tmp_path: Path) -> None:
    learner, text = workspace(tmp_path, 1), stream()[0].test[0].text
    by_mapping = learner.predict([{"text": text, "label": ["several", "labels"], "id": 3}, Example.of_text(text, "x")])
    assert by_mapping == learner.predict([text, text])


def test_what_is_not_an_input_or_a_task_is_refused_with_what_to_give(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    wrong = ["a b", None, 1, b"x", {"label": "x"}, {"text": 3}, " "]
    with pytest.raises(DataError) as caught:
        learner.predict(wrong)  # type: ignore[arg-type]
    assert caught.value.summary == "6 of 7 inputs cannot be predicted"
    give = 'give a text, a conpet.Example, or a mapping such as {"text": "..."}'
    assert [(one.row, one.reason) for one in caught.value.problems] == [
        (2, f"is None; {give}"),
        (3, f"is of type int; {give}"),
        (4, f"is of type bytes; {give}"),
        (5, "missing text (or tokens with head and tail, or with mention)"),
        (6, "text must be text, not 3"),
        (7, "empty text"),
    ]
    for single in ("text", b"text", {"text": "x"}, Example.of_text("x")):
        with pytest.raises(DataError, match=r"put it into a list: predict\(\[\.\.\.\]\)"):
            learner.predict(single)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="predict takes a list of inputs, not None"):
        learner.predict(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"a str is not a task; read one from files with conpet\.read_task\(path\)"):
        learner.learn("tasks/cards.csv")  # type: ignore[arg-type]
    message = r"a str is not examples or a task; read one from files with conpet\.read_examples\(path\)"
    with pytest.raises(ConfigError, match=message):
        learner.extend("tasks/cards.csv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        learner.split_label(learner.labels[0], "tasks/cards.csv")  # type: ignore[arg-type]
