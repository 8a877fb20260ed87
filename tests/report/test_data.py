import json

import pytest
from pydantic import ValidationError

from conpet.errors import CorruptionError
from conpet.report.data import ReportData, Score, TaskInfo, Verb, task_order
from tests.helpers.reports import LLAMA_7B, event, report


@pytest.mark.parametrize("count", [0, 1, 3, 60])
def test_json_gives_the_same_report_back(count):
    data = report([f"task {number}" for number in range(count)])
    assert ReportData.from_json(data.to_json()) == data


def test_json_says_its_version_and_holds_text_as_it_is():
    text = report(["返品"]).to_json()
    assert json.loads(text)["schema_version"] == 1
    assert "返品" in text
    assert json.loads(text)["events"][0]["scores"] == {"返品": [8, 10]}


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"surplus": 1}])
def test_json_of_another_schema_is_refused(change):
    changed = json.loads(report(["a"]).to_json()) | change
    with pytest.raises(CorruptionError, match="schema version 1"):
        ReportData.from_json(json.dumps(changed))


def test_text_that_is_no_json_is_refused():
    with pytest.raises(CorruptionError, match="not a conpet report"):
        ReportData.from_json("<html>")


def test_numbers_that_json_cannot_hold_are_refused():
    with pytest.raises(ValidationError):
        event(["a"], 1).model_validate(event(["a"], 1).model_dump() | {"whole_accuracy": float("nan")})


def test_a_report_cannot_be_changed():
    data = report(["a"])
    with pytest.raises(ValidationError):
        data.tasks[0].name = "b"  # type: ignore[misc]


def test_accuracy_of_no_examples_is_unknown():
    assert Score(0, 0).accuracy is None
    assert Score(3, 4).accuracy == 0.75
    assert event(["a"], 1).accuracy("never seen") is None


def test_the_backbone_is_three_thousand_times_larger_than_the_papers_module():
    assert LLAMA_7B.times_fewer(2_097_152) == pytest.approx(3213.1, abs=0.1)
    assert LLAMA_7B.times_fewer(0) is None


def test_costs_of_stages_add_up():
    total = event(["a"], 1).total_cost
    assert (total.seconds, total.backbone_tokens, total.optimiser_steps) == (6.5, 1234, 12)


def test_tasks_come_in_the_order_they_were_learned_removed_ones_too():
    events = report(["b", "a", "c"]).events
    removed = events[-1].model_copy(update={"verb": Verb.REMOVE, "task": "a", "scores": {"b": Score(1, 1)}})
    assert task_order([*events, removed]) == ("b", "a", "c")


def test_titles_tell_the_events_of_one_task_apart():
    first = event(["a"], 1)
    changes = [{}, {"version": 2}, {"verb": Verb.ROLLBACK}, {"verb": Verb.REMOVE}]
    titles = [first.model_copy(update=change).title for change in changes]
    assert titles[0] == "a"
    assert len(set(titles)) == 4


def test_negative_counts_are_refused():
    with pytest.raises(ValidationError, match="train"):
        TaskInfo.model_validate(report(["a"]).tasks[0].model_dump() | {"train": -1})
