"""The content of a report as plain values, read by the renderers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue, NonNegativeFloat, NonNegativeInt, ValidationError

from conpet.errors import CorruptionError
from conpet.report.design import TuneReport
from conpet.report.label_results import LabelResults

NOTABLE_FALL = 0.02
"""Loss of accuracy that a report marks; smaller losses are normal when labels are added."""
SCHEMA_VERSION: Final = 1
"""Version of the JSON; incremented whenever the name or meaning of a field changes."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Verb(StrEnum):
    """The kind of change of the workspace."""

    LEARN = "learn"
    ROLLBACK = "rollback"
    REMOVE = "remove"
    TUNE = "tune"
    COSTS = "costs"
    LOG = "log"
    RENAME = "rename"
    RETIRE = "retire"
    SPLIT = "split"
    MERGE = "merge"
    UPGRADE = "upgrade"
    CONSOLIDATE = "consolidate"
    RESTORE = "restore"
    FORGET = "forget"

    @property
    def trains(self) -> bool:
        """Whether it trains a new version of a task."""
        return self in (Verb.LEARN, Verb.SPLIT)

    @property
    def of_one_task(self) -> bool:
        """Whether it changes one task."""
        return self not in (
            Verb.MERGE,
            Verb.UPGRADE,
            Verb.TUNE,
            Verb.COSTS,
            Verb.LOG,
            Verb.CONSOLIDATE,
            Verb.RESTORE,
            Verb.FORGET,
        )


class Score(NamedTuple):
    """Correct answers and test examples of a task; a JSON list of two numbers."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """Fraction correct, 0 to 1; None without examples."""
        return self.correct / self.total if self.total else None


class StageCost(_Frozen):
    """The cost of one stage of an event.

    Attributes:
        seconds: Wall-clock time.
        backbone_tokens: Tokens that went through the backbone (cached states are not counted).
        optimiser_steps: Steps of gradient descent.
    """

    seconds: NonNegativeFloat = 0.0
    backbone_tokens: NonNegativeInt = 0
    optimiser_steps: NonNegativeInt = 0

    @classmethod
    def total(cls, costs: Iterable[StageCost]) -> StageCost:
        """Return the sum of costs."""
        summands = tuple(costs)
        return cls(
            seconds=sum(cost.seconds for cost in summands),
            backbone_tokens=sum(cost.backbone_tokens for cost in summands),
            optimiser_steps=sum(cost.optimiser_steps for cost in summands),
        )


class BackboneInfo(_Frozen):
    """The frozen model.

    The first `frozen_layers` of its `layers` have no modules. All layers were tuned on the task `warmup`, or on the
    tasks `consolidated`, if given.
    """

    name: str
    architecture: str
    layers: NonNegativeInt
    frozen_layers: NonNegativeInt
    hidden_size: NonNegativeInt
    parameters: NonNegativeInt
    dtype: str
    fingerprint: str
    warmup: str | None = None
    consolidated: tuple[str, ...] = ()

    def times_fewer(self, parameters: int) -> float | None:
        """Return the ratio of the backbone's parameters to `parameters`; None if `parameters` is 0."""
        return self.parameters / parameters if parameters else None


class WorkspaceInfo(_Frozen):
    """The workspace as a whole; `conpet_version` is the version that wrote the report."""

    name: str
    backbone: BackboneInfo
    method: str
    settings: Mapping[str, JsonValue]
    created: datetime
    conpet_version: str


class TaskInfo(_Frozen):
    """A task in the current state of the workspace.

    Attributes:
        name: The task's name.
        labels: Its labels.
        version: Its active version, from 1.
        train: Number of training examples.
        validation: Number of validation examples.
        test: Number of test examples.
        module_parameters: Parameters of its PET module, without head; 0 if counted with another task.
        head_parameters: Parameters of its head; 0 if counted with another task.
        bytes_stored: Bytes of its stored objects.
        counted_with: The task with the same module where its parameters are counted; None if counted here.
        notes: Notes on its data.
    """

    name: str
    labels: tuple[str, ...]
    version: int
    train: NonNegativeInt
    validation: NonNegativeInt
    test: NonNegativeInt
    module_parameters: NonNegativeInt
    head_parameters: NonNegativeInt
    bytes_stored: NonNegativeInt
    counted_with: str | None = None
    notes: tuple[str, ...] = ()


class Measures(_Frozen):
    """The metrics of an evaluation. None means not measured or not defined yet.

    All metrics are fractions, not percent.

    Attributes:
        scores: Correct answers by task; a task without test examples may be left out.
        whole_accuracy: Accuracy over the test examples of all tasks.
        average_accuracy: Mean of the accuracies of the tasks.
        forgetting: Mean drop from the best accuracy of each older task.
        backward_transfer: Mean change of older tasks since they were learned.
        selector_accuracy: Fraction of inputs whose true task is ranked first.
        within_task_accuracy: Fraction of correct labels when the true task is given.
        references: Whole accuracy of each reference classifier.
        forgetting_examples: Number of test examples of the older tasks that the two are measured on.
    """

    scores: Mapping[str, Score] = {}
    whole_accuracy: float | None = None
    average_accuracy: float | None = None
    forgetting: float | None = None
    backward_transfer: float | None = None
    forgetting_examples: NonNegativeInt = 0
    selector_accuracy: float | None = None
    within_task_accuracy: float | None = None
    references: Mapping[str, float] = {}


class Event(Measures):
    """A change of the workspace, with the results after it.

    Attributes:
        verb: The kind of change.
        task: The task changed; for `merge` the tasks joined by " + ", for `tune` the task searched, for `restore` the
            generation, for `upgrade`, `consolidate`, `costs` and `log` "".
        version: The active version of the task after the change (the removed version for `remove`); None if none.
        at: Time of the change.
        cost: Cost per stage, in display order.
        trainable_parameters: Parameters trained in this event, without heads.
        trainable_parameters_with_heads: Parameters trained in this event, with heads.
        bytes_stored: Bytes of the workspace on disk.
        peak_memory: Peak memory of the process during the change, in bytes, over all threads; None if not measured.
        cache_hit_rate: Fraction of states from the cache.
    """

    verb: Verb
    task: str
    version: int | None
    at: datetime
    cost: Mapping[str, StageCost] = {}
    trainable_parameters: NonNegativeInt = 0
    trainable_parameters_with_heads: NonNegativeInt = 0
    bytes_stored: NonNegativeInt = 0
    peak_memory: NonNegativeInt | None = None
    cache_hit_rate: float | None = None

    @property
    def title(self) -> str:
        """A short title: the name of the task if it was learned for the first time."""
        if self.verb is Verb.TUNE:
            return f"tune: {self.task}"
        if self.verb is Verb.REMOVE:
            return f"− {self.task}"
        if self.verb is Verb.ROLLBACK:
            return f"{self.task} ↩ v{self.version}"
        if not self.verb.of_one_task:
            return f"{self.verb} {self.task}".strip()
        if self.verb is not Verb.LEARN:
            return f"{self.task} v{self.version}, {self.verb}"
        return self.task if self.version == 1 else f"{self.task} v{self.version}"

    @property
    def changes_answers(self) -> bool:
        """Whether the predictions of the workspace may change."""
        return self.verb not in (Verb.TUNE, Verb.COSTS, Verb.LOG)

    @property
    def best_reference(self) -> tuple[str, float] | None:
        """The reference classifier with the highest whole accuracy, if there is one."""
        return max(self.references.items(), key=lambda item: item[1], default=None)

    @property
    def logistic(self) -> float | None:
        """Whole accuracy of logistic regression on the same features, if measured."""
        return self.references.get("logistic")

    @property
    def total_cost(self) -> StageCost:
        """All stages together."""
        return StageCost.total(self.cost.values())

    def accuracy(self, task: str) -> float | None:
        """Return the accuracy of a task after this event; None if not measured."""
        score = self.scores.get(task)
        return score.accuracy if score else None


class ReportData(_Frozen):
    """The content of a report.

    Attributes:
        workspace: The workspace.
        tasks: Its current tasks, in the order in which they were first learned.
        events: Its history, oldest first.
        selector_confusion: Number of test examples by true task, then by first-ranked task; missing entries are 0.
        label_results: Results by label after the last change, if it was evaluated.
        summary: The result of `evaluate` after the last event.
        design: The last search for a design, if any.
        generated: Time of the report.
        schema_version: Version of the JSON.
    """

    workspace: WorkspaceInfo
    tasks: tuple[TaskInfo, ...] = ()
    events: tuple[Event, ...] = ()
    selector_confusion: Mapping[str, Mapping[str, NonNegativeInt]] = {}
    label_results: LabelResults | None = None
    summary: Mapping[str, JsonValue] = {}
    design: TuneReport | None = None
    generated: datetime
    schema_version: Literal[1] = SCHEMA_VERSION

    @property
    def answering(self) -> tuple[Event, ...]:
        """The events that may change predictions, to which accuracies belong."""
        return tuple(event for event in self.events if event.changes_answers)

    def to_json(self) -> str:
        """Return the report as JSON, indented unless there are many events."""
        return self.model_dump_json(indent=2 if len(self.events) <= _INDENTED_EVENTS else None)

    @classmethod
    def from_json(cls, text: str) -> ReportData:
        """Invert `to_json`.

        Raises:
            CorruptionError: The text is not a report, or has another schema version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CorruptionError(
                f"not a conpet report of schema version {SCHEMA_VERSION}; write it again with `conpet report`: {error}"
            ) from error


_INDENTED_EVENTS = 50  # beyond it, one score per line would make the file ten times as large


def task_order(events: Sequence[Event]) -> tuple[str, ...]:
    """Return the names of all tasks in the events, including removed ones, by first appearance."""
    names: dict[str, None] = {}
    for event in events:
        if event.verb.of_one_task:
            names.setdefault(event.task)
    for event in events:
        names.update(dict.fromkeys(event.scores))
    return tuple(names)


def all_stages(events: Sequence[Event]) -> tuple[str, ...]:
    """Return the names of all stages with a cost, by first appearance."""
    return tuple(dict.fromkeys(stage for event in events for stage in event.cost))
