"""Evaluate a state on test examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from conpet.backbone.states import States
from conpet.context import Progress
from conpet.data.truncation import CutInputs
from conpet.errors import DamagedModuleError
from conpet.evaluation.answers import AnsweredExample, UnansweredExample
from conpet.evaluation.metrics import Measurement, Tally
from conpet.features.classifiers import ClosedFormClassifier
from conpet.features.fitted import classifiers_for, fitted_classifier
from conpet.heads.labels import indices_of
from conpet.heads.stored import make_head
from conpet.replay.memory import StoredExamples, Subset
from conpet.state.inputs import EncodedInputs, by_template, cut_tokens
from conpet.state.state import State, TaskState
from conpet.types import PRESELECTION_ACCURACY, SELECTOR_ACCURACY, WITHIN_TASK, Evaluation

if TYPE_CHECKING:
    from conpet.methods.base import Method, Scores

CHUNK = 512
"""Examples per evaluation batch, which limits the memory."""


def evaluate(
    method: Method, state: State, tests: Mapping[str, StoredExamples], progress: Callable[[int], None] | None = None
) -> Evaluation:
    """Evaluate a state on the stored test examples of tasks; tasks without test examples are left out.

    Tasks whose module is damaged, and other examples that need it, are left out and listed.

    Test labels are only compared with the answers: the method sees prefix states without labels and, for the accuracy
    within the true task, that task.

    Args:
        method: The method.
        state: The state.
        tests: Test examples by task, with their labels.
        progress: Called with the number of examples done since the last call.
    """
    state = state.refitted
    statistics = method.statistics(state) if state.tasks else None
    names = classifiers_for(statistics) if statistics else ()
    references: Counter[str] = Counter()
    tasks: dict[str, dict[str, Measurement]] = {}
    confusion: dict[str, dict[str, int]] = {}
    answers: list[AnsweredExample] = []
    unanswered: list[UnansweredExample] = []
    cut = CutInputs()
    labelled = 0
    for name, source in tests.items():
        if not source.count(Subset.TEST):
            continue
        evaluation = _TaskEvaluation(method, state, state.index(name), source, names)
        try:
            measured = evaluation.measure(progress)
        except DamagedModuleError as error:  # the module of this task
            unanswered += evaluation.without_answer(range(source.count(Subset.TEST)), str(error))
            continue
        unanswered += evaluation.unanswered
        if not measured:
            continue
        tasks[name] = measured
        references += evaluation.references
        labelled += evaluation.compared
        answers += evaluation.answered
        cut = cut.plus(CutInputs.of(evaluation.cut_tokens))
        if evaluation.chosen:
            confusion[name] = dict(evaluation.chosen)
    return Evaluation(
        tasks,
        {name: Measurement.of(Tally(references[name], labelled)) for name in names} if labelled else {},
        confusion,
        answers=tuple(answers),
        cut=cut,
        unanswered=tuple(unanswered),
    )


@dataclass(slots=True)
class _TaskEvaluation:
    """The running evaluation of one task.

    Attributes:
        method: The method.
        state: The state.
        index: Index of the task.
        source: Its examples.
        classifiers: Closed-form classifiers to compare with.
        references: Number of correct answers of each classifier.
        compared: Number of examples that the classifiers answered.
        chosen: Number of examples by the task that the selector ranks first.
        answered: The examples with their answers; empty for a task without labels.
        unanswered: The examples that need the damaged module of another task.
        cut_tokens: Number of tokens cut off each example.
    """

    method: Method
    state: State
    index: int
    source: StoredExamples
    classifiers: Sequence[str]
    references: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    chosen: Counter[str] = field(default_factory=Counter)
    answered: list[AnsweredExample] = field(default_factory=list)
    unanswered: list[UnansweredExample] = field(default_factory=list)
    cut_tokens: list[int] = field(default_factory=list)
    _answers: list[Any] = field(default_factory=list)
    _within: list[Any] = field(default_factory=list)
    _truth: list[str] = field(default_factory=list)
    _correct: Counter[str] = field(default_factory=Counter)

    @property
    def task(self) -> TaskState:
        """The task."""
        return self.state.tasks[self.index]

    def measure(self, progress: Callable[[int], None] | None) -> dict[str, Measurement]:
        """Return all metrics of the task, by name; none if no example could be answered.

        Raises:
            DamagedModuleError: The module of the task is damaged.
        """
        labels = self.source.labels(Subset.TEST)
        for start in range(0, len(labels), CHUNK):
            positions = range(start, min(start + CHUNK, len(labels)))
            self._chunk(positions, labels[start : start + CHUNK])
            if progress:
                progress(len(positions))
        truth = self._truth
        total = len(truth)
        if not total:
            return {}
        self._add_inputs()
        head = make_head(self.method.settings.for_task(self.task.settings).head)
        measurements = dict(head.measure(self._answers, truth))
        if self.chosen:
            measurements[SELECTOR_ACCURACY] = Measurement.of(Tally(self._correct["selector"], total))
            measurements[PRESELECTION_ACCURACY] = Measurement.of(Tally(self._correct["preselected"], total))
        within = head.measure(self._within, truth)
        return measurements | {f"{WITHIN_TASK}{name}": measured for name, measured in within.items()}

    def _chunk(self, positions: Sequence[int], truth: Sequence[str]) -> None:
        method, state, kind = self.method, self.state, self.source.kind
        examples = self.source.without_test_labels()
        inputs = {
            template: examples.states(method.backbone, Subset.TEST, positions, template)
            for template in state.templates(kind)
        }
        within = method.within_task(state, inputs, torch.full((len(truth),), self.index, dtype=torch.int64))
        try:
            scores = method.score(state, inputs, kind)
        except DamagedModuleError as error:
            self._chunk_without(error, positions, truth)
            return
        self._truth += truth
        self._count_selector(scores)
        self.cut_tokens += cut_tokens(inputs)
        if self.task.labels:
            self._add_answers(scores, positions, truth)
            self._within += [self._label(column) for column in within.argmax(dim=1).tolist()]
            self._compare(inputs, truth)
        else:
            owners = state.owner[scores.classes.argmax(dim=1)]
            values = [answer.value for answer in method.answers(state, inputs, range(len(truth)), self.index)]
            self._answers += [
                value if owner == self.index else None for value, owner in zip(values, owners, strict=True)
            ]
            self._within += values

    def _chunk_without(self, error: DamagedModuleError, positions: Sequence[int], truth: Sequence[str]) -> None:
        """Evaluate a chunk without the examples that need the damaged module of another task."""
        self.unanswered += self.without_answer([positions[at] for at in error.inputs], str(error))
        left = [at for at in range(len(positions)) if at not in set(error.inputs)]
        if left:
            self._chunk([positions[at] for at in left], [truth[at] for at in left])

    def without_answer(self, positions: Iterable[int], reason: str) -> list[UnansweredExample]:
        """Return examples as unanswered."""
        labels = self.source.labels(Subset.TEST)
        return [UnansweredExample(labels[at], self.task.name, at + 1, reason) for at in positions]

    def _add_answers(self, scores: Scores, positions: Sequence[int], truth: Sequence[str]) -> None:
        best = scores.classes.max(dim=1)
        owners = self.state.owner[best.indices].tolist()
        self._answers += (answers := [self._label(column) for column in best.indices.tolist()])
        self.answered += [
            AnsweredExample(label, answer, score, self.task.name, self.state.tasks[owner].name, position + 1)
            for label, answer, score, owner, position in zip(
                truth, answers, best.values.exp().tolist(), owners, positions, strict=True
            )
        ]

    def _add_inputs(self) -> None:
        """Add the inputs of wrong answers, if texts are stored."""
        wrong = [number for number, one in enumerate(self.answered) if not one.correct]
        if wrong and not self.source.latent:
            positions = [self.answered[number].row - 1 for number in wrong]
            for number, example in zip(wrong, self.source.chosen(Subset.TEST, positions), strict=True):
                self.answered[number] = replace(self.answered[number], example=example)

    def _label(self, column: int) -> str | None:
        """Return the label of a column of scores; None for the class of a task without labels."""
        return self.state.classes[column] if self.state.tasks[int(self.state.owner[column])].labels else None

    def _count_selector(self, scores: Scores) -> None:
        if scores.tasks is None or scores.selected is None:
            return
        first = scores.tasks.argmax(dim=1)
        self.chosen.update(self.state.tasks[index].name for index in first.tolist())
        self._correct["selector"] += int((first == self.index).sum())
        self._correct["preselected"] += int((scores.selected == self.index).any(dim=1).sum())

    def _compare(self, inputs: EncodedInputs, truth: Sequence[str]) -> None:
        """Count the correct answers of the classifiers among all classes of the inputs' kind."""
        targets = indices_of(truth, self.state.classes)
        impossible = self.state.impossible(self.source.kind)
        statistics = self.method.statistics(self.state)
        for name in self.classifiers:
            scores = _scored(fitted_classifier(statistics, name), self.state, inputs)
            self.references[name] += _hits(scores.masked_fill(impossible, -torch.inf), targets)
        self.compared += len(truth)


def _scored(classifier: ClosedFormClassifier, state: State, inputs: EncodedInputs) -> Tensor:
    def score(states: States) -> Tensor:
        return classifier.scores(states.features)

    return by_template(state.class_templates, inputs, score)


def _hits(scores: Tensor, truth: Tensor) -> int:
    return int((scores.argmax(dim=1) == truth).sum())


def counted(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Return a function that takes numbers of examples just done and reports the share done of `total`."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done / max(1, total))

    return add
