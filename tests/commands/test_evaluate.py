"""Evaluations by label, on stored test examples and on examples of the caller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Example, Task
from conpet.commands.report import report_data
from conpet.commands.rows import stored_answers
from conpet.data import Kind, Span
from conpet.errors import DataError, Problem
from conpet.evaluation.metrics import backward_transfer, forgetting
from conpet.testing import toy_stream
from tests.helpers.workspaces import files_with, stream, workspace


def swapped(number: int) -> Any:
    """Return a task of the stream in which one test example has the other label: its answer is wrong."""
    task = stream()[number]
    wrong = replace(task.test[0], label=task.labels[1])
    assert task.test[0].label != wrong.label
    return replace(task, test=(wrong, *task.test[1:]))


def test_answers_are_those_of_predictions_with_the_inputs_of_the_wrong_ones(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    learner.learn(swapped(1))
    evaluation = learner.evaluate()
    tests = {"text-0": stream()[0].test, "text-1": swapped(1).test}
    for task, examples in tests.items():
        answers = [one for one in evaluation.answers if one.task == task]
        predictions = learner.predict(list(examples))
        assert [one.row for one in answers] == list(range(1, len(examples) + 1))
        assert [one.label for one in answers] == [example.label for example in examples]
        assert [one.answer for one in answers] == [prediction.label for prediction in predictions]
        assert [one.score for one in answers] == pytest.approx([one.score for one in predictions], abs=1e-4)
        for one, example in zip(answers, examples, strict=True):
            assert one.input == (None if one.correct else example.text)
    assert any(one.row == 1 and one.task == "text-1" for pair in evaluation.confusion for one in pair.examples)
    assert sum(score.correct for score in evaluation.labels.values()) / 16 == evaluation.whole_accuracy


def test_answers_are_stored_until_they_may_differ(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    report = learner.learn(swapped(1))
    assert report.evaluation is not None
    with learner.store.snapshot() as snapshot:
        stored = stored_answers(snapshot)
    assert [replace(one, score=0.0) for one in stored] == [replace(one, score=0.0) for one in report.evaluation.answers]
    assert [one.score for one in stored] == pytest.approx([one.score for one in report.evaluation.answers], abs=1e-6)
    results = report_data(learner.store).label_results
    assert results is not None
    assert results.confusion[0].examples[0].text == next(one.input for one in stored if not one.correct)
    learner.rename(stream()[0].labels[0], "other", evaluate=False)
    assert report_data(learner.store).label_results is None
    learner.rename("other", "another")
    renamed = report_data(learner.store).label_results
    assert renamed is not None
    assert "another" in {row.label for row in renamed.label_scores}
    learner.remove("text-0", evaluate=False)
    assert files_with(learner, "another") == []


def test_a_workspace_without_texts_tells_only_the_rows(tmp_path: Path) -> None:
    learner = workspace(tmp_path, replay={"latent_only": True})
    learner.learn(swapped(0))
    (pair, *_) = learner.evaluate().confusion
    assert (pair.examples[0].row, pair.examples[0].input) == (1, None)
    results = report_data(learner.store).label_results
    assert results is not None
    assert results.confusion[0].examples[0].text is None


def test_forgetting_is_that_of_the_history(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    report = learner.learn(stream()[2])
    for evaluation in (report.evaluation, learner.evaluate()):
        assert evaluation is not None
        assert evaluation.forgetting == forgetting(evaluation.matrix) == report.forgetting
        assert evaluation.backward_transfer == backward_transfer(evaluation.matrix) == report.backward_transfer
    assert "(on 16 test examples of older tasks)" in str(report)
    removed = learner.remove(stream()[2].name)
    assert removed is not None
    assert removed.matrix.rows[-1].tallies.keys() == {"text-0", "text-1"}
    assert learner.evaluate(list(stream()[0].test)).forgetting is None


def test_a_task_without_test_examples_says_so(tmp_path: Path) -> None:
    report = workspace(tmp_path, 1).learn(replace(stream()[1], test=()))
    assert "no accuracy: task text-1 has no test examples" in str(report)


# Examples of the caller


@pytest.fixture
def learner(tmp_path: Path) -> ConPET:
    return workspace(tmp_path, 2)


def test_examples_of_the_caller_are_measured_like_test_examples_and_nothing_is_stored(learner: ConPET) -> None:
    generation = learner.store.generation()
    tests = [example for task in stream()[:2] for example in task.test]
    stored, found = learner.evaluate(), learner.evaluate(reversed(tests))
    assert (found.tasks, found.references, found.selector_confusion) == (
        stored.tasks,
        stored.references,
        stored.selector_confusion,
    )
    assert found.labels == stored.labels
    assert [one.label for one in found.answers] == [example.label for example in reversed(tests)]
    assert [one.row for one in found.answers] == list(range(1, 17))
    assert learner.store.generation() == generation


def test_labels_that_were_not_learned_are_told_apart(learner: ConPET) -> None:
    known = list(stream()[0].test)
    found = learner.evaluate([Example.of_text("strange", "nope"), *known])
    assert found.whole_accuracy == learner.evaluate(known).whole_accuracy
    assert [one.row for one in found.answers] == list(range(2, 10))
    (strange,) = found.unknown
    assert (strange.row, strange.label, strange.task, strange.input) == (1, "nope", None, "strange")
    assert strange.answer == learner.predict(["strange"])[0].label


def test_spans_are_evaluated_with_texts(learner: ConPET) -> None:
    (relations,) = toy_stream(1, 2, 8, 0, 4, kind=Kind.RELATION)
    learner.learn(relations, evaluate=False)
    found = learner.evaluate([*relations.test, *stream()[0].test])
    assert found.tasks.keys() == {relations.name, "text-0"}
    assert found.tallies[relations.name].total == len(relations.test)
    wrong_kind = replace(relations.test[0], label=stream()[0].labels[0])
    with pytest.raises(
        DataError, match=r"is a relation example, but its label .* belongs to task 'text-0' of kind text"
    ):
        learner.evaluate([wrong_kind])


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([Example.of_text("a"), Example.of_text("", "text-0-0")], "2 of 2 examples cannot be evaluated"),
        ([Example.of_text("a", "nope")], "no example has a label that the workspace has learned .*check the spelling"),
        ([Example.of_relation(("a", "b"), Span(0, 1), Span(1, 2), "nope")], "no task of that kind was learned"),
        ([], "give at least one labelled example"),
        (["a"], "1 of 1 example cannot be evaluated.*\n.*row 1: missing label"),
        (
            [None, {"label": "text-0-0"}, Problem("f", 3, "bad")],
            "3 of 3 .*\n.*1: is None;.*\n.*2: missing text.*\n.*3: bad",
        ),
        ("text", "evaluate takes labelled examples, not a str"),
        (Example.of_text("a", "b"), "evaluate takes labelled examples, not a Example"),
    ],
)
def test_wrong_examples_are_refused_and_all_are_named(learner: ConPET, examples: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        learner.evaluate(examples)


def test_rows_are_evaluated_like_examples_and_numbers_are_labels(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    train = [{"Text": f"{word} {at}", "LABEL": at % 2} for at in range(8) for word in ("open", "close")]
    learner.learn(Task("numbers", train=train), evaluate=False)  # type: ignore[arg-type]
    rows = [{"text": "open 1", "label": 1}, Example.of_text("open 2", 0), Example.of_text("x", "0")]  # type: ignore[arg-type]
    found = learner.evaluate(rows)  # type: ignore[arg-type]
    assert [(one.row, one.label) for one in found.answers] == [(1, "1"), (2, "0"), (3, "0")]
    learner.rename(1, 7, evaluate=False)  # type: ignore[arg-type]
    assert learner.owners == {"0": "numbers", "7": "numbers"}


def test_inputs_that_do_not_fit_are_named_by_their_numbers(learner: ConPET) -> None:
    (relations,) = toy_stream(1, 2, 8, 0, 4, kind=Kind.RELATION)
    learner.learn(relations, evaluate=False)
    long = Example.of_relation(("word",) * 900, Span(0, 1), Span(1, 900), relations.labels[0])
    with pytest.raises(DataError, match="2 of 6 examples cannot be evaluated") as caught:
        learner.evaluate([long, *relations.test[:4], long])
    assert [problem.row for problem in caught.value.problems] == [1, 6]
    assert all("more than the limit" in problem.reason for problem in caught.value.problems)


# Inputs longer than max_tokens


def test_cut_inputs_are_said_when_learning_predicting_and_evaluating(tmp_path: Path) -> None:
    learner = workspace(tmp_path, backbone={"max_tokens": 60})
    task = stream()[0]
    long = replace(task.train[0], text=f"{'word ' * 20}{task.train[0].text}")
    tests = (replace(task.test[0], text=f"{'word ' * 20}{task.test[0].text}"), *task.test[1:])
    report = learner.learn(replace(task, train=(long, *task.train[1:]), test=tests))
    (note,) = report.notes
    needed = len(learner.backbone.encode([long])[0].ids) + learner.backbone.encode([long])[0].cut
    assert note == (
        f"1 of 16 training examples was cut to 60 tokens (the longest has {needed}); a workspace made with "
        f"`conpet init --set backbone.max_tokens={needed}` reads them whole"
    )
    assert report_data(learner.store).tasks[0].notes == (note,)
    evaluation = learner.evaluate()
    assert (evaluation.cut.total, evaluation.cut.cut) == (8, 1)
    whole, cut = learner.predict([task.test[1].text, tests[0].text])
    assert (whole.cut_tokens, cut.cut_tokens) == (0, evaluation.cut.most)
    assert (cut.to_json()["cut_tokens"], "cut_tokens" in whole.to_json()) == (cut.cut_tokens, False)
    too_long = learner.predict(["a" * 600])
    assert "the backbone reads at most 512 tokens (`conpet init --set backbone.max_tokens=512`)" in str(
        learner.cut_note(evaluation.cut.of(one.cut_tokens for one in too_long))
    )
