"""Predictions answer, ask or decline, in workspaces of every kind of input and of history."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from conpet import ConPET, Example, Task
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.testing import tiny_settings, toy_stream
from conpet.types import Prediction
from tests.helpers.workspaces import stream, workspace

_KEPT = TemporaryDirectory(prefix="conpet-refusal-")
KINDS = (Kind.TEXT, Kind.RELATION, Kind.TYPING)
LARGE = toy_stream(2, 3, 10, 8, 6)
UNKNOWN = toy_stream(8, 2, 1, 1, 1, seed=9)
"""Words of other letters."""


@cache
def _taught() -> Path:
    path = Path(_KEPT.name) / "large"
    learner = ConPET.create(path, **tiny_settings(method="logistic"))
    learner.learn_batch(LARGE, evaluate=False)
    return path


def large(folder: Path) -> ConPET:
    """Open a copy of a workspace with 48 validation examples."""
    return ConPET.open(shutil.copytree(_taught(), folder / "large"))


def unknown() -> list[Example]:
    return [example.labelled(None) for task in UNKNOWN for example in task.train]


def known() -> list[Example]:
    return [example for task in LARGE for example in task.test]


def decisions(answers: list[Prediction]) -> list[tuple[str, float, float]]:
    return [(one.decision, round(one.in_scope, 9), round(one.confidence, 9)) for one in answers]


def test_most_known_inputs_are_answered_and_most_unknown_ones_are_not(tmp_path: Path) -> None:
    learner = large(tmp_path)
    asked = known()
    answers = learner.predict([example.labelled(None) for example in asked])
    answered = [
        one.label == example.label for one, example in zip(answers, asked, strict=True) if one.decision == "answer"
    ]
    assert len(answered) > 0.6 * len(asked)
    assert sum(answered) > 0.9 * len(answered)
    others = learner.predict(unknown())
    assert sum(one.decision == "answer" for one in others) < 0.2 * len(others)
    assert sum(one.confidence > 0.9 for one in others) < 0.2 * len(others)
    assert all(one.label in learner.labels for one in others)  # the label is there for callers that want it anyway
    for one in (*answers, *others):
        assert 0 <= one.confidence <= one.in_scope <= 1
        assert (one.candidates != ()) == (one.decision == "ask")
        assert one.reason


def test_a_question_offers_candidates_that_are_right_with_the_stated_probability(tmp_path: Path) -> None:
    learner = large(tmp_path)
    learner.set_costs(error=10, question=0.01, refusal=10)
    asked = [one for one in learner.predict(known()) if one.decision == "ask"]
    assert asked
    for one in asked:
        scores = [candidate.score for candidate in one.candidates]
        assert scores == sorted(scores, reverse=True)
        assert one.candidates[0].label == one.label
        assert one.candidates_score == pytest.approx(sum(scores))
        assert f"{one.candidates_score:.2f}" in one.reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_has_its_own_scores(tmp_path: Path, kind: Kind) -> None:
    learner = workspace(tmp_path)
    tasks = {each: toy_stream(1, 2, 6, 3, 2, kind=each)[0] for each in KINDS}
    learner.learn_batch(tasks.values(), evaluate=False)
    assert {one.kind for one in learner.costs.kinds} == {str(each) for each in KINDS}
    words = [*toy_stream(4, 2, 1, 1, 1, seed=9, kind=kind)]
    others = learner.predict([example.labelled(None) for task in words for example in task.train])
    inside = learner.predict([example.labelled(None) for example in tasks[kind].train])
    assert sorted(one.in_scope for one in inside)[len(inside) // 2] > max(one.in_scope for one in others) / 2
    assert sum(one.in_scope for one in inside) / len(inside) > 2 * sum(one.in_scope for one in others) / len(others)


def test_what_was_removed_leaves_no_trace_in_the_scores(tmp_path: Path) -> None:
    one_task, both = workspace(tmp_path, 1, "one"), workspace(tmp_path, 2, "two")
    both.remove(stream()[1].name)
    texts = [stream()[0].test[0], *unknown()[:4]]
    assert [answer.in_scope for answer in both.predict(texts)] == pytest.approx(
        [answer.in_scope for answer in one_task.predict(texts)], abs=1e-6
    )


def test_a_consolidation_brings_scores_of_the_new_backbone_and_going_back_the_former_ones(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="lda")
    texts = [example.labelled(None) for example in stream()[0].train] + unknown()
    before = decisions(learner.predict(texts))
    generation = learner.store.generation()
    learner.consolidate(bound=100, evaluate=False)
    after = learner.predict(texts)
    assert decisions(after) != before
    inside, outside = ([one.in_scope for one in part] for part in (after[:16], after[16:]))
    assert sum(inside) / len(inside) > 2 * sum(outside) / len(outside)
    learner.restore(generation, evaluate=False)
    assert decisions(learner.predict(texts)) == before


def test_a_workspace_opened_again_decides_in_the_same_way(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    learner.learn(stream()[1], evaluate=False)
    texts = [stream()[0].test[0], *unknown()[:4]]
    assert decisions(ConPET.open(learner.path).predict(texts)) == decisions(learner.predict(texts))


def test_one_label_and_no_validation_example_are_enough_to_decline(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    (task,) = toy_stream(1, 2, 12, 0, 4)
    learner.learn(Task("one", task.train), evaluate=False)
    learner.retire(task.labels[1], evaluate=False)
    answers = learner.predict([example.labelled(None) for example in task.test if example.label == task.labels[0]])
    others = learner.predict(unknown())
    assert {one.score for one in (*answers, *others)} == {1.0}  # of one label, the score can say nothing
    assert min(one.in_scope for one in answers) > sorted(one.in_scope for one in others)[len(others) // 2]
    assert sum(one.decision == "answer" for one in others) < 0.3 * len(others)


def test_a_single_example_of_each_label_gets_decisions_too(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    first, second = stream()[0].train[0], stream()[0].train[-1]
    learner.learn(Task("pair", (first, second)), evaluate=False)
    (answer,) = learner.predict([first.labelled(None)])
    assert answer.in_scope > learner.predict(["completely different words"])[0].in_scope
    assert "nothing is promised: 0 held-out examples of learned labels, 20 are needed" in answer.reason


def test_few_examples_are_named_as_a_reason_to_doubt(tmp_path: Path) -> None:
    few, many = workspace(tmp_path, 1), large(tmp_path)
    assert "nothing is promised" in few.predict([stream()[0].test[0]])[0].reason
    assert "promised" not in many.predict([known()[0]])[0].reason
    assert [kind.note is None for kind in (*few.costs.kinds, *many.costs.kinds)] == [False, True]


def test_only_some_tasks_may_answer_and_the_others_are_unknown_then(tmp_path: Path) -> None:
    learner = large(tmp_path)
    first, second = LARGE
    inside, outside = (
        learner.predict([example.labelled(None) for example in task.test], tasks=[first.name])
        for task in (first, second)
    )
    assert min(sorted(one.in_scope for one in inside)[3:]) > sorted(one.in_scope for one in outside)[len(outside) // 2]
    assert {candidate.task for one in outside for candidate in one.candidates} <= {first.name}


def test_a_coverage_takes_the_place_of_costs(tmp_path: Path) -> None:
    learner = large(tmp_path)
    costs = learner.set_costs(coverage=0.9)
    assert costs.coverage == 0.9
    answers = learner.predict([example.labelled(None) for example in known()])
    hits = [
        example.label
        in {candidate.label for candidate in one.candidates} | ({one.label} if one.decision == "answer" else set())
        for one, example in zip(answers, known(), strict=True)
    ]
    assert sum(hits) >= 0.75 * len(hits)
    assert sum(one.decision == "decline" for one in learner.predict(unknown())) > 0.6 * len(unknown())
    assert learner.set_costs(error=5).coverage is None


def test_a_coverage_that_cannot_be_promised_leaves_the_decision_to_the_costs(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    costs = learner.set_costs(coverage=0.9)
    wanted = "a coverage of 0.9 cannot be promised: 19 validation examples are needed, there are 4"
    assert wanted in str(costs.kinds[0].note)
    assert wanted in learner.predict([stream()[0].test[0]])[0].reason


def test_costs_change_decisions_at_once_but_no_label_and_no_score(tmp_path: Path) -> None:
    learner = large(tmp_path)
    inputs = [*known()[:6], *unknown()]
    before = learner.predict(inputs)
    learner.set_costs(error=0.5, question=1, refusal=1)
    after = learner.predict(inputs)
    assert [(one.label, one.score) for one in after] == [(one.label, one.score) for one in before]
    assert "decline" in {one.decision for one in before}
    assert {one.decision for one in after} == {"answer"}
    learner.set_costs(unknown_share=0.9)
    assert all(now.in_scope < then.in_scope for now, then in zip(learner.predict(inputs), before, strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give what an error"),
        ({"error": 1, "coverage": 0.9}, "give either costs"),
        ({"coverage": 1.0}, "refusal.coverage"),
        ({"error": -1}, "refusal.error"),
        ({"question": float("nan")}, "refusal.question"),
    ],
)
def test_wrong_costs_are_refused(tmp_path: Path, given: dict[str, float], message: str) -> None:
    learner = workspace(tmp_path)
    with pytest.raises(ConfigError, match=message):
        learner.set_costs(**given)
    assert learner.store.generation() == 1


def test_a_rejected_answer_is_declined(tmp_path: Path) -> None:
    learner = large(tmp_path)
    texts = [known()[0]]
    (given,) = learner.predict(texts)
    assert given.decision == "answer"
    learner.set_costs(error=0)
    (rejected,) = ConPET.open(learner.path).predict(texts, min_score=1)
    assert rejected.rejected == given.label
    assert rejected.decision == "decline"
    assert "is below 1" in rejected.reason
