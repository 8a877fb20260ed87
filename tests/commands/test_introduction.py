"""The stages of introduction: conditions checked against a workspace, and files of stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from conpet import ConPET
from conpet.commands.introduction import CHECKS, CheckedCondition, shipped_stages
from conpet.errors import ConfigError
from tests.helpers.cli import conpet
from tests.helpers.workspaces import stream, workspace


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    """Return a workspace that learned three tasks with the gate, and has answered."""
    made = workspace(tmp_path_factory.mktemp("stages"))
    for task in stream():
        made.learn(task)
    made.predict(["one", "two"])
    return made


def checked(learner: ConPET, folder: Path, *conditions: dict[str, Any]) -> list[CheckedCondition]:
    """Return the conditions as a workspace meets them."""
    path = folder / "stages.yaml"
    stages = [{"name": "only", "title": "t", "conditions": list(conditions)}]
    path.write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    return list(learner.plan(path).stages[0].conditions)


@pytest.mark.parametrize(
    ("name", "holds", "fails"),
    [
        ("tasks", {"at_least": 3}, {"at_least": 4}),
        ("labels", {"at_least": 6}, {"at_least": 7}),
        ("test_examples", {"at_least": 4}, {"at_least": 4.5}),
        ("validation_examples", {"at_least": 2}, {"at_least": 3}),
        ("accuracy", {"at_least": 50}, {"at_least": 91.7}),  # 22 of 24: the lower end of the interval is 74.2%
        ("worst_task", {"at_least": 50}, {"at_least": 100}),
        ("forgetting", {"at_most": 50}, {"at_most": -50}),
        ("gate", {"last": 3}, {"last": 4}),
        ("answers", {"at_least": 2}, {"at_least": 3}),
        ("prices", {"of": ["currency"]}, {"of": ["cpu_hour", "kwh"]}),
    ],
)
def test_a_condition_holds_or_says_what_to_do(
    name: str, holds: dict[str, Any], fails: dict[str, Any], learner: ConPET, tmp_path: Path
) -> None:
    met, missing = checked(learner, tmp_path, {"check": name, **holds}, {"check": name, **fails, "why": "so"})
    assert (met.proven, met.commands) == (True, ())
    assert not missing.proven
    assert missing.why == "so"
    assert missing.value == met.value or name == "prices"
    assert all(command.startswith("conpet ") for command in missing.commands)
    assert str(learner.path) in missing.commands[0]


def test_conditions_become_true_when_their_commands_are_run(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    wanted = [{"check": name} for name in ("decision_costs", "score", "audit")]
    wanted += [{"check": "review", "at_least": 20}, {"check": "coverage", "at_least": 0.5}]
    before = checked(learner, tmp_path, *wanted)
    assert [one.proven for one in before] == [False, False, True, False, False]
    learner.add_review(20)
    learner.set_costs(prices={"wrong_answer": 1, "answers": 100})
    assert [one.proven for one in checked(learner, tmp_path, *wanted)] == [False, True, True, True, False]
    learner.set_costs(error=10, question=2, refusal=1)
    assert checked(learner, tmp_path, *wanted)[0].proven
    learner.set_costs(coverage=0.5)
    assert checked(learner, tmp_path, *wanted)[-1].proven
    with learner.store._database.write() as connection:
        connection.exec_driver_sql("UPDATE event SET actor = 'someone else' WHERE id = 2")
    assert not checked(learner, tmp_path, *wanted)[2].proven


def test_forgetting_does_not_count_as_a_change_that_the_gate_let_through(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    wanted = {"check": "gate", "last": 2}
    first, second = learner.labels[:2]
    learner.rename(first, "renamed", evaluate=False)
    learner.rename(second, "renamed too", evaluate=False)
    assert checked(learner, tmp_path, wanted)[0].proven
    learner.forget([stream()[0].train[0].text], evaluate=False)
    assert checked(learner, tmp_path, wanted)[0].proven


def test_decisions_need_enough_examples(learner: ConPET, tmp_path: Path) -> None:
    (found,) = checked(learner, tmp_path, {"check": "decisions"})
    assert not found.proven
    assert "20 are needed" in found.value


def test_the_shipped_stages_are_checked_in_order(learner: ConPET) -> None:
    planned = learner.plan()
    assert [stage.name for stage in planned.stages] == ["static", "dynamic", "full"]
    assert planned.reached is None
    assert planned.following is planned.stages[0]
    assert "'static' is next" in str(planned)
    used = {
        condition["check"] for stage in yaml.safe_load(shipped_stages())["stages"] for condition in stage["conditions"]
    }
    assert used <= CHECKS.keys()


def test_a_stage_is_reached_only_with_those_before_it(learner: ConPET, tmp_path: Path) -> None:
    def stage(name: str, tasks: int) -> dict[str, Any]:
        return {"name": name, "title": name, "conditions": [{"check": "tasks", "at_least": tasks}]}

    path = tmp_path / "stages.yaml"
    path.write_text(yaml.safe_dump({"stages": [stage("a", 1), stage("b", 9), stage("c", 1)]}), encoding="utf-8")
    planned = learner.plan(path)
    assert [one.reached for one in planned.stages] == [True, False, False]
    assert (planned.reached.name, planned.following.name) == ("a", "b")
    for name, code in (("a", 0), ("b", 1), ("c", 1)):
        assert conpet("plan", learner.path, "--stages", path, "--stage", name).code == code
    assert conpet("plan", learner.path, "--stages", path).code == 1
    printed = conpet("plan", learner.path, "--stages", path, "--stage", "b").out
    assert "a: a - reached" in printed
    assert f"conpet learn {learner.path}" in printed
    found = conpet("plan", learner.path, "--stages", path, "--json").json
    assert (found["reached"], found["next"]) == ("a", "b")
    assert found["stages"][1]["conditions"][0]["commands"]
    path.write_text(yaml.safe_dump({"stages": [stage("a", 1)]}), encoding="utf-8")
    assert conpet("plan", learner.path, "--stages", path).code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "is not YAML"),
        ("- 1", "give a mapping with the key `stages`"),
        ("stages: []", "give at least one stage"),
        ("stages: [{name: a, name: b, title: a, conditions: [{check: audit}]}]", "the key 'name' occurs twice"),
        ("stages: [{name: a, title: a, conditions: []}]", "stage 'a' needs a condition"),
        (
            "stages: [{name: a, title: a, conditions: [{check: taskz}]}]",
            r"stages\.0\.conditions\.0: unknown check 'taskz'",
        ),
        ("stages: [{name: a, title: a, conditions: [{check: tasks}]}]", "give 'at_least' and nothing else"),
        ("stages: [{name: a, title: a, conditions: [{check: audit, last: 2}]}]", "it takes no value"),
        ("stages: [{name: a, title: a, conditions: [{check: accuracy, at_least: 700}]}]", "a number from 0 to 100"),
        ("stages: [{name: a, title: a, conditions: [{check: prices, of: [gold]}]}]", "unknown price 'gold'"),
        (
            "stages: [{name: a, titel: a, conditions: [{check: audit}]}]",
            r"unknown key 'stages\.0\.titel'.*'title'|title",
        ),
        ("stages: [&s {name: a, title: a, conditions: [{check: audit}]}, *s]", "stage 'a' is there twice"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(text: str, message: str, learner: ConPET, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as refused:
        learner.plan(path)
    assert str(path) in str(refused.value)


def test_what_is_not_there_is_said(learner: ConPET, tmp_path: Path) -> None:
    assert "cannot be read" in conpet("plan", learner.path, "--stages", tmp_path / "none.yaml").err
    assert "there is no stage 'ful' (did you mean 'full'?)" in conpet("plan", learner.path, "--stage", "ful").err
    assert conpet("plan").code == 2
    assert conpet("plan", "--show-stages").out == shipped_stages()
