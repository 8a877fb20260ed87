"""The gate: changes that make earlier answers worse are not made, but kept as candidates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Task
from conpet.commands.overruled import overruled
from conpet.data import Examples
from conpet.errors import CandidateOutdatedError, ConfigError, GateRefusedError, UnknownNameError
from conpet.evaluation.gate import GateReport, Level, Verdict
from conpet.state.slots import HELD_OUT
from conpet.store import Change
from conpet.testing import ask, toy_stream
from conpet.testing.checks import require_same
from tests.helpers.gate import BROKEN, FIRST, SECOND, TAKER, THIRD, harmful, larger, learned
from tests.helpers.workspaces import files_with, frozen_state, stream, workspace

TEXTS = [example.text for task in (FIRST, SECOND, THIRD) for example in task.test]
STRICT = {"label_margin": 0, "task_margin": 0, "whole_margin": 0, "require_proof": True}


def test_a_learn_that_takes_the_answers_of_an_old_label_is_refused_and_says_who_takes_them(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    before = ask(learner, TEXTS)
    with frozen_state(learner), pytest.raises(GateRefusedError) as refused:
        learner.learn(harmful(), evaluate=False)
    require_same(before, ask(learner, TEXTS), "after the refusal")
    report = refused.value.report
    (label,) = [one for one in report.broken if one.level is Level.LABEL and one.name == BROKEN]
    assert (label.task, label.n, label.right_after) == (FIRST.name, 20, 0)
    assert [(taker.label, taker.task, taker.new) for taker in label.takers] == [(TAKER, "harmful", True)]
    assert f"'{TAKER}' (new)" in str(refused.value)
    assert f"conpet promote {learner.path} 1 --no-gate" in str(refused.value)
    (record,) = learner.candidates
    assert (record.number, record.verb, record.outdated) == (1, "learn", False)


def test_the_report_of_a_candidate_has_the_inputs_whose_answers_change(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    with pytest.raises(GateRefusedError) as refused:
        learner.learn(harmful(), evaluate=False)
    report = ConPET.open(learner.path).gate_report()
    assert report.title == "learn 'harmful'"
    lost = [pair for pair in report.changed if pair.lost and pair.before.label == BROKEN]
    texts = [one.text for one in FIRST.validation if one.label == BROKEN]
    assert sorted(str(pair.before.input) for pair in lost) == sorted(texts)
    assert {pair.after.answer for pair in lost} == {TAKER}
    assert report.compared == report.available == 120
    assert report.comparisons == refused.value.report.comparisons
    assert GateReport.from_json(json.loads(json.dumps(report.to_json()))).comparisons == report.comparisons


def test_a_refused_change_can_be_made_later_by_another_process_and_the_history_tells(tmp_path: Path) -> None:
    learner, direct = learned(tmp_path), learned(tmp_path, "direct")
    with pytest.raises(GateRefusedError):
        learner.learn(harmful())
    direct.learn(harmful(), gate=False)
    assert direct.store.events()[-1].detail["gate"] == {"verdict": "off"}
    other = ConPET.open(learner.path)
    with frozen_state(other), pytest.raises(GateRefusedError, match="It stays candidate 1"):
        other.promote()
    report = other.promote(1, gate=False)
    assert report.refused
    event = other.store.events()[-1]
    assert (event.verb, event.task, event.version) == ("learn", "harmful", 1)
    assert {"verdict": "off", "promoted": 1, "broken": len(report.broken)}.items() <= event.detail["gate"].items()
    require_same(ask(direct, TEXTS), ask(learner, TEXTS), "the change that was refused")
    assert other.store.verify() == []
    assert other.candidates == []
    assert [metric.value for metric in event.metrics] == [one.value for one in direct.store.events()[-1].metrics]


def test_a_candidate_can_be_judged_by_other_margins(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    with pytest.raises(GateRefusedError):
        learner.learn(harmful(), evaluate=False)
    wide = {"label_margin": 99, "task_margin": 90, "whole_margin": 90}
    assert learner.gate_report(settings={"task_margin": 90}).refused
    assert not learner.gate_report(settings=wide).refused
    with pytest.raises(ConfigError, match="unknown setting 'margin'"):
        learner.promote(settings={"margin": 90})
    assert not learner.promote(settings=wide).refused
    assert learner.store.events()[-1].detail["gate"]["settings"] == wide
    assert "harmful" in [task.name for task in learner.tasks]


def test_a_candidate_is_outdated_once_the_workspace_changes_and_its_examples_are_gone(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    with pytest.raises(GateRefusedError):
        learner.learn(harmful(), evaluate=False)
    word = harmful().train[0].text
    assert files_with(learner, word)
    learner.rename(SECOND.labels[0], "another name", evaluate=False)
    assert not files_with(learner, word)
    assert [record.outdated for record in learner.candidates] == [True]
    with pytest.raises(CandidateOutdatedError, match="Make the change again"):
        learner.promote(1, gate=False)
    with pytest.raises(UnknownNameError, match="no candidate for the present generation"):
        learner.gate_report()


def test_the_same_change_replaces_its_candidate_and_a_candidate_can_be_discarded(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    for _ in range(2):
        with pytest.raises(GateRefusedError):
            learner.learn(harmful(), evaluate=False)
    assert [record.number for record in learner.candidates] == [2]
    learner.discard(2)
    assert learner.candidates == []
    assert not files_with(learner, harmful().train[0].text)
    with pytest.raises(UnknownNameError, match="no candidate 2"):
        learner.discard(2)


def test_an_ordinary_learn_passes_and_its_report_says_what_was_compared(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    report = learner.learn(THIRD, evaluate=False)
    assert report.gate is not None
    assert (report.gate.refused, report.gate.compared, report.gate.tasks) == (False, 120, (THIRD.name,))
    assert report.gate.note is not None
    assert "too few held-out examples" in report.gate.note
    assert learner.store.events()[-1].detail["gate"]["examples"] == 120
    after = ConPET.open(learner.path).learn(larger(THIRD), evaluate=False)
    assert after.gate is not None
    assert after.gate.compared == 180


def test_present_answers_are_computed_once_for_each_generation(tmp_path: Path) -> None:
    """After a change without the gate they are unknown: the next one computes them again."""
    learner, other = learned(tmp_path), learned(tmp_path, "other")
    other.rename(SECOND.labels[0], "another name", evaluate=False, gate=False)
    reports = [one.learn(THIRD, evaluate=False) for one in (learner, other)]
    tokens = [sum(cost.tokens + cost.cached_tokens for cost in one.cost if cost.stage == "gate") for one in reports]
    assert [one.gate and one.gate.compared for one in reports] == [120, 120]
    assert 0 < tokens[0] < 0.8 * tokens[1]


def test_corrected_labels_and_examples_that_became_training_examples_are_not_compared(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    first, second, *others = SECOND.validation
    corrected = replace(
        SECOND,
        train=(*SECOND.train, second),
        validation=(first.labelled(SECOND.labels[-1]), *others),
    )
    report = learner.learn(corrected, evaluate=False)
    assert report.gate is not None
    assert (report.gate.left_out, report.gate.compared) == (2, 118)
    assert "2 of 120 held-out examples were not compared" in (report.gate.remark or "")
    assert report.gate.summary()["left_out"] == 2


def _mislabelled() -> Task:
    """Return other inputs of the second task, each with the label of another."""
    known = {one.input_key for subset in (SECOND.train, SECOND.validation, SECOND.test) for one in subset}
    other = dict(zip(SECOND.labels, (*SECOND.labels[1:], SECOND.labels[0]), strict=True))
    rows = [one for one in toy_stream(3, 3, 60, 20, 4)[1].train if one.input_key not in known]
    wrong = [one.labelled(other[str(one.label)]) for one in rows]
    return Task(SECOND.name, tuple(wrong[::2]), tuple(wrong[1::2]), ())


def test_going_back_from_a_bad_version_passes_and_compares_the_examples_of_the_good_one(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    consolidated = learner.consolidate(bound=100.0, settings={"epochs": 1}, evaluate=False, gate=False)
    learner.learn(_mislabelled(), evaluate=False, gate=False)
    for back in (
        lambda: learner.rollback(SECOND.name, 1, evaluate=False).gate,
        lambda: learner.restore(consolidated.replaced, evaluate=False),
    ):
        back()
        gate = learner.store.events()[-1].detail["gate"]
        assert (gate["verdict"], gate["broken"], gate["examples"]) == ("passed", 0, 120)
        assert gate["changed"] >= 30  # of 60 of the task
        learner.learn(_mislabelled(), evaluate=False, gate=False)
    _with_gate(learner, STRICT)
    with pytest.raises(GateRefusedError):
        learner.rollback(SECOND.name, 1, evaluate=False)
    report = learner.gate_report()
    assert report.versions == {SECOND.name: 1}
    good, bad = ({one.text for one in task.validation} for task in (SECOND, _mislabelled()))
    changed = {pair.before.input for pair in report.changed}
    assert len(changed & good) >= 30
    assert not changed & (bad - good)
    assert changed <= good | {one.text for one in FIRST.validation}


def test_examples_that_the_bad_version_was_trained_on_are_not_compared_when_going_back(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    learner.learn(replace(SECOND, train=SECOND.validation, validation=SECOND.train), evaluate=False, gate=False)
    report = learner.rollback(SECOND.name, 1, evaluate=False)
    assert report.gate is not None
    assert (report.gate.left_out, report.gate.compared) == (60, 60)


def test_going_back_to_a_version_that_harms_another_task_is_refused(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    learner.learn(harmful(), evaluate=False, gate=False)
    rows = [one.labelled(f"zz {one.label}" if one.label != THIRD.labels[0] else TAKER) for one in THIRD.train]
    learner.learn(Task("harmful", tuple(rows), (), ()), evaluate=False)
    with pytest.raises(GateRefusedError) as refused:
        learner.rollback("harmful", 1, evaluate=False)
    assert BROKEN in [one.name for one in refused.value.report.broken]


def test_a_change_made_against_the_gate_stands_until_it_is_undone(tmp_path: Path) -> None:
    learner = learned(tmp_path)
    _with_gate(learner, STRICT)
    with pytest.raises(GateRefusedError):
        learner.learn(_mislabelled(), evaluate=False)
    learner.promote(gate=False)
    learner.rename(FIRST.labels[0], "another name", evaluate=False, gate=False)
    (event,) = overruled(learner.store)
    assert (event.verb, event.task, event.version) == ("learn", SECOND.name, 2)
    assert event.detail["gate"]["fell"]["task"] >= 1
    learner.rollback(SECOND.name, 1, evaluate=False, gate=False)
    assert overruled(learner.store) == []


def test_too_few_examples_are_accepted_unless_proof_is_required(tmp_path: Path) -> None:
    settings = learned(tmp_path).settings.changed({"gate.require_proof": True})
    strict = ConPET.create(tmp_path / "strict", **settings.model_dump(mode="json", exclude_unset=True))
    strict.learn(FIRST, evaluate=False)
    with pytest.raises(GateRefusedError) as refused:
        strict.learn(SECOND, evaluate=False)
    assert {one.verdict for one in refused.value.report.comparisons} <= {Verdict.HELD, Verdict.NOT_PROVEN}
    assert f"conpet promote {strict.path} 1 --set require_proof=false` makes the change without" in str(refused.value)
    assert "--no-gate" not in str(refused.value)  # which would end the margins, too
    assert not strict.promote(settings={"require_proof": False}).refused
    assert [task.name for task in strict.tasks] == [FIRST.name, SECOND.name]


def test_of_a_sample_the_labels_most_like_the_new_ones_are_compared_in_full(tmp_path: Path) -> None:
    learner = _with_gate(learned(tmp_path), {"examples": 12})
    with pytest.raises(GateRefusedError) as refused:
        learner.learn(harmful(), evaluate=False)
    report = refused.value.report
    assert BROKEN in [one.name for one in report.broken]
    assert report.available == 120
    learner.promote(gate=False)
    later = learner.remove("harmful", evaluate=False)
    assert later is None
    assert learner.store.events()[-1].detail["gate"]["examples"] == 12


CHANGES: dict[str, Callable[..., Any]] = {
    "rollback": lambda one, **how: one.rollback(SECOND.name, 1, **how),
    "retire": lambda one, **how: one.retire(FIRST.labels[0], **how),
    "merge": lambda one, **how: one.merge([FIRST.name, SECOND.name], bound=100.0, **how),
    "consolidate": lambda one, **how: one.consolidate(bound=100.0, settings={"epochs": 1}, **how),
    "extend": lambda one, **how: one.extend(Examples(THIRD_AS_FIRST, (), ()), **how),
}
THIRD_AS_FIRST = tuple(one.labelled(FIRST.labels[0]) for one in THIRD.train[:4])


@pytest.mark.parametrize("verb", CHANGES)
def test_every_kind_of_change_can_be_a_candidate_and_is_then_made_as_it_was_computed(tmp_path: Path, verb: str) -> None:
    change = CHANGES[verb]
    learner, direct = _with_versions(tmp_path, "ws", STRICT), _with_versions(tmp_path, "direct", {})
    with frozen_state(learner), pytest.raises(GateRefusedError):
        change(learner, evaluate=False)
    change(direct, evaluate=False, gate=False)
    ConPET.open(learner.path).promote(gate=False)
    assert learner.labels == direct.labels
    require_same(ask(direct, TEXTS), ask(learner, TEXTS), verb)
    assert learner.store.events()[-1].verb == direct.store.events()[-1].verb
    assert learner.store.verify() == []


def _with_versions(tmp_path: Path, name: str, gate: dict[str, Any]) -> ConPET:
    """Return a workspace with two versions of the second task, and other settings of the gate."""
    learner = learned(tmp_path, name)
    learner.learn(larger(SECOND), evaluate=False, gate=False)
    return _with_gate(learner, gate)


def _with_gate(learner: ConPET, gate: dict[str, Any]) -> ConPET:
    """Change the settings of the gate, which are otherwise fixed when a workspace is made."""
    settings = learner.settings.changed({"gate": gate})
    with learner.store.write("settings") as writer:
        writer.commit(Change("settings", shared={HELD_OUT: None}, settings=settings.to_json()))
    return learner


def test_a_change_that_makes_answers_dearer_is_held_back_if_wanted(tmp_path: Path) -> None:
    prices = {"prices.wrong_answer": 1, "prices.answers": 1000}
    learner = workspace(tmp_path, 1, **{"gate.objective": "composite", **prices})
    report = learner.learn(stream()[1], evaluate=False)
    assert report.gate is not None
    before, after = report.gate.score_before, report.gate.score_after
    assert after.errors < before.errors  # the new labels could not be answered before
    assert before.updates == after.updates == 0
    assert learner.store.events()[-1].detail["gate"]["score"] == [before.total, after.total]
    learner.set_costs(prices={"cpu_hour": 1e9})
    with pytest.raises(GateRefusedError, match="1,000 answers would cost") as refused:
        learner.learn(stream()[2], evaluate=False)
    assert refused.value.report.dearer
    assert refused.value.report.broken == ()
    assert learner.gate_report().score_after == refused.value.report.score_after
    learner.promote(settings={"objective": "answers"})
    assert len(learner.tasks) == 3


def test_a_gate_by_the_composite_score_needs_prices(tmp_path: Path) -> None:
    learner, stages = workspace(tmp_path, 0, **{"gate.objective": "composite"}), list[str]()
    with pytest.raises(ConfigError, match=r"gate\.objective=composite needs prices\.wrong_answer and prices\.answers"):
        learner.learn(stream()[0], progress=lambda stage, share: stages.append(stage))
    assert (learner.tasks, stages) == ((), [])  # it says so before it trains
