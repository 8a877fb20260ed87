"""Selectors that are computed: a closed form's probabilities of labels, added up task by task. Nothing trained."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from conpet.backbone.states import States
from conpet.features.classifiers import LinearDiscriminant, NearestMean, ProjectedRidge
from conpet.features.fitted import fitted_classifier
from conpet.features.grouped_logsumexp import segment_logsumexp
from conpet.selectors.base import Selector


class _ByLabels(Selector):
    """A task is as likely as its labels are together."""

    needs_replay = False

    @abstractmethod
    def label_scores(self, states: States) -> Tensor:
        """Return logits of all labels `[n, L]`, float32, task by task."""

    def log_probabilities(self, states: States) -> Tensor:
        """Return log-probabilities of the T tasks `[n, T]`: of the softmax over labels, each task's share."""
        tasks = segment_logsumexp(self.label_scores(states), self._owner, len(self.state.sizes))
        return torch.log_softmax(tasks, dim=1)

    @cached_property
    def _owner(self) -> Tensor:
        """Index of the task of each label `[L]`."""
        return torch.arange(len(self.state.sizes)).repeat_interleave(torch.tensor(self.state.sizes))


class ClosedFormSelector(_ByLabels):
    """LDA times ridge regression on a random ReLU projection (RanPAC, McDonnell et al. 2023) of the prefix features.

    Updated exactly one task at a time, independent of the order of tasks, and a task can be taken out exactly. The two
    err differently: on relations LDA finds the task more often, on intents the regression, and together they are as
    good as the better one on both (chosen on validation examples: benchmarks/results/selectors.json).
    """

    name = "closed-form"

    def label_scores(self, states: States) -> Tensor:
        """Return a tenth of LDA's log-probabilities, for they are far too sure, plus ten times the regression."""
        discriminant = fitted_classifier(self.state.statistics, LinearDiscriminant.name).scores(states.features)
        regression = fitted_classifier(self.state.statistics, ProjectedRidge.name).scores(states.features)
        return 0.1 * discriminant + 10.0 * regression


class PrototypeSelector(_ByLabels):
    """The cosine to each label's mean of the prefix features."""

    name = "prototypes"

    def label_scores(self, states: States) -> Tensor:
        """Return the cosines, made as sure as the means allow."""
        return 50.0 * fitted_classifier(self.state.statistics, NearestMean.name).scores(states.features)
