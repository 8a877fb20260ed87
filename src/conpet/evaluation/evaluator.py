"""Evaluate a method on stored test examples.

Test labels are compared with answers here; elsewhere they are only written, read back and relabelled. Methods,
selectors and searches get examples without them (`StoredExamples.without_test_labels`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from conpet.backbone.states import States
from conpet.evaluation.metrics import Tally
from conpet.features.classifiers import ClosedFormClassifier
from conpet.features.fitting import fitted, methods_of
from conpet.methods.base import Method, by_template
from conpet.replay.memory import StoredExamples, Subset
from conpet.types import Evaluation, TaskTally

CHUNK = 512
"""Examples evaluated at once: bounds the memory, whatever the size of a test set."""


class Evaluator:
    """Evaluates one learner.

    Args:
        learner: The learner.
        progress: Called with the number of examples done since the last call.
    """

    def __init__(self, learner: Method, progress: Callable[[int], None] | None = None) -> None:
        self._learner = learner
        self._progress = progress
        self._columns = {label: column for column, label in enumerate(learner.labels)}
        self._closed_forms = methods_of(learner.closed.feature_map.views)
        self._references: Counter[str] = Counter()
        self._confusion: dict[str, Counter[str]] = {}

    def evaluate(self, tests: Mapping[str, StoredExamples]) -> Evaluation:
        """Evaluate on the stored test examples of tasks, by name, none of them blind; tasks without any are left out.

        The learner is given states alone; for the accuracy within the true task, which by definition knows that task,
        the task as well.
        """
        tasks = {name: self._task(name, source) for name, source in tests.items() if source.count(Subset.TEST)}
        total = sum(tally.whole.total for tally in tasks.values())
        references = {name: Tally(self._references[name], total) for name in self._closed_forms} if total else {}
        confusion = {task: dict(choices) for task, choices in self._confusion.items()}
        return Evaluation(tasks, references, confusion)

    def _task(self, name: str, source: StoredExamples) -> TaskTally:
        counts: Counter[str] = Counter()
        labels = source.labels(Subset.TEST)
        total = len(labels)
        for start in range(0, total, CHUNK):
            positions = range(start, min(start + CHUNK, total))
            counts += self._chunk(name, source, positions, labels[start : start + CHUNK])
        with_selector = name in self._confusion
        return TaskTally(
            Tally(counts["whole"], total),
            Tally(counts["selector"], total) if with_selector else None,
            Tally(counts["preselected"], total) if with_selector else None,
            Tally(counts["within"], total),
        )

    def _chunk(
        self, name: str, source: StoredExamples, positions: Sequence[int], labels: Sequence[str]
    ) -> Counter[str]:
        learner = self._learner
        tasks = [task.name for task in learner.state.tasks]
        own = tasks.index(name)
        truth = torch.tensor([self._columns[label] for label in labels])
        # Read here, and blind: the learner is told neither a label nor whose examples they are.
        readings = {
            template: source.without_test_labels.states(learner.backbone, Subset.TEST, positions, template)
            for template in learner.templates(source.kind)
        }
        scores = learner.score(readings, source.kind)
        within = learner.within_task(readings, torch.full((len(labels),), own))
        counts = Counter(whole=_hits(scores.labels, truth), within=_hits(within, truth))
        if scores.tasks is not None and scores.selected is not None:
            first = scores.tasks.argmax(dim=1)
            chosen = Counter(tasks[index] for index in first.tolist())
            self._confusion.setdefault(name, Counter()).update(chosen)
            counts["selector"] = int((first == own).sum())
            counts["preselected"] = int((scores.selected == own).any(dim=1).sum())
        # By kind: a rule may give labels no probability that could be meant.
        other_kind = learner.other_kind[source.kind][learner.owner]
        for reference in self._closed_forms:
            closed = by_template(
                learner.label_templates, readings, partial(_features_scored, fitted(learner.closed, reference))
            )
            self._references[reference] += _hits(closed.masked_fill(other_kind, -torch.inf), truth)
        if self._progress:
            self._progress(len(labels))
        return counts


def _features_scored(classifier: ClosedFormClassifier, states: States) -> Tensor:
    return classifier.scores(states.features)


def _hits(scores: Tensor, truth: Tensor) -> int:
    return int((scores.argmax(dim=1) == truth).sum())
