"""What a workspace has cost: entries of every operation, the report, versions and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Task
from conpet.commands.cost import cost_report
from conpet.cost import BACKWARD, Resources
from conpet.errors import ConfigError, GateRefusedError, UnknownNameError
from conpet.store import CostKind, CostSource, LedgerEntry
from conpet.testing import toy_stream
from tests.helpers.workspaces import Stopped, stop_at, stream, workspace

PRICES = {"cpu_hour": 3600, "gb_month": 0.02, "review_hour": 60, "wrong_answer": 2, "answers": 1000, "late_day": 3}
TEXTS = [example.text for task in stream()[:2] for example in task.test]


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    """Return a workspace that learned two tasks, the second late, answered, was evaluated and reviewed."""
    made = workspace(tmp_path_factory.mktemp("cost"))
    made.set_costs(prices=PRICES)
    first, second = stream()[:2]
    made.learn(first)
    made.learn(second, needed_since=datetime.now(UTC).date() - timedelta(days=10))
    made.predict(TEXTS)
    made.evaluate()
    made.add_review(30, task=first.name, note="checked 20 answers")
    made.add_review(12)
    made.cost()  # writes the answers
    return made


def entries(learner: ConPET, kind: CostKind) -> list[LedgerEntry]:
    return [one for one in learner.store.ledger.entries() if one.kind is kind]


def test_learning_is_entered_with_its_gate_and_evaluation(learner: ConPET) -> None:
    first, second = entries(learner, CostKind.LEARN)
    assert [first.task, second.task] == ["text-0", "text-1"]
    assert (first.examples, first.new_labels, first.source, first.outcome) == (16, 2, CostSource.LOCAL, "done")
    assert second.generation == learner.store.generation()
    assert second.bytes_stored == learner.store.events()[-1].bytes_stored
    assert first.resources.bytes_added > 0
    event = learner.store.events()[-1]
    both = [one for one in learner.store.ledger.entries() if one.generation == event.id and one.task == "text-1"]
    assert {one.kind for one in both} == {CostKind.LEARN, CostKind.GATE, CostKind.EVALUATE}
    for name, stages in (
        ("steps", [cost.steps for cost in event.costs]),
        ("cached_tokens", [cost.cached_tokens for cost in event.costs]),
    ):
        assert sum(getattr(one.resources, name) for one in both) == pytest.approx(sum(stages), abs=len(stages))
    computed = sum(one.resources.frozen_tokens + one.resources.module_tokens for one in both)
    assert computed == pytest.approx(sum(cost.tokens for cost in event.costs), abs=len(event.costs))
    assert second.resources.trained_tokens <= second.resources.module_tokens
    assert second.resources.cpu_seconds > 0
    assert [one.examples for one in entries(learner, CostKind.GATE)] == [0, 4]


def test_answers_and_evaluations_are_entered(learner: ConPET) -> None:
    (answers,) = entries(learner, CostKind.PREDICT)
    assert answers.examples == len(TEXTS) == sum(answers.tasks.values()) == sum(answers.decisions.values())
    assert answers.generation == learner.store.generation()
    assert answers.resources.frozen_tokens > 0
    alone = [one for one in entries(learner, CostKind.EVALUATE) if one.verb == "evaluate"]
    assert [one.examples for one in alone] == [16]


def test_answers_are_written_when_a_minute_has_passed_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(tmp_path, 1)
    learner.predict(["one"])
    assert entries(learner, CostKind.PREDICT) == []
    learner.close()
    assert [one.examples for one in entries(learner, CostKind.PREDICT)] == [1]
    monkeypatch.setattr("conpet.store.usage.FLUSH_SECONDS", 0.0)
    learner.predict(["two", "three"])
    assert [one.examples for one in entries(learner, CostKind.PREDICT)] == [3]


def test_the_report_adds_up_by_kind_and_by_task(learner: ConPET) -> None:
    report = learner.cost()
    every = learner.store.ledger.entries()
    seconds = sum(one.resources.cpu_seconds for one in every)
    assert sum(line.money for line in report.kinds) == pytest.approx(seconds + 42)
    local, job, server = report.sources
    assert (local.money, job.operations, server.examples) == (pytest.approx(seconds + 42), 0, 0)
    assert sum(task.money for task in report.tasks) == pytest.approx(seconds + 42)
    assert report.money == pytest.approx(seconds + 42 + report.storage_money)
    assert [task.task for task in report.tasks] == ["text-0", "text-1", ""]
    assert report.tasks[0].review == 30
    assert report.tasks[2].review == 12
    assert sum(task.answers for task in report.tasks) == report.answers == 16
    assert report.per_thousand == pytest.approx(1000 * report.money / 16)
    assert report.accuracy == learner.evaluate().whole_accuracy
    assert report.per_point == pytest.approx(report.money / (100 * report.accuracy))
    assert report.kwh == pytest.approx(10 * seconds / 3.6e6)
    assert report.to_json()["money"] == report.money
    assert "for 1,000 of 16 answers" in str(report)


def test_storage_costs_by_size_and_time(learner: ConPET) -> None:
    event = learner.store.events()[-1]
    report = cost_report(learner.store, event.time + timedelta(days=300))
    assert report.storage_gb_months == pytest.approx(10 * event.bytes_stored / 1e9, rel=1e-4)
    assert report.storage_money == pytest.approx(0.02 * report.storage_gb_months)


def test_versions_have_the_score_that_a_calculation_by_hand_gives(learner: ConPET) -> None:
    first, second = learner.cost().versions
    assert (first.tasks, second.tasks) == (("text-0",), ("text-1",))
    assert (first.answers, second.answers) == (0, 16)
    assert (first.estimated, second.estimated) == (True, False)
    assert second.late_days == 2 * 10
    assert second.score.errors == pytest.approx(1000 * (1 - second.accuracy) * 2)
    assert second.score.freshness == pytest.approx(3 * second.late_days)
    assert second.score.updates == pytest.approx(second.updates)
    (answers,) = entries(learner, CostKind.PREDICT)
    assert second.score.running == pytest.approx(1000 / 16 * answers.resources.cpu_seconds, rel=1e-6)
    assert (first.review, second.review) == (0, 42)
    assert second.score.review == pytest.approx(42)
    assert first.score.freshness == 0
    assert learner.cost().score.total == pytest.approx((first.score.total + second.score.total) / 2)
    tested = [one for one in entries(learner, CostKind.EVALUATE) if one.generation == first.generation]
    assert first.score.running == pytest.approx(1000 / 8 * tested[0].resources.cpu_seconds, rel=1e-6)


def test_alternatives_follow_the_formula_of_the_guide(learner: ConPET) -> None:
    report = learner.cost()
    anew, unshared = report.alternatives
    used = [one.resources for one in entries(learner, CostKind.LEARN)]
    needed = [one.frozen_tokens + one.module_tokens + one.cached_tokens + BACKWARD * one.trained_tokens for one in used]
    assert anew.learning == 2 * needed[0] + needed[1]
    assert anew.learning_times == pytest.approx(anew.learning / sum(needed))
    share = entries(learner, CostKind.LEARN)[0].suffix_share
    assert 0 < share < 1
    again = [
        max(0, round(one.trained_tokens * (1 / share - 1)) - one.frozen_tokens - one.cached_tokens) for one in used
    ]
    assert unshared.learning == sum(needed) + sum(again)
    price = sum(one.cpu_seconds for one in used) / sum(needed)
    assert anew.learning_money == pytest.approx(price * anew.learning)
    backbone = learner.store.header().backbone
    assert unshared.bytes_stored - anew.bytes_stored == backbone["parameters"] * 4


def test_a_batch_is_divided_among_its_tasks(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    small, large = toy_stream(2, 2, 8, 2, 4)
    learner.learn_batch([replace_train(small, 4), large])
    first, second = entries(learner, CostKind.LEARN)
    assert (first.examples, second.examples) == (4, 16)
    assert first.resources.cpu_seconds == pytest.approx(second.resources.cpu_seconds / 4)
    (version,) = learner.cost().versions
    assert version.tasks == (small.name, large.name)


def replace_train(task: Task, count: int) -> Task:
    of_label = {label: [one for one in task.train if one.label == label][: count // 2] for label in task.labels}
    return replace(task, train=tuple(one for examples in of_label.values() for one in examples))


def test_what_the_gate_refuses_has_cost_something(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **{"gate.label_margin": 0, "gate.confidence": 0.51, "gate.require_proof": True})
    before = learner.store.generation()
    with pytest.raises(GateRefusedError):
        learner.learn(stream()[2])
    refused = entries(learner, CostKind.LEARN)[-1]
    assert (refused.outcome, refused.generation, refused.task) == ("refused", before, None)
    assert refused.resources.steps > 0
    learner.learn(stream()[2], gate=False)
    last = learner.cost().versions[-1]
    assert last.tasks == (stream()[2].name,)
    assert last.updates == 0  # there are no prices
    assert [one.outcome for one in entries(learner, CostKind.LEARN)] == ["done", "done", "refused", "done"]
    learner.set_costs(prices={"cpu_hour": 3600})
    made = [one.resources for one in learner.store.ledger.entries() if (one.generation or 0) >= before]
    own = [one for one in learner.store.ledger.entries() if one.generation == before and one.outcome == "done"]
    spent = sum(one.cpu_seconds for one in made) - sum(one.resources.cpu_seconds for one in own)
    assert learner.cost().versions[-1].updates == pytest.approx(spent)


def test_a_promoted_change_was_needed_since_the_day_that_was_given_when_it_was_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **{"gate.require_proof": True})
    since = datetime.now(UTC).date() - timedelta(days=7)
    with pytest.raises(GateRefusedError):
        learner.learn(stream()[2], needed_since=since)
    learner.promote(gate=False)
    assert [version.late_days for version in learner.cost().versions] == [0, 0, 2 * 7]


def test_an_interrupted_attempt_is_entered_once(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    with pytest.raises(Stopped):
        learner.learn(stream()[1], progress=stop_at("evaluation", 0.1))
    stopped = entries(learner, CostKind.LEARN)[-1]
    assert (stopped.outcome, stopped.resources.steps > 0) == ("interrupted", True)
    learner.learn(stream()[1])
    done = entries(learner, CostKind.LEARN)[-1]
    recorded = [cost.steps for event in learner.store.events() for cost in event.costs]
    steps = [one.resources.steps for one in learner.store.ledger.entries()]
    assert sum(steps) == sum(recorded)  # the history counts lost work with the attempt that succeeded
    assert done.outcome == "done"


def test_searches_are_entered_with_and_without_a_change(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    learner.tune(stream()[0], trials=1, dry_run=True)
    learner.tune(stream()[0], trials=1)
    tried, applied = entries(learner, CostKind.TUNE)
    assert (tried.task, applied.task) == ("text-0", "text-0")
    assert tried.resources.steps == applied.resources.steps > 0
    learner.learn(stream()[0])
    (version,) = learner.cost().versions
    everything = [one for one in learner.store.ledger.entries() if one.kind is not CostKind.PREDICT]
    learner.set_costs(prices={"cpu_hour": 3600})
    (version,) = learner.cost().versions
    assert version.updates == pytest.approx(sum(one.resources.cpu_seconds for one in everything))


def test_a_removed_task_keeps_its_costs(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    for task in stream()[:2]:
        learner.learn(task, evaluate=False)
    learner.remove("text-0")
    tasks = {task.task: task for task in learner.cost().tasks}
    assert (tasks["text-0"].present, tasks["text-1"].present) == (False, True)
    assert entries(learner, CostKind.CHANGE)[0].task == "text-0"
    anew, _ = learner.cost().alternatives
    assert anew.learning_times > 1


def test_wrong_answers_can_be_counted_by_the_cost_of_decisions(tmp_path: Path) -> None:
    learner = workspace(tmp_path, features={"refit": False})  # so that predictions are those that were counted
    learner.set_costs(prices={**PRICES, "quality": "decisions"})
    assert "measured from the next change on" in " ".join(learner.cost().notes)
    learner.learn(stream()[0])
    cost = learner.store.events()[-1].detail["decision_cost"]
    validation = stream()[0].validation
    total = 0.0
    for one, example in zip(learner.predict([each.text for each in validation]), validation, strict=True):
        match one.decision:
            case "answer":
                total += one.label != example.label
            case "ask":
                total += 0.2 + (example.label not in [each.label for each in one.candidates])
            case "decline":
                total += 1
    assert cost == pytest.approx(total / len(validation))
    assert learner.cost().versions[-1].score.errors == pytest.approx(1000 * 2 * cost)


def test_review_is_corrected_by_a_negative_entry_and_no_further(learner: ConPET) -> None:
    learner.add_review(5, task="text-1")
    learner.add_review(-3, task="text-1")
    with pytest.raises(ConfigError, match="only 2 minutes were entered"):
        learner.add_review(-3, task="text-1")
    learner.add_review(-2, task="text-1")
    for wrong in (0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="give a number of minutes"):
            learner.add_review(wrong)
    with pytest.raises(UnknownNameError, match="no task 'nosuch'"):
        learner.add_review(5, task="nosuch")


def test_a_need_in_the_future_is_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    with pytest.raises(ConfigError, match="not in the future"):
        learner.learn(stream()[0], needed_since=date(2999, 1, 1))
    assert learner.tasks == ()


@pytest.mark.parametrize(
    ("prices", "message"),
    [({"cpu_hours": 1}, "prices.cpu_hours"), ({"kwh": -1}, "prices.kwh"), ({"quality": "luck"}, "prices.quality")],
)
def test_wrong_prices_are_named(tmp_path: Path, prices: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workspace(tmp_path).set_costs(prices=prices)


def test_prices_are_unset_by_none_and_change_no_answer(learner: ConPET) -> None:
    before = learner.predict(TEXTS)
    learner.set_costs(prices={"cpu_hour": None})
    assert learner.costs.prices.cpu_hour is None
    assert "--cpu-hour" in " ".join(learner.cost().notes)
    after = learner.predict(TEXTS)
    assert [(one.label, one.score, one.decision) for one in after] == [
        (one.label, one.score, one.decision) for one in before
    ]
    learner.set_costs(prices={"cpu_hour": 3600})


def test_an_empty_ledger_is_said(tmp_path: Path) -> None:
    report = workspace(tmp_path).cost()
    assert (report.money, report.answers, report.per_thousand, report.versions) == (0, 0, None, ())
    assert "the ledger is empty" in report.notes[0]


def test_an_older_history_is_said(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    learner.learn(stream()[0])
    (learner.path / "ledger.sqlite").unlink()
    learner.learn(stream()[1])
    assert "the history is older than the ledger" in " ".join(learner.cost().notes)


def test_resources_add_up_and_are_divided() -> None:
    one = Resources(seconds=1.5, steps=3, minutes=2)
    assert one + one == Resources(seconds=3.0, steps=6, minutes=4)
