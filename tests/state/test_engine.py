"""What the engine takes as inputs, and which labels it answers with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conpet.data import Example, Kind, Span
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError
from conpet.types import Prediction
from tests.helpers.workspaces import many_tasks, stream, workspace, workspace_of_many_tasks


def test_runners_up_are_of_the_inputs_kind_also_where_the_rule_gives_labels_no_probability(tmp_path: Path) -> None:
    learner, tasks = workspace_of_many_tasks(tmp_path), many_tasks()
    for kind in (Kind.TEXT, Kind.RELATION):
        labels = sorted(label for task in tasks if task.kind is kind for label in task.labels)
        inputs = [next(task for task in tasks if task.kind is kind).test[0]]
        for answer in learner.predict(inputs, top_n=999):
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
    assert caught.value.summary == "6 of 7 inputs cannot be predicted; correct or remove them"
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
        with pytest.raises(DataError, match=r"put it into a list: watch\(\[\.\.\.\]\)"):
            learner.watch(single)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"put it into a list: forget\(\[\.\.\.\]\)"):
            learner.forget(single)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="predict takes a list of inputs, not None"):
        learner.predict(None)  # type: ignore[arg-type]
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
    (answer,) = learner.predict([text], top_n=99, tasks=names)
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
    with pytest.raises(ConfigError, match="tasks='text-0': give a list of names"):
        learner.predict(["a"], tasks="text-0")
    relation = next(task.name for task in many_tasks() if task.kind is Kind.RELATION)
    (problem,) = learner.predict(["a"], tasks=[relation], on_error="report")
    assert "but the given tasks are of kind relation" in str(problem)


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


LONG = Example.of_relation(["word"] * 600, Span(0, 300), Span(300, 600), id="long")
RELATION = Example.of_relation(["Ada", "ran"], Span(0, 1), Span(1, 2))


def test_each_input_that_cannot_be_predicted_has_its_problem(tmp_path: Path) -> None:
    learner = workspace_of_many_tasks(tmp_path)
    inputs = ["a b", " ", LONG, RELATION, None]
    with pytest.raises(DataError, match="3 of 5 inputs cannot be predicted") as raised:
        learner.predict(inputs)  # type: ignore[arg-type]
    problems = sorted(raised.value.problems, key=lambda problem: problem.row or 0)
    assert [(problem.row, problem.id) for problem in problems] == [(2, None), (3, "long"), (5, None)]
    assert problems[0].reason == "empty text"
    assert "raise backbone.max_tokens" in problems[1].reason
    assert learner.check_inputs(inputs) == problems  # type: ignore[arg-type]
    reported = learner.predict(inputs, on_error="report")  # type: ignore[arg-type]
    assert [isinstance(one, Problem) for one in reported] == [False, True, True, False, True]
    skipped = learner.predict_stream(iter(inputs), on_error="skip")  # type: ignore[arg-type]
    assert list(skipped) == [one for one in reported if isinstance(one, Prediction)]


def test_a_stream_numbers_its_inputs_from_the_first(tmp_path: Path) -> None:
    unread = Problem("in.jsonl", 7, "not valid JSON")
    found = workspace(tmp_path, 1).predict_stream(["a b"] * 300 + [RELATION, unread], on_error="report")
    assert [one for one in found if isinstance(one, Problem)] == [
        Problem("inputs", 301, "is of kind relation, but the tasks are of kind text"),
        unread,
    ]


def test_an_answer_below_the_least_score_is_rejected_but_kept(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    (given,), (rejected,) = learner.predict(["a b"]), learner.predict(["a b"], min_score=1.0)
    assert (given.rejected, given.answer) == (None, given.label)
    assert (rejected.label, rejected.answer, rejected.rejected) == (None, None, given.label)
    assert (rejected.score, rejected.runners_up) == (given.score, given.runners_up)
    assert rejected.to_json()["rejected"] == given.label
    assert "rejected" not in given.to_json()
