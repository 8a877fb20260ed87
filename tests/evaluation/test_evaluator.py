"""Evaluation gives the same counts as a plain loop over predictions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conpet.cost import metered
from conpet.evaluation import evaluator as evaluating
from conpet.evaluation.evaluator import evaluate
from conpet.features import CLASSIFIERS as CLOSED_FORMS
from conpet.replay.memory_writer import stored_examples
from conpet.testing import live_of, toy_stream
from conpet.types import ACCURACY, PRESELECTION_ACCURACY, SELECTOR_ACCURACY, WITHIN_TASK
from tests.helpers.live import encoded, scored
from tests.helpers.workspaces import many_tasks, stream, workspace, workspace_of_many_tasks


def test_it_counts_what_predicting_one_by_one_counts(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, selector={"top_k": 2})
    evaluation = learner.evaluate()
    for task in stream():
        tally = evaluation.tasks[task.name][ACCURACY].tally
        answers = learner.predict(list(task.test))
        right = sum(answer.label == example.label for answer, example in zip(answers, task.test, strict=True))
        assert (tally.correct, tally.total) == (right, len(task.test))


def test_selector_and_within_task_tallies_are_those_of_the_scores(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, selector={"top_k": 2})
    evaluation = learner.evaluate()
    current = live_of(learner)
    names = [task.name for task in current.state.tasks]
    for index, task in enumerate(stream()):
        scores = scored(current, task.test)
        assert scores.tasks is not None
        order = [[names[column] for column in row] for row in scores.tasks.argsort(dim=1, descending=True).tolist()]
        metrics = evaluation.tasks[task.name]
        assert metrics[SELECTOR_ACCURACY].total == sum(row[0] == task.name for row in order)
        assert metrics[PRESELECTION_ACCURACY].total == sum(task.name in row[:2] for row in order)
        assert evaluation.selector_confusion[task.name] == Counter(row[0] for row in order)
        columns = [column for column, owner in enumerate(current.state.owner.tolist()) if owner == index]
        chosen = scores.classes[:, columns].argmax(dim=1).tolist()
        within = [current.state.classes[columns[column]] for column in chosen]
        # The module of the true task is run here even where the selector left it out, so at least as many are right.
        assert metrics[WITHIN_TASK + ACCURACY].total >= sum(
            label == example.label and task.name in row[:2]
            for label, example, row in zip(within, task.test, order, strict=True)
        )


def test_references_are_the_closed_forms_over_all_labels(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    current = live_of(learner)
    examples = [example for task in stream() for example in task.test]
    features = learner.backbone.states(examples).features
    references = learner.evaluate().references
    assert references.keys() == {"nearest-mean", "lda", "ridge", "logistic"}
    for name, tally in references.items():
        best = (
            CLOSED_FORMS[name]()
            .fit(current.method.statistics(current.state.refitted))
            .scores(features)
            .argmax(dim=1)
            .tolist()
        )
        right = sum(
            current.state.classes[column] == example.label for column, example in zip(best, examples, strict=True)
        )
        assert (tally.total, tally.n) == (right, len(examples))


def test_references_and_the_rule_are_over_all_labels_of_a_kind_however_many_tasks_there_are(tmp_path: Path) -> None:
    learner = workspace_of_many_tasks(tmp_path)
    current = live_of(learner)
    references = learner.evaluate().references
    right: Counter[str] = Counter()
    for task in many_tasks():
        inputs = encoded(current, task.test)
        scores = current.method.score(current.state.refitted, inputs, task.kind).classes
        assert torch.equal(scores > -torch.inf, (~current.state.impossible(task.kind)).expand_as(scores))
        columns = [column for column, label in enumerate(current.state.classes) if label.startswith(task.kind)]
        features = inputs[task.template].features
        for name in references:
            best = (
                CLOSED_FORMS[name]()
                .fit(current.method.statistics(current.state.refitted))
                .scores(features)[:, columns]
                .argmax(dim=1)
                .tolist()
            )
            found = [current.state.classes[columns[index]] for index in best]
            right[name] += sum(label == one.label for label, one in zip(found, task.test, strict=True))
    assert {name: tally.total for name, tally in references.items()} == right


def test_the_size_of_the_chunks_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = workspace(tmp_path, 2)
    live = live_of(made)
    tests = {task.name: stored_examples(task.active) for task in made.tasks}
    done: list[int] = []
    whole = evaluate(live.method, live.state, tests)
    monkeypatch.setattr(evaluating, "CHUNK", 3)
    assert evaluate(live.method, live.state, tests, done.append) == whole
    assert (sum(done), max(done)) == (16, 3)


def test_tasks_without_test_examples_are_left_out(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    report = learner.learn(replace(stream()[1], test=()))
    assert report.evaluation is not None
    assert report.evaluation.tasks.keys() == {stream()[0].name}
    assert sum(sum(row.values()) for row in report.evaluation.selector_confusion.values()) == len(stream()[0].test)


def test_labels_of_other_kinds_do_not_compete_in_the_references(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    for task in toy_stream(1, 2, 8, 0, 4, kind=stream()[0].kind.RELATION):
        learner.learn(task)
    references = learner.evaluate().references
    assert all(tally.n == 16 for tally in references.values())
    assert max(tally.total for tally in references.values()) > 10


def test_evaluating_changes_nothing_and_uses_the_cache(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first = learner.evaluate()
    generation = learner.store.generation()
    with metered() as costs:
        assert learner.evaluate() == first
    assert learner.store.generation() == generation
    assert (costs.tokens, costs.cached_tokens > 0) == (0, True)  # prefix states from the cache, logits from memory


def test_answers_of_a_state_are_not_mixed_up_with_those_of_the_next(tmp_path: Path) -> None:
    """Cached outputs belong to a module: a new version is another module."""
    learner = workspace(tmp_path, 2)
    first = stream()[0]
    current = live_of(learner)
    inputs = encoded(current, first.test)
    owners = torch.zeros(len(first.test), dtype=torch.int64)
    before = current.method.within_task(current.state, inputs, owners)
    learner.learn(replace(first, train=first.train[::2]), evaluate=False)
    now = live_of(learner)
    after = current.method.within_task(now.state, inputs, owners)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, now.method.within_task(now.state, inputs, owners))
    assert torch.equal(before, current.method.within_task(current.state, inputs, owners))
