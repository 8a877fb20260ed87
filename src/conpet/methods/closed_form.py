"""Closed-form learners: the frozen features' exact statistics are all that is learned."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import torch

from conpet.artifact import Artifact
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.features.classifiers import (
    KernelDiscriminant,
    LinearDiscriminant,
    NearestMean,
    ProjectedRidge,
    Ridge,
)
from conpet.features.feature_map import View
from conpet.features.fitting import fitted
from conpet.methods.base import EncodedInputs, Method, Scores, TaskData, TaskUpdate, by_template
from conpet.state.state import MODULE, State, TaskState
from conpet.state.statistics import features_of


class ClosedFormMethod(Method, ABC):
    """A closed-form classifier as a learner: nothing is trained, nothing replayed, nothing forgotten.

    Learning adds a task's features to exact sums, so any order of tasks ends in the same bytes and equals learning all
    at once, and a task can be taken out again as if it had never come. With `warmup="first-task"` the features are
    those of a backbone tuned on the first task, and the order matters through that task alone.

    Stored: per task its features and class sums, one Gram matrix for all. Not comparable with the methods that tune in
    its cost: it takes one prefix pass and no step.
    """

    tunes: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = frozenset()
    form: ClassVar[str]
    """Its name in `conpet.features.CLASSIFIERS`."""
    temperature: ClassVar[float] = 1.0
    """Scores are divided by it before the softmax over labels; it does not change which is first."""

    def with_state(self, state: State) -> Self:
        """Return the learner of another state."""
        return type(self)(self.backbone, self.settings, state, self.sums)

    def score(self, readings: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind; labels of tasks of another kind get -inf."""
        classifier = fitted(self.closed, self.form)
        scores = by_template(self.label_templates, readings, lambda states: classifier.scores(states.features))
        other = self.other_kind[kind][self.owner]
        return Scores(torch.log_softmax(scores.masked_fill(other, -torch.inf) / self.temperature, dim=1))

    def learn(self, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Add a task to the statistics."""
        return self.learn_batch([task_data], [context])[0]

    @property
    def batch_blocker(self) -> None:
        """None: sums come out the same in one go."""

    def learn_batch(self, tasks_data: Sequence[TaskData], contexts: Sequence[TrainContext]) -> list[TaskUpdate]:
        """Add tasks to the statistics."""
        with contexts[0].costs.stage("statistics"):
            kept, shared = self.add_to_statistics(tasks_data)
        learned = [TaskUpdate({MODULE: Artifact(tensors=one)}, {}, parameters=0, head_parameters=0) for one in kept]
        return [*learned[:-1], replace(learned[-1], shared=shared)]

    def update_shared(
        self, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> Mapping[str, Artifact | None]:
        """Return new statistics for when `removed` is taken out and `added`, if any, put in its place."""
        with context.costs.stage("statistics"):
            return self.statistics([removed], [features_of(added)] if added else [])


class NcmMethod(ClosedFormMethod):
    """Nearest class mean by cosine (Mensink et al. 2013; as in RanPAC's comparison, McDonnell et al. 2023)."""

    name = "ncm"
    form = NearestMean.name
    temperature = 0.05


class LdaMethod(ClosedFormMethod):
    """Linear discriminant analysis with one shrunk covariance for all labels (streaming LDA: Hayes and Kanan 2020)."""

    name = "lda"
    form = LinearDiscriminant.name


class RidgeMethod(ClosedFormMethod):
    """Ridge regression of one-hot labels on the frozen features (analytic class-incremental: Zhuang et al. 2022)."""

    name = "ridge"
    form = Ridge.name
    temperature = 0.1


class RanpacMethod(ClosedFormMethod):
    """RanPAC (McDonnell et al. 2023, arXiv 2307.02251): ridge regression on a random ReLU projection of the features.

    Equations 5 and 6 of the paper, with an intercept and a penalty relative to the variance in place of one chosen anew
    for every task. The paper's first-session adaptation is `warmup="first-task"`.
    """

    name = "ranpac"
    form = ProjectedRidge.name
    temperature = 0.1


class KldaMethod(ClosedFormMethod):
    """KLDA (Momeni et al. 2024, arXiv 2412.15571): LDA on random Fourier features of an RBF kernel."""

    name = "klda"
    form = KernelDiscriminant.name
    views: ClassVar[tuple[View, ...]] = (View.RAW, View.FOURIER)
