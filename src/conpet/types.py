"""The data types of the public API: examples and tasks; predictions, evaluations and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from conpet.cost import LOST, StageCost
from conpet.data import Example, Examples, Kind, Span, Task, TaskStream
from conpet.evaluation.metrics import (
    AccuracyMatrix,
    Measurement,
    Tally,
    average_accuracy,
    pooled,
    whole_accuracy,
)

__all__ = [
    "Candidate",
    "ConsolidationReport",
    "Evaluation",
    "Example",
    "Examples",
    "Generation",
    "Kind",
    "LearnReport",
    "Measurement",
    "MergeReport",
    "Prediction",
    "Span",
    "Tally",
    "Task",
    "TaskStream",
]

LOGISTIC = "logistic"
"""Reference: logistic regression on the features of all labels so far, what most people would try first."""
ACCURACY = "accuracy"
"""Metric: the correct label is ranked first among all labels learned."""
SELECTOR_ACCURACY = "selector_accuracy"
"""Metric: the selector ranks the true task first."""
PRESELECTION_ACCURACY = "preselection_accuracy"
"""Metric: the true task is among the k pre-selected tasks."""
WITHIN_TASK = "within_task_"
"""Prefix of metrics that are measured given the true task."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible answer with its score and task; the label is None for a task without labels."""

    label: str | None
    score: float
    task: str

    @property
    def shown(self) -> str:
        """The candidate as text."""
        return f"task {self.task}" if self.label is None else self.label


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one input, and its source.

    Attributes:
        label: The likeliest of all labels learned; None if the answering task has no labels.
        score: Probability of the answer among all labels and tasks, 0 to 1.
        task: Name of the task that answers.
        version: Version of that task.
        runners_up: The next likeliest answers, best first.
        generation: The workspace's generation that answered; None for a state that is not committed.
        answer: The answer of the task's head: the label, or a number, a text, ... (JSON-ready).
    """

    label: str | None
    score: float
    task: str
    version: int
    runners_up: tuple[Candidate, ...] = ()
    generation: int | None = None
    answer: Any = None

    @property
    def shown(self) -> str:
        """The answer as text."""
        return str(self.answer if self.label is None else self.label)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        document = {
            "label": self.label,
            "score": self.score,
            "task": self.task,
            "version": self.version,
            "generation": self.generation,
            "runners_up": [
                {"label": candidate.label, "score": candidate.score, "task": candidate.task}
                for candidate in self.runners_up
            ],
        }
        return document if self.label is not None else {"answer": self.answer, **document}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of a workspace on the test examples of its tasks.

    Attributes:
        tasks: Metrics by task and name, without tasks that have no test examples. The metrics depend on the task's head
            and on the method: "accuracy", "within_task_accuracy", "selector_accuracy", ...
        references: Accuracy of each reference classifier over the test examples of all tasks with labels.
        confusion: Number of examples by true task, then by the task that the selector ranks first.
        matrix: The accuracy matrix with this evaluation as its last row.
    """

    tasks: Mapping[str, Mapping[str, Measurement]]
    references: Mapping[str, Measurement] = field(default_factory=dict)
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    matrix: AccuracyMatrix = field(default_factory=AccuracyMatrix)

    def metric(self, name: str) -> dict[str, Measurement]:
        """Return one metric, by task, for the tasks that have it."""
        return {task: metrics[name] for task, metrics in self.tasks.items() if name in metrics}

    @property
    def tallies(self) -> dict[str, Tally]:
        """Correct answers among all labels, by task, without tasks that have no labels."""
        return {task: measurement.tally for task, measurement in self.metric(ACCURACY).items()}

    @property
    def whole_accuracy(self) -> float | None:
        """Share of correct labels over the test examples of all tasks with labels; None without test examples."""
        return whole_accuracy(self.tallies)

    @property
    def average_accuracy(self) -> float | None:
        """Mean of the tasks' accuracies; None without test examples."""
        return average_accuracy(self.tallies)

    @property
    def selector_accuracy(self) -> float | None:
        """Share of inputs whose true task the selector ranks first; None for a method without selector."""
        return pooled(self.metric(SELECTOR_ACCURACY).values())

    @property
    def preselection_accuracy(self) -> float | None:
        """Share of inputs whose true task is among the k pre-selected tasks; None for a method without selector."""
        return pooled(self.metric(PRESELECTION_ACCURACY).values())

    @property
    def within_task_accuracy(self) -> float | None:
        """Share of correct labels when the true task is given."""
        return pooled(self.metric(f"{WITHIN_TASK}{ACCURACY}").values())

    @property
    def best_reference(self) -> tuple[str, float] | None:
        """Name and whole accuracy of the best reference classifier, or None."""
        scored = [(reference.value, name) for name, reference in self.references.items() if reference.n]
        return (max(scored)[1], max(scored)[0]) if scored else None

    def in_words(self, labels: int) -> str:
        """Return whole accuracy over a number of labels, beside logistic regression and the best reference."""
        accuracy = "–" if self.whole_accuracy is None else f"{self.whole_accuracy:.1%}"
        logistic, best = self.references.get(LOGISTIC), self.best_reference
        beside = [f"logistic regression on the same features {logistic.value:.1%}"] if logistic and logistic.n else []
        beside += [f"best reference {best[0]} {best[1]:.1%}"] if best and best[0] != LOGISTIC else []
        line = f"whole accuracy {accuracy} over {labels:,} label{'' if labels == 1 else 's'}"
        return f"{line} ({'; '.join(beside)})" if beside else line


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The result of merging tasks.

    Attributes:
        tasks: Names of the tasks that now share a module.
        before: Correct answers on their validation examples, among all labels, with the former modules.
        after: The same with the shared module.
        bytes_before: Size of the workspace's learned objects before the merge.
        bytes_after: The same after the merge.
        evaluation: The evaluation after the merge, or None if none was requested.
    """

    tasks: tuple[str, ...]
    before: Tally
    after: Tally
    bytes_before: int
    bytes_after: int
    evaluation: Evaluation | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; accuracies are fractions."""
        return {
            "tasks": list(self.tasks),
            "validation_examples": self.before.total,
            "accuracy_before": self.before.accuracy,
            "accuracy_after": self.after.accuracy,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "whole_accuracy": self.evaluation.whole_accuracy if self.evaluation else None,
        }


@dataclass(frozen=True, slots=True)
class ConsolidationReport:
    """The result of a consolidation.

    Attributes:
        tasks: Names of the tasks learned again.
        examples: Number of training examples that they were learned from.
        before: Correct answers on their validation examples, among all labels, before the consolidation.
        after: The same after it.
        replaced: The generation before the consolidation; `ConPET.restore` goes back to it.
        bytes_before: Size of the workspace's learned objects before the consolidation.
        bytes_after: The same after it, without what only the replaced generation needs.
        cost: The cost of each stage.
        notes: Notes for the user.
        evaluation: The evaluation after the consolidation, or None if none was requested.
    """

    tasks: tuple[str, ...]
    examples: int
    before: Tally
    after: Tally
    replaced: int
    bytes_before: int
    bytes_after: int
    cost: tuple[StageCost, ...]
    notes: tuple[str, ...] = ()
    evaluation: Evaluation | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds for stage in self.cost)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; accuracies are fractions."""
        return {
            "tasks": list(self.tasks),
            "examples": self.examples,
            "validation_examples": self.before.total,
            "accuracy_before": self.before.accuracy,
            "accuracy_after": self.after.accuracy,
            "replaced_generation": self.replaced,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "whole_accuracy": self.evaluation.whole_accuracy if self.evaluation else None,
        }

    def __str__(self) -> str:
        return (
            f"consolidated {self.examples:,} training examples in {self.seconds:.1f} s: accuracy on "
            f"{self.before.total:,} validation examples {self.after.accuracy or 0:.1%}, before "
            f"{self.before.accuracy or 0:.1%}; generation {self.replaced} is kept"
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation of a workspace: the present one, or a former one that is kept.

    Attributes:
        number: The generation.
        time: When it was made, in UTC.
        verb: The change that made it.
        present: Whether it is the present one.
        tasks: Names of its tasks.
        labels: Number of its labels.
        consolidated: Number of tasks that its backbone was consolidated with; 0 for none.
        whole_accuracy: Whole accuracy measured by the change that made it, or None.
        bytes: Size of the objects that only this generation needs; for the present one, of all its objects.
    """

    number: int
    time: datetime
    verb: str
    present: bool
    tasks: tuple[str, ...]
    labels: int
    consolidated: int
    whole_accuracy: float | None
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"time": self.time.isoformat(), "tasks": list(self.tasks)}


@dataclass(frozen=True, slots=True)
class LearnReport:
    """The result of learning one task; `str(report)` is a one-line summary.

    Attributes:
        task: The task's name.
        version: The version learned, or the active one if it was skipped.
        skipped: Whether the task was already learned from the same data, so that nothing was done.
        labels: Number of its labels.
        tasks_seen: Number of tasks in the workspace.
        labels_seen: Number of labels in the workspace.
        evaluation: The evaluation after the change, or None if none was requested.
        forgetting: Mean fall of older tasks from their best accuracy; None without an evaluation.
        backward_transfer: Mean change of older tasks' accuracy since they were learned; None without an evaluation.
        cost: The cost of each stage.
        trainable_parameters: Trained parameters of the PET module.
        head_parameters: Trained parameters of its head.
        backbone_parameters: Frozen parameters.
        bytes_stored: Size of the workspace's learned objects.
        notes: Notes for the user on the data just learned.
        changed_since: Whether it was skipped, and labels were renamed, extended, split or retired since it was learned
            from this data.
        consolidation_due: Why a consolidation is due now, with the cost and gain of the last one; None if it is not.
        consolidation: The report of the consolidation that followed, by `learn_stream(..., consolidate="doubling")`.
    """

    task: str
    version: int
    skipped: bool
    labels: int
    tasks_seen: int
    labels_seen: int
    evaluation: Evaluation | None = None
    forgetting: float | None = None
    backward_transfer: float | None = None
    cost: tuple[StageCost, ...] = ()
    trainable_parameters: int = 0
    head_parameters: int = 0
    backbone_parameters: int = 0
    bytes_stored: int = 0
    notes: tuple[str, ...] = ()
    changed_since: bool = False
    consolidation_due: str | None = None
    consolidation: ConsolidationReport | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds for stage in self.cost)

    def __str__(self) -> str:
        if self.changed_since:
            return (
                f"{self.task}: already learned from this data, and changed since by rename, extend, split or retire "
                f"(version {self.version}); nothing done. To go back, use `conpet modules rollback` (not after "
                "retire). To learn it again, first use `conpet modules remove`, or give it another name and new labels"
            )
        if self.skipped:
            return f"{self.task}: already learned from the same data (version {self.version}); nothing done"
        lost = sum(stage.seconds for stage in self.cost if stage.stage == LOST)
        parts = [
            f"{self.task}: learned {self.labels} labels as version {self.version} in {self.seconds:.1f} s"
            + (f", of which {lost:.1f} s were lost to interruptions" if lost else "")
        ]
        if self.evaluation and self.evaluation.whole_accuracy is not None:
            parts.append(self.evaluation.in_words(self.labels_seen))
        if self.forgetting is not None:
            parts.append(f"forgetting {100 * self.forgetting:z.1f} points")
        return "; ".join(parts)
