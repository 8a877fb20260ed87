"""The data types of the public API: examples and tasks; predictions, evaluations and reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from math import fsum
from typing import Any, Literal

from conpet.config import PricesConfig
from conpet.cost import LOST, StageCost
from conpet.data import Example, Examples, Input, Kind, Span, Task, TaskStream
from conpet.data.truncation import CutInputs
from conpet.errors import ConfigError, listed, plural
from conpet.evaluation.answers import (
    AnsweredExample,
    Calibration,
    Confusion,
    LabelAverage,
    LabelScore,
    UnansweredExample,
    calibration,
    confusions,
    label_scores,
    macro_average,
    weighted_average,
)
from conpet.evaluation.gate import CandidateRecord, GateReport
from conpet.evaluation.metrics import (
    AccuracyMatrix,
    Measurement,
    Tally,
    average_accuracy,
    backward_transfer,
    forgetting,
    forgetting_examples,
    pooled,
    whole_accuracy,
)

__all__ = [
    "Addition",
    "AnsweredExample",
    "Calibration",
    "Candidate",
    "CandidateRecord",
    "CheckedKind",
    "Confusion",
    "ConsolidationReport",
    "Costs",
    "Decision",
    "Evaluation",
    "Example",
    "Examples",
    "Explanation",
    "ForgetReport",
    "ForgottenTask",
    "GateReport",
    "Generation",
    "Input",
    "Kind",
    "LabelScore",
    "LearnReport",
    "LogEntry",
    "Measurement",
    "MergeReport",
    "Neighbour",
    "OnError",
    "PredictOptions",
    "Prediction",
    "RankedTask",
    "Span",
    "Tally",
    "Task",
    "TaskStream",
    "Trace",
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

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {"label": self.label, "score": self.score, "task": self.task}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Candidate:
        """Rebuild a candidate from `to_json`."""
        return cls(document["label"], document["score"], document["task"])


OnError = Literal["fail", "skip", "report"]
"""What to do with inputs that cannot be predicted: predict none, leave them out, or return a `Problem` for each."""
ON_ERROR: tuple[OnError, ...] = ("fail", "skip", "report")
"""The values of `OnError`."""


Decision = Literal["answer", "ask", "decline"]
"""What to do with an input: give the label, offer candidates, or say that it belongs to nothing learned."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What a prediction consists of; checked on construction.

    Attributes:
        top_n: Number of labels with scores for each input, 1 or more: the answer and `top_n - 1` runners-up.
        min_score: Answers with a lower score are rejected, 0 to 1.
        on_error: What to do with inputs that cannot be predicted.
        explain: Whether to return why each input was answered as it was.

    Raises:
        ConfigError: A value is out of range.
    """

    top_n: int = 3
    min_score: float = 0.0
    on_error: OnError = "fail"
    explain: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.top_n, int) or self.top_n < 1:
            raise ConfigError(f"top_n={self.top_n!r}: give a whole number, 1 or more")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score={self.min_score!r}: give a number from 0 to 1")
        if self.on_error not in ON_ERROR:
            raise ConfigError(f"on_error={self.on_error!r}: give one of {', '.join(map(repr, ON_ERROR))}")


@dataclass(frozen=True, slots=True)
class RankedTask:
    """A task with its probability, 0 to 1."""

    task: str
    score: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training example near an input.

    Attributes:
        task: Name of its task.
        label: Its label; None for a task without labels.
        similarity: Cosine of the frozen features, -1 to 1.
        example: The example, or None if its text is not stored.
    """

    task: str
    label: str | None
    similarity: float
    example: Example | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        example = self.example.to_json() if self.example else None
        return {"task": self.task, "label": self.label, "similarity": self.similarity, "example": example}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Neighbour:
        """Rebuild a neighbour from `to_json`."""
        example = Example.from_json(document["example"]) if document["example"] else None
        return cls(document["task"], document["label"], document["similarity"], example)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an input was answered as it was.

    Attributes:
        ranking: The likeliest tasks by the selector, best first; by the answer, for a method without selector.
        modules: The tasks whose modules were run on the input; none if the fusion decided without one.
        nearest: The training examples most like the input, among those of the likeliest tasks.
    """

    ranking: tuple[RankedTask, ...]
    modules: tuple[str, ...]
    nearest: tuple[Neighbour, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "ranking": [{"task": ranked.task, "score": ranked.score} for ranked in self.ranking],
            "modules": list(self.modules),
            "nearest": [neighbour.to_json() for neighbour in self.nearest],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Explanation:
        """Rebuild an explanation from `to_json`."""
        return cls(
            tuple(RankedTask(ranked["task"], ranked["score"]) for ranked in document["ranking"]),
            tuple(document["modules"]),
            tuple(Neighbour.from_json(neighbour) for neighbour in document["nearest"]),
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """How an answer came about, for the record of predictions.

    Attributes:
        selector: Probability of the likeliest task by the selector, 0 to 1; by the answer, without a selector.
        scope: Score of belonging to something learned: relative Mahalanobis on the frozen features.
        modules: Tasks and versions whose modules were run.
    """

    selector: float
    scope: float
    modules: tuple[tuple[str, int], ...] = ()


def example_of(kind: str, content: str) -> Example:
    """Return the input that was recorded of a prediction, given its kind."""
    return Example.of_text(content) if kind == Kind.TEXT else Example.from_json(json.loads(content))


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A recorded prediction.

    Attributes:
        id: Its number; later entries have higher ones.
        time: When it was answered.
        request: Id of the HTTP request, or of the call of `predict`.
        place: Number of the input in the request, from 1.
        hash: Keyed hash of the input, in hexadecimal digits.
        content: The input, if inputs are recorded: a text, or JSON for other kinds.
        kind: Kind of the input.
        generation: The generation that answered.
        task: The task that answered.
        version: Its version.
        label: The likeliest label, also if it was not given as the answer; None for a task without labels.
        score: Probability of the label if the input belongs to something learned.
        in_scope: Probability that the input belongs to something learned.
        confidence: Probability that the label is right.
        decision: "answer", "ask" or "decline".
        selector: Probability of the likeliest task by the selector.
        scope: Score of belonging to something learned.
        modules: Tasks and versions whose modules were run.
    """

    id: int
    time: datetime
    request: str
    place: int
    hash: str
    content: str | None
    kind: str
    generation: int | None
    task: str
    version: int
    label: str | None
    score: float
    in_scope: float
    confidence: float
    decision: str
    selector: float | None
    scope: float | None
    modules: tuple[tuple[str, int], ...]

    @property
    def example(self) -> Example | None:
        """The input, if inputs are recorded."""
        return None if self.content is None else example_of(self.kind, self.content)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        document = {name: getattr(self, name) for name in self.__slots__}
        modules = [{"task": task, "version": version} for task, version in self.modules]
        return document | {"time": self.time.isoformat(), "modules": modules}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LogEntry:
        """Rebuild an entry from `to_json`."""
        modules = tuple((one["task"], one["version"]) for one in document["modules"])
        return cls(**{**document, "time": datetime.fromisoformat(document["time"]), "modules": modules})


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one input, and its source.

    Attributes:
        label: The likeliest of all labels learned; None if the answering task has no labels, or if its score is below
            the requested `min_score`.
        score: Probability of the answer among all labels and tasks, 0 to 1, if the input belongs to one of them.
        task: Name of the task that answers.
        version: Version of that task.
        runners_up: The next likeliest answers, best first.
        generation: The workspace's generation that answered; None for a state that is not committed.
        answer: The answer of the task's head: the label, or a number, a text, ... (JSON-ready); None below `min_score`.
        rejected: The answer that would have been given without `min_score`; None if the answer is given.
        cut_tokens: Number of tokens of the input that were not read because it exceeds `backbone.max_tokens`; 0 if it
            was read whole.
        explanation: Why it was answered in this way, if asked for.
        decision: "answer"; "ask", which offers `candidates`; or "decline": the input belongs to nothing learned.
        reason: Why, in a sentence, with what cannot be promised.
        in_scope: Probability that the input belongs to something learned, 0 to 1.
        confidence: Probability that the answer is right, 0 to 1; unlike `score`, it allows for inputs that belong to
            nothing learned.
        candidates: The labels to choose from, likeliest first, each with its probability; only if the decision is
            "ask".
        request_id: The name under which the prediction was recorded (see `ConPET.trace_request`); None if it was not.
        trace: How it came about, if it was recorded in this process.
    """

    label: str | None
    score: float
    task: str
    version: int
    runners_up: tuple[Candidate, ...] = ()
    generation: int | None = None
    answer: Any = None
    rejected: Any = None
    cut_tokens: int = 0
    explanation: Explanation | None = None
    decision: Decision = "answer"
    reason: str = ""
    in_scope: float = 1.0
    confidence: float = 1.0
    candidates: tuple[Candidate, ...] = ()
    request_id: str | None = field(default=None, compare=False)
    trace: Trace | None = field(default=None, compare=False, repr=False)

    def with_options(self, top_n: int, min_score: float) -> Prediction:
        """Return the prediction with fewer labels, and rejected if its score is lower than `min_score`.

        What would be answered is declined then; a question stays one.
        """
        runners_up = self.runners_up[: top_n - 1]
        answer = self if len(runners_up) == len(self.runners_up) else replace(self, runners_up=runners_up)
        if answer.score >= min_score or answer.rejected is not None:
            return answer
        rejected = replace(answer, label=None, answer=None, rejected=answer.answer)
        if answer.decision != "answer":
            return rejected
        return replace(rejected, decision="decline", reason=f"score {answer.score:.2f} is below {min_score:g}")

    @property
    def candidates_score(self) -> float:
        """Probability that one of the candidates is right, 0 to 1; 0 without candidates."""
        return min(1.0, fsum(candidate.score for candidate in self.candidates))

    @property
    def shown(self) -> str:
        """The answer as text; empty if it was rejected."""
        if self.rejected is not None:
            return ""
        return str(self.answer if self.label is None else self.label)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; some fields only where they say something."""
        document: dict[str, Any] = {
            "label": self.label,
            "score": self.score,
            "task": self.task,
            "version": self.version,
            "generation": self.generation,
            "runners_up": [candidate.to_json() for candidate in self.runners_up],
            "decision": self.decision,
            "reason": self.reason,
            "in_scope": self.in_scope,
            "confidence": self.confidence,
        }
        if self.candidates:
            document["candidates"] = [candidate.to_json() for candidate in self.candidates]
            document["candidates_score"] = self.candidates_score
        if self.cut_tokens:
            document["cut_tokens"] = self.cut_tokens
        if self.request_id is not None:
            document["request_id"] = self.request_id
        if self.explanation is not None:
            document["explanation"] = self.explanation.to_json()
        if self.rejected is not None:
            return {"label": None, "rejected": self.rejected, **document}
        return document if self.label is not None else {"answer": self.answer, **document}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Prediction:
        """Rebuild a prediction from `to_json`."""
        explanation = document.get("explanation")
        return cls(
            document["label"],
            document["score"],
            document["task"],
            document["version"],
            tuple(map(Candidate.from_json, document["runners_up"])),
            document["generation"],
            document.get("answer", document["label"]),
            document.get("rejected"),
            document.get("cut_tokens", 0),
            Explanation.from_json(explanation) if explanation is not None else None,
            document["decision"],
            document["reason"],
            document["in_scope"],
            document["confidence"],
            tuple(map(Candidate.from_json, document.get("candidates", ()))),
            document.get("request_id"),
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What an evaluation leaves out because a module is damaged; `str(left_out)` is a message for the user.

    Attributes:
        reason: Which file is damaged, and how to get it back.
        tasks: The tasks without any metric.
        examples: Number of examples left out, also of other tasks.
    """

    reason: str
    tasks: tuple[str, ...]
    examples: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {"reason": self.reason, "tasks": list(self.tasks), "examples": self.examples}

    def __str__(self) -> str:
        tasks = f"{'task' if len(self.tasks) == 1 else 'tasks'} {listed([repr(task) for task in self.tasks])}, "
        return f"not evaluated: {tasks if self.tasks else ''}{plural(self.examples, 'example')}. {self.reason}"


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """Examples whose inputs a workspace was trained on: accuracy on them is not a test.

    Attributes:
        rows: Their numbers from 1, as in `AnsweredExample`.
        not_compared: Number of the examples learned from that could not be compared, because their texts are not
            stored. Classifiers learn from validation examples, too (`features.refit`).
    """

    rows: tuple[int, ...]
    not_compared: int = 0


@dataclass(frozen=True, slots=True)
class CheckedKind:
    """What the decisions on inputs of one kind rest on.

    Attributes:
        kind: The kind of input.
        known: Held-out examples of learned labels that were scored.
        unknown: Examples scored as if their label or task had not been learned.
        answered: Validation examples on which the probabilities of labels are checked.
        note: What cannot be promised, and why; None if nothing.
        needed: With a coverage: validation examples a label needs for a promise of its own.
        without_promise: With a coverage: labels that have fewer; the promise is for all inputs together.
    """

    kind: str
    known: int
    unknown: int
    answered: int
    note: str | None
    needed: int | None = None
    without_promise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Costs:
    """What mistakes cost in a workspace, or the coverage wanted, and what its decisions rest on.

    Attributes:
        error: Cost of a wrong answer.
        question: Cost of a question.
        refusal: Cost of a refusal.
        coverage: The coverage that takes the place of the costs, or None.
        unknown_share: Expected share of inputs that belong to nothing learned.
        kinds: By kind of input that was learned.
        prices: Prices in money of resources, wrong answers and delays.
    """

    error: float
    question: float
    refusal: float
    coverage: float | None
    unknown_share: float
    kinds: tuple[CheckedKind, ...] = ()
    prices: PricesConfig = field(default_factory=PricesConfig)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"prices": self.prices.model_dump(mode="json")}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of a workspace on the test examples of its tasks, or on examples of the caller.

    Attributes:
        tasks: Metrics by task and name, without tasks that have no test examples. The metrics depend on the task's head
            and on the method: "accuracy", "within_task_accuracy", "selector_accuracy", ...
        references: Accuracy of each reference classifier over the test examples of all tasks with labels.
        selector_confusion: Number of examples by true task, then by the task that the selector ranks first.
        matrix: The accuracy matrix with this evaluation as its last row; empty for examples of the caller.
        answers: Each test example of a task with labels, with its answer.
        unknown: The same for examples of the caller whose label the workspace has not learned. They are part of no
            other metric.
        cut: How many of the examples are longer than `backbone.max_tokens`.
        unanswered: Examples that are part of no metric because their answers need a damaged module.
        trained_on: Which examples of the caller the workspace was trained on; None for its own test examples.
    """

    tasks: Mapping[str, Mapping[str, Measurement]]
    references: Mapping[str, Measurement] = field(default_factory=dict)
    selector_confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    matrix: AccuracyMatrix = field(default_factory=AccuracyMatrix)
    answers: tuple[AnsweredExample, ...] = field(default=(), repr=False, compare=False)
    unknown: tuple[AnsweredExample, ...] = field(default=(), repr=False, compare=False)
    cut: CutInputs = field(default_factory=CutInputs)
    unanswered: tuple[UnansweredExample, ...] = field(default=(), repr=False, compare=False)
    trained_on: TrainedOn | None = field(default=None, repr=False, compare=False)

    def metric(self, name: str) -> dict[str, Measurement]:
        """Return one metric, by task, for the tasks that have it."""
        return {task: metrics[name] for task, metrics in self.tasks.items() if name in metrics}

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What is missing from the metrics, for each damaged module."""
        by_reason: dict[str, list[UnansweredExample]] = {}
        for one in self.unanswered:
            by_reason.setdefault(one.reason, []).append(one)
        return tuple(
            LeftOut(
                reason,
                tuple(
                    dict.fromkeys(one.task for one in examples if one.task is not None and one.task not in self.tasks)
                ),
                len(examples),
            )
            for reason, examples in by_reason.items()
        )

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
    def forgetting(self) -> float | None:
        """Mean fall of older tasks from their best accuracy, as a fraction; negative for a rise.

        0.0 if no older task was measured before; None without test examples, and for examples of the caller.
        """
        return forgetting(self.matrix)

    @property
    def backward_transfer(self) -> float | None:
        """Mean change of older tasks' accuracy since they were learned; 0.0 and None as in `forgetting`."""
        return backward_transfer(self.matrix)

    @property
    def labels(self) -> dict[str, LabelScore]:
        """Precision, recall, F1 and support by label, the lowest F1 first."""
        return label_scores(self.answers)

    @property
    def macro_average(self) -> LabelAverage | None:
        """Mean of the labels' scores: every label weighs the same; None without test examples."""
        return macro_average(self.labels.values())

    @property
    def weighted_average(self) -> LabelAverage | None:
        """Mean of the labels' scores, weighted by their number of examples; None without test examples."""
        return weighted_average(self.labels.values())

    @property
    def confusion(self) -> tuple[Confusion, ...]:
        """Which label is taken for which, with the examples behind it, the most frequent first."""
        return confusions(self.answers)

    @property
    def calibration(self) -> Calibration | None:
        """Whether scores can be read as probabilities: accuracy by score; None without test examples."""
        return calibration(self.answers)

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
class Addition:
    """What `ConPET.learn_mixed` gives to one task; `str(addition)` is a line for the user.

    Attributes:
        task: The task.
        new: Whether it is new.
        labels: The labels of the examples.
        new_labels: Those that the task does not have yet.
        train: Number of training examples that are added.
        validation: Number of validation examples that are added.
        test: Number of test examples that are added.
        stored: Number of examples that are ignored because their inputs are stored already.
        repeated: Number of examples that are ignored because their inputs are given twice.
    """

    task: str
    new: bool
    labels: tuple[str, ...]
    new_labels: tuple[str, ...]
    train: int
    validation: int
    test: int
    stored: int = 0
    repeated: int = 0

    def __str__(self) -> str:
        if not self.train + self.validation + self.test:
            return f"{self.task}: nothing new ({plural(self.stored + self.repeated, 'example')}, already stored)"
        held_out = [f"{number:,} {name}" for name in ("validation", "test") if (number := getattr(self, name))]
        examples = plural(self.train, "training example" if self.new else "more training example")
        labels = plural(len(self.labels), "label")
        held = f" (and {' + '.join(held_out)})" if held_out else ""
        added = f"{examples}{held} of {labels}"
        if self.new:
            return f"{self.task}: a new task, {added}"
        new = f", {len(self.new_labels):,} of them new" if self.new_labels else ""
        stored = f"; {plural(self.stored, 'example')} already stored" if self.stored else ""
        repeated = f"; {plural(self.repeated, 'example')} given twice" if self.repeated else ""
        return f"{self.task}: a new version, {added}{new}{stored}{repeated}"


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
        share: Share of the trained change that was folded into the backbone, above 0 and up to 1; None if the backbone
            was left as it is.
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
    share: float | None
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
            "share": self.share,
            "replaced_generation": self.replaced,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "whole_accuracy": self.evaluation.whole_accuracy if self.evaluation else None,
        }

    def __str__(self) -> str:
        done = "one module for all labels" if self.share is None else f"share {self.share:.2g}"
        return (
            f"consolidated {self.examples:,} training examples in {self.seconds:.1f} s: accuracy on "
            f"{self.before.total:,} validation examples {self.after.accuracy or 0:.1%}, before "
            f"{self.before.accuracy or 0:.1%}; {done}; generation {self.replaced} is kept"
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
        consolidated: Number of tasks of its last consolidation; 0 for none.
        layers: Which layers that trained: "all" or "top" (`ConsolidationConfig.layers`); None without one.
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
    layers: str | None
    whole_accuracy: float | None
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"time": self.time.isoformat(), "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Generation:
        """Rebuild a generation from `to_json`."""
        time, tasks = datetime.fromisoformat(document["time"]), tuple(document["tasks"])
        return cls(**{**document, "time": time, "tasks": tasks})


@dataclass(frozen=True, slots=True)
class ForgottenTask:
    """What a task loses when rows are forgotten.

    Attributes:
        task: Its name.
        rows: Number of rows by subset: "train" (stored or only learned), "validation", "test".
        labels: Labels that go, because no training example of them remains.
        removed: Whether the task goes as a whole.
        versions: Number of its older versions that are deleted, because they hold the rows or may hold them.
    """

    task: str
    rows: Mapping[str, int]
    labels: tuple[str, ...]
    removed: bool
    versions: int

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {subset}" for subset, count in self.rows.items() if count)
        parts = [counts or "none in the active version"]
        if self.removed:
            parts.append("the task goes")
        elif self.labels:
            what, do = ("label", "goes") if len(self.labels) == 1 else ("labels", "go")
            parts.append(f"{what} {listed(self.labels)} {do}")
        if self.versions:
            parts.append(f"{plural(self.versions, 'older version')} deleted")
        return f"{self.task}: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What was forgotten, or would be; `str(report)` is a summary.

    Attributes:
        dry_run: Whether nothing was changed.
        tasks: What each task loses.
        generations: Kept generations that are dropped, because they hold the rows or may hold them.
        learned_again: Names of the tasks that are learned again.
        scope: "everything" or "consolidation" if all tasks are learned again; None if at most single modules are.
        still_trained: What stays trained on the rows, because nothing was learned again.
        unmatched: The inputs, ids and hashes that match no stored row, by their numbers: "input 3", "id 2".
        recorded: Number of recorded predictions that are cleared.
        notes: Notes for the user.
        cost: The cost of each stage.
        evaluation: The evaluation after the change, or None.
        receipt: The receipt (JSON-ready); None if nothing was changed.
        reviewed: Number of items in review that are deleted.
        fitted_again: Whether classifiers are fitted again, because they had learned from the rows.
    """

    dry_run: bool
    tasks: tuple[ForgottenTask, ...]
    generations: tuple[int, ...] = ()
    learned_again: tuple[str, ...] = ()
    scope: str | None = None
    still_trained: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    recorded: int = 0
    notes: tuple[str, ...] = ()
    cost: tuple[StageCost, ...] = ()
    evaluation: Evaluation | None = None
    receipt: Mapping[str, Any] | None = None
    reviewed: int = 0
    fitted_again: bool = False

    @property
    def rows(self) -> int:
        """Number of rows in active versions."""
        return sum(sum(task.rows.values()) for task in self.tasks)

    @property
    def complete(self) -> bool:
        """Whether everything was deleted, and nothing of it was found afterwards."""
        return bool(self.receipt and self.receipt["complete"])

    @property
    def lines(self) -> list[str]:
        """The summary, line by line."""
        would = "would be " if self.dry_run else ""
        lines = [f"{plural(self.rows, 'row')} {would}forgotten", *(f"  {task}" for task in self.tasks)]
        if self.unmatched:
            given = plural(len(self.unmatched), "given row")
            lines.append(f"{given} matched nothing that is stored: {listed(self.unmatched)}")
        if self.recorded:
            lines.append(f"{plural(self.recorded, 'recorded prediction')} {would}cleared")
        if self.reviewed:
            lines.append(f"{plural(self.reviewed, 'item')} in review {would}deleted")
        if self.generations:
            numbers = ", ".join(map(str, self.generations))
            lines.append(f"kept generations {would}dropped, so the workspace cannot go back to them: {numbers}")
        if self.scope:
            how = "all tasks, over a backbone tuned again" if self.scope == "consolidation" else "all tasks, in order"
            lines.append(f"{would}learned again: {how}")
        elif self.learned_again:
            lines.append(f"{would}learned again: {listed(self.learned_again)}")
        if self.fitted_again:
            lines.append(f"classifiers {would}fitted again without what is forgotten")
        if self.still_trained:
            lines.append(f"still trained on these rows: {'; '.join(self.still_trained)}")
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "dry_run": self.dry_run,
            "rows": self.rows,
            "tasks": [asdict(task) | {"rows": dict(task.rows), "labels": list(task.labels)} for task in self.tasks],
            "generations": list(self.generations),
            "learned_again": list(self.learned_again),
            "fitted_again": self.fitted_again,
            "scope": self.scope,
            "still_trained": list(self.still_trained),
            "unmatched": list(self.unmatched),
            "recorded": self.recorded,
            "reviewed": self.reviewed,
            "notes": list(self.notes),
            "seconds": sum(stage.seconds for stage in self.cost),
            "whole_accuracy": self.evaluation.whole_accuracy if self.evaluation else None,
            "receipt": dict(self.receipt) if self.receipt else None,
        }

    def __str__(self) -> str:
        return "\n".join(self.lines)


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
        changed_since: Whether it was skipped, and labels were renamed, extended, split or retired, or rows were
            forgotten, since it was learned from this data.
        consolidation_due: Why a consolidation is due now, with the cost and gain of the last one; None if it is not.
        consolidation: The report of the consolidation that followed, by `learn_stream(..., consolidate="doubling")`.
        gate: What the change does to earlier answers; None without the gate.
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
    gate: GateReport | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds for stage in self.cost)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; accuracies are fractions."""
        return {
            "task": self.task,
            "version": self.version,
            "skipped": self.skipped,
            "changed_since": self.changed_since,
            "labels": self.labels,
            "tasks_seen": self.tasks_seen,
            "labels_seen": self.labels_seen,
            "whole_accuracy": self.evaluation.whole_accuracy if self.evaluation else None,
            "average_accuracy": self.evaluation.average_accuracy if self.evaluation else None,
            "forgetting": self.forgetting,
            "forgetting_examples": self._forgetting_examples,
            "backward_transfer": self.backward_transfer,
            "trainable_parameters": self.trainable_parameters,
            "head_parameters": self.head_parameters,
            "bytes_stored": self.bytes_stored,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "consolidation_due": self.consolidation_due,
            "consolidation": self.consolidation.to_json() if self.consolidation else None,
            "gate": self.gate.summary() if self.gate else None,
        }

    @property
    def _forgetting_examples(self) -> int:
        """Number of test examples of older tasks that forgetting is measured on."""
        return forgetting_examples(self.evaluation.matrix) if self.evaluation else 0

    @property
    def _measured_on(self) -> str:
        """The number of examples that forgetting is measured on, in words."""
        number = self._forgetting_examples
        return f" (on {plural(number, 'test example')} of older tasks)" if number else ""

    def __str__(self) -> str:
        if self.changed_since:
            return (
                f"{self.task}: already learned from this data, and changed since by rename, extend, split, retire or "
                f"forget (version {self.version}); nothing done. To go back, use `conpet modules rollback` (not after "
                "retire or forget). To learn it again, first use `conpet modules remove`, or give it another name and "
                "new labels"
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
        if self.evaluation and self.task not in self.evaluation.tasks:
            parts.append(f"no accuracy: task {self.task} has no test examples")
        if self.forgetting is not None:
            parts.append(f"forgetting {100 * self.forgetting:z.1f} points{self._measured_on}")
        return "; ".join(parts)
