"""Methods that learn exact statistics of frozen features and train no module: closed forms, logistic regression."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Sequence
from typing import ClassVar

import torch

from conpet.artifact import Artifact
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.features.classifiers import KernelDiscriminant, LinearDiscriminant, NearestMean, ProjectedRidge, Ridge
from conpet.features.feature_map import View
from conpet.features.fitted import fitted_classifier
from conpet.features.logistic import LogisticRegression
from conpet.methods.base import Method, Rebuilt, Scores, TaskData
from conpet.state.inputs import EncodedInputs, by_template
from conpet.state.slots import MODULE
from conpet.state.state import State, TaskState
from conpet.state.update import SharedUpdate, TaskUpdate


class ClosedFormMethod(Method, ABC):
    """A closed-form classifier as a method, without training and replay.

    Learning adds a task's features to exact sums. Every order of tasks, and learning all at once, gives the same bytes,
    and removing a task restores the sums exactly. With `backbone.warmup=first-task` the features depend on the first
    task, on which the backbone was tuned; the order of the others does not matter.

    Stored: features and class sums of each task, one Gram matrix for all. The cost is not comparable with that of
    methods that train: one prefix pass and no training step.
    """

    tunes: ClassVar[bool] = False
    trains_logistic: ClassVar[bool] = False
    consolidates: ClassVar[bool] = True
    refits: ClassVar[bool] = True
    sections: ClassVar[frozenset[str]] = frozenset({"consolidation"})
    classifier: ClassVar[str]
    """Name of the classifier in `conpet.features.CLASSIFIERS`."""
    temperature: ClassVar[float] = 1.0
    """Divisor of the scores before the softmax over labels; it does not change the ranking."""

    def score(self, state: State, inputs: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind; classes of tasks of another kind get -inf."""
        classifier = fitted_classifier(self.statistics(state), self.classifier)
        scores = by_template(state.class_templates, inputs, lambda states: classifier.scores(states.features))
        possible = scores.masked_fill(state.impossible(kind), -torch.inf)
        return Scores(torch.log_softmax(possible / self.temperature, dim=1))

    def learn_task(self, state: State, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Add a task to the statistics."""
        return self.learn_batch(state, [task_data], [context])[0]

    def batch_blocker(self, state: State) -> None:
        """Return None: the sums of a batch equal those of single tasks."""

    def learn_batch(
        self, state: State, batch: Sequence[TaskData], contexts: Sequence[TrainContext]
    ) -> list[TaskUpdate]:
        """Add tasks to the statistics."""
        with contexts[0].costs.stage("statistics"):
            tensors_by_task, update = self.add_to_statistics(state, batch)
        objects = [{MODULE: Artifact(tensors=tensors)} for tensors in tensors_by_task]
        last = len(batch) - 1
        return [
            TaskUpdate(
                data.task,
                task_objects,
                update.shared if index == last else {},
                fits=update.fits if index == last else {},
            )
            for index, (data, task_objects) in enumerate(zip(batch, objects, strict=True))
        ]

    def update_shared(
        self, state: State, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> SharedUpdate:
        """Return the statistics of the state in which `added`, if any, replaces `removed`."""
        with context.costs.stage("statistics"):
            return self.updated_statistics(state, [removed], [added] if added else [])

    def trained_with(self, state: State, names: Collection[str]) -> Collection[str]:
        """Return nothing: there are no modules."""
        return ()

    def consolidate(self, state: State, batch: Sequence[TaskData], context: TrainContext) -> Rebuilt:
        """Compute the statistics of all tasks again; nothing is trained."""
        updates = self.learn_batch(state, batch, [context])
        objects = {update.task.name: update.objects for update in updates}
        return Rebuilt(objects, updates[-1].shared, state.apply(*updates), steps=0)


class NcmMethod(ClosedFormMethod):
    """Nearest class mean by cosine (Mensink et al. 2013; as in the comparison of RanPAC, McDonnell et al. 2023)."""

    name = "ncm"
    classifier = NearestMean.name
    temperature = 0.05


class LdaMethod(ClosedFormMethod):
    """Linear discriminant analysis with one shrunk covariance for all labels (streaming LDA: Hayes and Kanan 2020)."""

    name = "lda"
    classifier = LinearDiscriminant.name


class RidgeMethod(ClosedFormMethod):
    """Ridge regression of one-hot labels on the frozen features (analytic class-incremental: Zhuang et al. 2022)."""

    name = "ridge"
    refits: ClassVar[bool] = False
    classifier = Ridge.name
    temperature = 0.1


class RanpacMethod(ClosedFormMethod):
    """RanPAC (McDonnell et al. 2023, arXiv 2307.02251): ridge regression on a random ReLU projection of the features.

    Equations 5 and 6 of the paper, with an intercept, and with a penalty relative to the variance instead of one
    chosen for every task. The paper's first-session adaptation is `backbone.warmup=first-task`.
    """

    name = "ranpac"
    refits: ClassVar[bool] = False
    classifier = ProjectedRidge.name
    views: ClassVar[tuple[View, ...]] = (View.RAW, View.PROJECTED)
    temperature = 0.1


class KldaMethod(ClosedFormMethod):
    """KLDA (Momeni et al. 2024, arXiv 2412.15571): LDA on random Fourier features of an RBF kernel."""

    name = "klda"
    classifier = KernelDiscriminant.name
    views: ClassVar[tuple[View, ...]] = (View.RAW, View.FOURIER)


class LogisticMethod(ClosedFormMethod):
    """Logistic regression on the frozen features of all tasks; see `conpet.features.logistic`.

    A task trains the weights further, on its features and on stored features of older tasks: its own labels, and those
    of older ones that it moves most (`conpet.features.logistic.REVISED`). So the order of tasks matters a little. Up to
    `conpet.state.logistic.MAX_EXAMPLES` examples, all take part. Removing a task drops its weights and trains the
    others without its examples, to the tolerance of the optimiser, within the same limit.
    """

    name = "logistic"
    classifier = LogisticRegression.name
    trains_logistic: ClassVar[bool] = True
