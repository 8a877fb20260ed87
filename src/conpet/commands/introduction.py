"""The staged introduction: what is proven at each stage, what is missing, and the command for it; imports no torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import model_validator

from conpet.commands.audit import verify_workspace
from conpet.commands.cost import cost_report
from conpet.commands.costs import shown_costs
from conpet.config import NonEmpty, Positive, PricesConfig, RefusalConfig, Settings, StrictModel
from conpet.config.unique_keys import load_yaml
from conpet.errors import ConfigError, did_you_mean, listed, plural, reason_of
from conpet.evaluation.composite import shown_money
from conpet.evaluation.cost_report import CostReport
from conpet.evaluation.gate import GATE
from conpet.evaluation.history import SETTINGS_ONLY, matrix_of, row_of
from conpet.evaluation.metrics import Tally, forgetting
from conpet.report.text import percent, plain_points, wilson_interval
from conpet.store import CostKind, EventRecord, Snapshot, Store
from conpet.types import Costs


class Condition(StrictModel):
    """A condition of a stage.

    Attributes:
        check: Name of the check.
        at_least: Least value, in the check's unit.
        at_most: Largest value.
        last: Number of changes looked at.
        of: Names of prices.
        why: What it is good for.
    """

    noun: ClassVar[str] = "key"

    check: str
    at_least: float | None = None
    at_most: float | None = None
    last: Positive | None = None
    of: NonEmpty[str] | None = None
    why: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Condition:
        if self.check not in CHECKS:
            hint = did_you_mean(self.check, sorted(CHECKS), "")
            raise ValueError(f"unknown check {self.check!r}{hint}; have: {', '.join(CHECKS)}")
        needed = CHECKS[self.check].needs
        given = [name for name in ("at_least", "at_most", "last", "of") if getattr(self, name) is not None]
        if given != ([needed] if needed else []):
            wants = f"give {needed!r} and nothing else" if needed else "it takes no value"
            raise ValueError(f"check {self.check!r}: {wants} (given: {', '.join(given) or 'nothing'})")
        most = CHECKS[self.check].most
        if most is not None and not 0 <= (self.at_least or 0) <= most:
            raise ValueError(f"check {self.check!r}: at_least is {self.at_least:g}; give a number from 0 to {most:g}")
        unknown = sorted(set(self.of or ()) - set(PricesConfig.model_fields))
        if unknown:
            raise ValueError(f"check {self.check!r}: unknown price {unknown[0]!r}; see the settings `prices`")
        return self


class Stage(StrictModel):
    """A stage of the introduction.

    Attributes:
        name: Its name, for `conpet plan --stage`.
        title: Its title.
        purpose: What it is for.
        conditions: What must be proven; one or more.
    """

    noun: ClassVar[str] = "key"

    name: str
    title: str
    purpose: str = ""
    conditions: tuple[Condition, ...]


class Stages(StrictModel):
    """The stages, in order.

    Attributes:
        stages: The stages; one or more.
    """

    noun: ClassVar[str] = "key"

    stages: tuple[Stage, ...]

    @model_validator(mode="after")
    def _complete(self) -> Stages:
        empty = [stage.name for stage in self.stages if not stage.conditions]
        if empty or not self.stages:
            raise ValueError(f"stage {empty[0]!r} needs a condition" if empty else "stages: give at least one stage")
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"stage {twice[0]!r} is there twice; give each stage a name of its own")
        return self


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        proven: Whether the condition holds.
        value: What is so in the workspace, in words.
        commands: What to run if it does not hold.
    """

    proven: bool
    value: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckedCondition:
    """A condition with what was found.

    Attributes:
        check: Name of the check.
        wanted: What is wanted, in words.
        proven: Whether it holds.
        value: What is so in the workspace, in words.
        why: What it is good for.
        commands: What to run if it does not hold.
    """

    check: str
    wanted: str
    proven: bool
    value: str
    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckedStage:
    """A stage with what was found.

    Attributes:
        name: Its name.
        title: Its title.
        purpose: What it is for.
        conditions: Its conditions.
        reached: Whether all its conditions hold, and those of the stages before.
    """

    name: str
    title: str
    purpose: str
    conditions: tuple[CheckedCondition, ...]
    reached: bool

    @property
    def missing(self) -> tuple[CheckedCondition, ...]:
        """The conditions that do not hold."""
        return tuple(one for one in self.conditions if not one.proven)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """How far a workspace has come; `str(plan)` is a sentence.

    Attributes:
        generation: The generation that was checked.
        stages: The stages.
    """

    generation: int
    stages: tuple[CheckedStage, ...]

    @property
    def reached(self) -> CheckedStage | None:
        """The last stage that is reached."""
        return next((stage for stage in reversed(self.stages) if stage.reached), None)

    @property
    def following(self) -> CheckedStage | None:
        """The next stage; None if all are reached."""
        return next((stage for stage in self.stages if not stage.reached), None)

    def stage(self, name: str) -> CheckedStage:
        """Return the stage of a name.

        Raises:
            ConfigError: There is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise ConfigError(f"there is no stage {name!r}{did_you_mean(name, names, '')}; have: {', '.join(names)}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "generation": self.generation,
            "reached": self.reached.name if self.reached else None,
            "next": self.following.name if self.following else None,
            "stages": [
                {
                    **asdict(stage),
                    "conditions": [{**asdict(one), "commands": list(one.commands)} for one in stage.conditions],
                }
                for stage in self.stages
            ],
        }

    def __str__(self) -> str:
        reached = f"stage {self.reached.name!r} is reached" if self.reached else "no stage is reached yet"
        if self.following is None:
            return f"{reached}, the last one"
        missing = plural(len(self.following.missing), "condition")
        return f"{reached}; {self.following.name!r} is next: {missing} to prove" if missing else reached


def plan_stages(store: Store, stages: str | os.PathLike[str] | None = None) -> StagePlan:
    """Check a workspace against the stages of a file; see `ConPET.plan`."""
    return check_stages(store, read_stages(stages))


def check_stages(store: Store, read: Stages) -> StagePlan:
    """Check a workspace against stages."""
    workspace = _Workspace(store)
    checked: list[CheckedStage] = []
    reached = True
    for stage in read.stages:
        conditions = tuple(_checked(condition, workspace) for condition in stage.conditions)
        reached = reached and all(one.proven for one in conditions)
        checked.append(CheckedStage(stage.name, stage.title, stage.purpose, conditions, reached))
    return StagePlan(workspace.snapshot.generation, tuple(checked))


def read_stages(path: str | os.PathLike[str] | None) -> Stages:
    """Read stages from a YAML file; those of conpet without one.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or has an unknown key, check or value; the message says where.
    """
    try:
        text = Path(path).read_text(encoding="utf-8") if path is not None else shipped_stages()
        document = load_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error, path)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path}: give a mapping with the key `stages`, as `conpet plan --show-stages` prints it")
    try:
        return Stages.parse(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def shipped_stages() -> str:
    """Return the file of stages that conpet ships."""
    return files("conpet.commands").joinpath("stages.yaml").read_text(encoding="utf-8")


class _Workspace:
    """What the checks look at, each part read once and only if needed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.snapshot: Snapshot = store.snapshot()
        self.events: list[EventRecord] = store.events()

    @cached_property
    def settings(self) -> Settings:
        return Settings.parse(self.snapshot.header.settings)

    @cached_property
    def costs(self) -> Costs:
        return shown_costs(self.store)

    @cached_property
    def spending(self) -> CostReport:
        return cost_report(self.store)

    @cached_property
    def differences(self) -> int:
        return len(verify_workspace(self.store))

    @cached_property
    def changes(self) -> list[EventRecord]:
        """The changes of answers, oldest first."""
        return [event for event in self.events[1:] if event.verb not in SETTINGS_ONLY]

    @cached_property
    def tallies(self) -> Mapping[str, Tally]:
        """Right answers to test examples by task, after the last change; empty if it was not evaluated."""
        return row_of(self.changes[-1]).tallies if self.changes else {}

    def command(self, arguments: str) -> str:
        """Return a command, with the workspace in the place of `{}`."""
        return f"conpet {arguments.replace('{}', shlex.quote(str(self.store.path)))}"

    def per_label(self, subset: str) -> float:
        """Return the examples for each label, of the task with the fewest."""
        versions = [task.active for task in self.snapshot.tasks]
        counts = [version.description["counts"][subset] / max(1, len(version.labels)) for version in versions]
        return min(counts, default=0.0)


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Attributes:
        needs: The key of a condition that it needs, or None.
        wanted: What is wanted, in words, with the value in the place of `{}`.
        find: Checks a workspace.
        most: Largest value that can be asked for, or None.
    """

    needs: str | None
    wanted: str
    find: Callable[[_Workspace, Any], Finding]
    most: float | None = None


def _checked(condition: Condition, workspace: _Workspace) -> CheckedCondition:
    check = CHECKS[condition.check]
    value = getattr(condition, check.needs) if check.needs else None
    found = check.find(workspace, value)
    shown = ", ".join(value) if isinstance(value, tuple) else f"{value:g}" if value is not None else ""
    return CheckedCondition(
        condition.check,
        check.wanted.replace("{}", shown),
        found.proven,
        found.value,
        condition.why,
        () if found.proven else tuple(map(workspace.command, found.commands)),
    )


def _tasks(workspace: _Workspace, least: float) -> Finding:
    count = len(workspace.snapshot.tasks)
    return Finding(count >= least, plural(count, "task"), ("learn {} TASK_OR_STREAM",))


def _labels(workspace: _Workspace, least: float) -> Finding:
    count = len(workspace.snapshot.owners)
    return Finding(count >= least, plural(count, "label"), ("learn {} TASK_OR_STREAM",))


def _examples(subset: str) -> Callable[[_Workspace, float], Finding]:
    def find(workspace: _Workspace, least: float) -> Finding:
        fewest = workspace.per_label(subset)
        value = f"{fewest:.3g} for each label, in the task with the fewest"
        return Finding(bool(workspace.snapshot.tasks) and fewest >= least, value, ("learn {} MORE_EXAMPLES --extend",))

    return find


def _accuracy(workspace: _Workspace, least: float) -> Finding:
    right = sum(tally.correct for tally in workspace.tallies.values())
    total = sum(tally.total for tally in workspace.tallies.values())
    if not total:
        return Finding(False, "not measured after the last change", ("learn {} TASK_WITH_TEST_EXAMPLES",))
    low, high = wilson_interval(right, total)
    value = f"{percent(right / total)} on {total:,} test examples, 95% interval {percent(low)} to {percent(high)}"
    return Finding(
        100 * low >= least, value, ("evaluate {} --labels", "compare TASKS", "learn {} MORE_EXAMPLES --extend")
    )


def _worst_task(workspace: _Workspace, least: float) -> Finding:
    measured = {name: tally.accuracy for name, tally in workspace.tallies.items() if tally.accuracy is not None}
    if not measured:
        return Finding(False, "not measured after the last change", ("learn {} TASK_WITH_TEST_EXAMPLES",))
    worst = min(measured, key=lambda name: measured[name])
    value = f"{percent(measured[worst])}, task {worst!r}, {workspace.tallies[worst].total:,} test examples"
    return Finding(100 * measured[worst] >= least, value, ("evaluate {} --labels", "learn {} MORE_EXAMPLES --extend"))


def _forgetting(workspace: _Workspace, most: float) -> Finding:
    lost = forgetting(matrix_of(workspace.events))
    if lost is None or len(workspace.snapshot.tasks) < 2:
        return Finding(False, "not measured: no older task has test examples", ("learn {} TASK_WITH_TEST_EXAMPLES",))
    return Finding(100 * lost <= most, f"{plain_points(lost)} points", ("report {}", "consolidate {}"))


_UNGATED = ("forget",)
"""Changes to which the gate does not apply."""


def _gate(workspace: _Workspace, last: float) -> Finding:
    judged = [event for event in workspace.changes if event.verb not in _UNGATED]
    recent = judged[-int(last) :]
    passed = [event for event in recent if event.detail.get(GATE, {}).get("verdict") == "passed"]
    value = f"{len(passed)} of the last {plural(len(recent), 'change')} passed the gate"
    return Finding(len(passed) == last, value, ("learn {} TASK_OR_STREAM",))


def _decisions(workspace: _Workspace, _: None) -> Finding:
    kinds = workspace.costs.kinds
    doubts = [f"{kind.kind}: {kind.note}" for kind in kinds if kind.note]
    known = sum(kind.known for kind in kinds)
    value = listed(doubts) if doubts else f"calibrated on {plural(known, 'held-out example')}"
    return Finding(
        bool(kinds) and not doubts, value or "nothing is learned", ("learn {} MORE_EXAMPLES --extend", "costs show {}")
    )


def _decision_costs(workspace: _Workspace, _: None) -> Finding:
    config = workspace.settings.refusal
    given = config != RefusalConfig() or any("refusal" in event.detail for event in workspace.events)
    value = (
        f"a coverage of {config.coverage:g}"
        if config.coverage is not None
        else f"error {config.error:g}, question {config.question:g}, refusal {config.refusal:g}"
    )
    shown = value if given else f"the defaults ({value})"
    return Finding(given, shown, ("costs set {} --error 10 --question 2 --refusal 1",))


def _coverage(workspace: _Workspace, least: float) -> Finding:
    costs = workspace.costs
    if costs.coverage is None:
        return Finding(False, "no coverage is wanted: costs decide", (f"costs set {{}} --coverage {least:g}",))
    doubts = [f"{kind.kind}: {kind.note}" for kind in costs.kinds if kind.note]
    value = listed(doubts) if doubts else f"{costs.coverage:g}, promised"
    commands = (f"costs set {{}} --coverage {least:g}", "learn {} MORE_EXAMPLES --extend")
    return Finding(costs.coverage >= least and bool(costs.kinds) and not doubts, value, commands)


def _prices(workspace: _Workspace, names: Sequence[str]) -> Finding:
    prices = workspace.settings.prices
    missing = [name for name in names if getattr(prices, name) is None]
    options = " ".join(f"--{name.replace('_', '-')} PRICE" for name in missing)
    value = f"not set: {', '.join(missing)}" if missing else "set"
    return Finding(not missing, value, (f"costs set {{}} {options}",))


def _audit(workspace: _Workspace, _: None) -> Finding:
    found = workspace.differences
    value = f"{plural(found, 'difference')} from what was recorded" if found else "history and content are as recorded"
    return Finding(not found, value, ("audit verify {}",))


def _answers(workspace: _Workspace, least: float) -> Finding:
    count = workspace.spending.answers
    return Finding(count >= least, plural(count, "answer"), ("serve {}", "predict {} -i FILE"))


def _review(workspace: _Workspace, least: float) -> Finding:
    minutes = sum(line.resources.minutes for line in workspace.spending.kinds if line.name == CostKind.REVIEW)
    return Finding(minutes >= least, f"{minutes:g} minutes", ("costs add-review {} MINUTES",))


def _score(workspace: _Workspace, _: None) -> Finding:
    report = workspace.spending
    score = report.versions[-1].score if report.versions else None
    if score is not None:
        return Finding(True, f"{shown_money(score.total)} {report.currency} for 1,000 answers")
    return Finding(False, "not known", ("costs set {} --wrong-answer PRICE --answers N", "cost {} --by-version"))


CHECKS: dict[str, Check] = {
    "tasks": Check("at_least", "tasks: at least {}", _tasks),
    "labels": Check("at_least", "labels: at least {}", _labels),
    "test_examples": Check("at_least", "test examples of each label: at least {}", _examples("test")),
    "validation_examples": Check("at_least", "validation examples of each label: at least {}", _examples("validation")),
    "accuracy": Check(
        "at_least", "whole accuracy of at least {}%, by the lower end of its 95% interval", _accuracy, 100
    ),
    "worst_task": Check("at_least", "accuracy of at least {}% in every task", _worst_task, 100),
    "forgetting": Check("at_most", "forgetting of at most {} points", _forgetting),
    "gate": Check("last", "the last {} changes passed the gate", _gate),
    "decisions": Check(None, "decisions to answer, ask or decline are calibrated", _decisions),
    "decision_costs": Check(None, "what mistakes cost, or a coverage, was set", _decision_costs),
    "coverage": Check("at_least", "a coverage of at least {} is promised", _coverage, 1),
    "prices": Check("of", "prices are set: {}", _prices),
    "audit": Check(None, "the history is unchanged", _audit),
    "answers": Check("at_least", "answers given: at least {}", _answers),
    "review": Check("at_least", "minutes of people's work entered: at least {}", _review),
    "score": Check(None, "the composite score is known", _score),
}
"""The checks by name."""
