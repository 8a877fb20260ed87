"""What the engine takes as inputs, and which labels it answers with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conpet.data import Kind
from conpet.errors import ConfigError, DataError, UnknownNameError
from tests.helpers.workspaces import many_tasks, stream, workspace, workspace_of_many_tasks


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


METHODS: list[dict[str, Any]] = [
    {},
    {"fusion": "paper", "selector": {"name": "learned", "top_k": 2}},
    {"method": "emr"},
    {"method": "lda"},
]


@pytest.mark.parametrize("settings", METHODS, ids=str)
def test_probabilities_are_among_the_tasks_asked_for_whatever_else_is_likelier(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    learner, (first, *others) = workspace(tmp_path, 3, **settings), stream()
    text = first.train[0].text
    names = [task.name for task in others]
    (answer,) = learner.predict([text], runners_up=99, tasks=names)
    found = [answer.label, *(other.label for other in answer.runners_up)]
    assert sorted(found) == sorted(label for task in others for label in task.labels)
    assert answer.score + sum(other.score for other in answer.runners_up) == pytest.approx(1)
    assert {answer.task for answer in learner.predict([text], tasks=[first.name])} == {first.name}
    assert learner.predict([text])[0].task == first.name  # the restriction is of that call alone


def test_tasks_that_cannot_answer_are_refused(tmp_path: Path) -> None:
    learner = workspace_of_many_tasks(tmp_path)
    with pytest.raises(UnknownNameError, match="no task 'text-99' was learned"):
        learner.predict(["a"], tasks=["text-99"])
    with pytest.raises(ConfigError, match="name at least one task"):
        learner.predict(["a"], tasks=[])
    relation = next(task.name for task in many_tasks() if task.kind is Kind.RELATION)
    with pytest.raises(DataError, match="none of the given tasks takes inputs of kind text"):
        learner.predict(["a"], tasks=[relation])


@pytest.mark.parametrize("settings", METHODS, ids=str)
def test_an_explanation_names_the_tasks_the_modules_and_the_examples_behind_an_answer(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    learner, tasks = workspace(tmp_path, 3, **settings), stream()
    example = tasks[1].train[0]
    (answer,) = learner.predict([example.text], explain=True)
    why = answer.explanation
    assert why is not None
    assert {ranked.task for ranked in why.ranking} == {task.name for task in tasks}
    assert [ranked.score for ranked in why.ranking] == sorted((ranked.score for ranked in why.ranking), reverse=True)
    assert set(why.modules) <= {task.name for task in tasks}
    assert (why.modules == ()) == (settings in ({"method": "lda"}, {}))  # LDA has none; the default decides without
    nearest = why.nearest[0]
    assert (nearest.task, nearest.label, nearest.example) == (tasks[1].name, example.label, example)
    assert nearest.similarity == pytest.approx(1)
    assert answer.to_json()["explanation"]["nearest"][0]["example"]["text"] == example.text
    assert "explanation" not in learner.predict([example.text])[0].to_json()


def test_an_explanation_shows_no_text_that_is_not_stored(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, replay={"latent_only": True})
    (answer,) = learner.predict([stream()[0].train[0].text], explain=True)
    assert answer.explanation is not None
    assert [one.example for one in answer.explanation.nearest] == [None] * 3
    assert answer.explanation.nearest[0].label == stream()[0].train[0].label
