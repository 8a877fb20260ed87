"""What a report says, as plain values: filled by whoever has a workspace, read by the renderers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue, NonNegativeFloat, NonNegativeInt, ValidationError

from conpet.errors import CorruptionError
from conpet.report.design import TuneReport

NOTABLE_FALL = 0.02
"""Loss of accuracy from which a report marks it; less is what new labels cost any classifier."""
SCHEMA_VERSION: Final = 1
"""Version of the JSON; it grows by one whenever a field changes its name or meaning."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Verb(StrEnum):
    """What changed the workspace."""

    LEARN = "learn"
    ROLLBACK = "rollback"
    REMOVE = "remove"
    TUNE = "tune"
    RENAME = "rename"
    RETIRE = "retire"
    SPLIT = "split"
    MERGE = "merge"
    UPGRADE = "upgrade"

    @property
    def trains(self) -> bool:
        """Whether it makes a version of a task by learning."""
        return self in (Verb.LEARN, Verb.SPLIT)

    @property
    def of_one_task(self) -> bool:
        """Whether it changes one task."""
        return self not in (Verb.MERGE, Verb.UPGRADE, Verb.TUNE)


class Score(NamedTuple):
    """Right answers among the test examples of one task; a JSON list of two."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """Share that is right, 0 to 1; None without examples."""
        return self.correct / self.total if self.total else None


class StageCost(_Frozen):
    """What one stage of an event took.

    Attributes:
        seconds: Wall-clock time.
        backbone_tokens: Tokens that went through the backbone (what the cache gave is not counted).
        optimiser_steps: Steps of gradient descent.
    """

    seconds: NonNegativeFloat = 0.0
    backbone_tokens: NonNegativeInt = 0
    optimiser_steps: NonNegativeInt = 0

    @classmethod
    def total(cls, costs: Iterable[StageCost]) -> StageCost:
        """Return the sum of costs."""
        every = tuple(costs)
        return cls(
            seconds=sum(cost.seconds for cost in every),
            backbone_tokens=sum(cost.backbone_tokens for cost in every),
            optimiser_steps=sum(cost.optimiser_steps for cost in every),
        )


class BackboneInfo(_Frozen):
    """The frozen model: its first `frozen_layers` of `layers` carry no PET modules; `warmup` is the task it was tuned with."""

    name: str
    architecture: str
    layers: NonNegativeInt
    frozen_layers: NonNegativeInt
    hidden_size: NonNegativeInt
    parameters: NonNegativeInt
    dtype: str
    fingerprint: str
    warmup: str | None = None

    def times_fewer(self, parameters: int) -> float | None:
        """Return how many times fewer than the backbone's `parameters` are; None where there are none."""
        return self.parameters / parameters if parameters else None


class WorkspaceInfo(_Frozen):
    """The workspace as a whole; `conpet_version` is the one that made the report."""

    name: str
    backbone: BackboneInfo
    method: str
    settings: Mapping[str, JsonValue]
    created: datetime
    conpet_version: str


class TaskInfo(_Frozen):
    """One task of the workspace as it stands.

    Attributes:
        name: The task's name.
        labels: Its labels.
        version: Version of its module in use, from 1.
        train: Number of examples learned from.
        validation: Number of examples for choices.
        test: Number of examples for the metrics.
        module_parameters: Parameters of its PET module, without head; 0 where another task counts it.
        head_parameters: Parameters of its head, likewise.
        bytes_stored: Bytes on disk of all that belongs to it.
        counted_with: Another task, served by the same module, that counts it; None: it is counted here.
        notes: What the user should know of its data.
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


class Event(_Frozen):
    """One change of the workspace and how it stood right after. None is "not measured" or "not defined yet".

    All metrics are fractions, not percent.

    Attributes:
        verb: What was done.
        task: To which task; for `merge` to which, joined by " + ", for `tune` on which, for `upgrade` empty.
        version: Version of the task's module that it left in use (that it removed, for `remove`); None where it is not
            about one.
        at: When it was done.
        scores: Right answers per task; a task without test examples may be left out.
        whole_accuracy: Right answers over the test examples of all tasks.
        average_accuracy: Mean of the tasks' accuracies.
        forgetting: Mean fall from each older task's best accuracy.
        backward_transfer: Mean change of older tasks since they were learned.
        selector_accuracy: Share of inputs whose true task is ranked first.
        within_task_accuracy: Share of right labels when the true task is given.
        references: Whole accuracy of each closed-form reference.
        cost: Cost per stage, in the order to be shown.
        trainable_parameters: Parameters trained in this event, without heads.
        trainable_parameters_with_heads: The same, with heads.
        bytes_stored: Bytes of the workspace on disk.
        peak_memory: Most bytes that the process held in memory while it ran, all threads together; None: not measured.
        cache_hit_rate: Share of states that came from the cache.
    """

    verb: Verb
    task: str
    version: int | None
    at: datetime
    scores: Mapping[str, Score] = {}
    whole_accuracy: float | None = None
    average_accuracy: float | None = None
    forgetting: float | None = None
    backward_transfer: float | None = None
    selector_accuracy: float | None = None
    within_task_accuracy: float | None = None
    references: Mapping[str, float] = {}
    cost: Mapping[str, StageCost] = {}
    trainable_parameters: NonNegativeInt = 0
    trainable_parameters_with_heads: NonNegativeInt = 0
    bytes_stored: NonNegativeInt = 0
    peak_memory: NonNegativeInt | None = None
    cache_hit_rate: float | None = None

    @property
    def title(self) -> str:
        """The event in as few words as tell it from the others: the task's name, where it was learned first."""
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
        """Whether the workspace may answer otherwise than before."""
        return self.verb is not Verb.TUNE

    @property
    def best_reference(self) -> tuple[str, float] | None:
        """The closed-form reference with the highest whole accuracy, if there is one."""
        return max(self.references.items(), key=lambda item: item[1], default=None)

    @property
    def total_cost(self) -> StageCost:
        """All stages together."""
        return StageCost.total(self.cost.values())

    def accuracy(self, task: str) -> float | None:
        """Return the accuracy of one task after this event; None where it was not measured."""
        score = self.scores.get(task)
        return score.accuracy if score else None


class ReportData(_Frozen):
    """Everything a report shows.

    Attributes:
        workspace: The workspace.
        tasks: Its tasks as they stand, in the order they were first learned.
        events: Its history, oldest first.
        selector_confusion: Test examples by true, then by first-ranked task; what is left out is 0.
        summary: What `evaluate` returns, as it stands at the end.
        design: The last search for a design, if there was one.
        generated: When the report was made.
        schema_version: Version of the JSON.
    """

    workspace: WorkspaceInfo
    tasks: tuple[TaskInfo, ...] = ()
    events: tuple[Event, ...] = ()
    selector_confusion: Mapping[str, Mapping[str, NonNegativeInt]] = {}
    summary: Mapping[str, JsonValue] = {}
    design: TuneReport | None = None
    generated: datetime
    schema_version: Literal[1] = SCHEMA_VERSION

    @property
    def answering(self) -> tuple[Event, ...]:
        """The events after which the workspace may answer otherwise than before: those that accuracies belong to."""
        return tuple(event for event in self.events if event.changes_answers)

    def to_json(self) -> str:
        """Return the report as indented JSON (non-ASCII text as it is)."""
        return self.model_dump_json(indent=2 if len(self.events) <= _INDENTED_EVENTS else None)

    @classmethod
    def from_json(cls, text: str) -> ReportData:
        """Invert `to_json`.

        Raises:
            CorruptionError: The text is not a report, or one of another schema version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CorruptionError(
                f"not a conpet report of schema version {SCHEMA_VERSION}; make it again with `conpet report`: {error}"
            ) from error


_INDENTED_EVENTS = 50  # beyond it the scores, one number a line, would make a file nobody reads ten times as large


def task_order(events: Sequence[Event]) -> tuple[str, ...]:
    """Return the names of all tasks that the events learned or scored, removed ones too, by first appearance."""
    names: dict[str, None] = {}
    for event in events:
        if event.verb.of_one_task:
            names.setdefault(event.task)
    for event in events:
        names.update(dict.fromkeys(event.scores))
    return tuple(names)


def all_stages(events: Sequence[Event]) -> tuple[str, ...]:
    """Return the names of the stages that the events' cost is divided into, by first appearance."""
    return tuple(dict.fromkeys(stage for event in events for stage in event.cost))
