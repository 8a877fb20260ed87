"""Closed-form selectors: label probabilities of classifiers, summed by task. Nothing is trained."""

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


class _LabelBasedSelector(Selector):
    """The probability of a task is the sum of those of its labels."""

    needs_replay = False

    @abstractmethod
    def label_scores(self, states: States) -> Tensor:
        """Return logits of all labels `[n, L]`, float32, in the order of the tasks."""

    def log_probabilities(self, states: States) -> Tensor:
        """Return log-probabilities of the T tasks `[n, T]`: the softmax over labels, summed by task."""
        tasks = segment_logsumexp(self.label_scores(states), self._owner, len(self.state.sizes))
        return torch.log_softmax(tasks, dim=1)

    @cached_property
    def _owner(self) -> Tensor:
        """Task index of each label `[L]`."""
        return torch.arange(len(self.state.sizes)).repeat_interleave(torch.tensor(self.state.sizes))


class ClosedFormSelector(_LabelBasedSelector):
    """LDA and ridge regression on a random ReLU projection (RanPAC, McDonnell et al. 2023) of the frozen features.

    Tasks are added and removed exactly, and their order does not matter. LDA finds the task more often on relations,
    the regression more often on intents; combined, they match the better one on both (chosen on validation examples:
    benchmarks/results/selectors.json).
    """

    name = "closed-form"

    def label_scores(self, states: States) -> Tensor:
        """Return 0.1 times LDA's (overconfident) log-probabilities plus 10 times the outputs of the regression."""
        discriminant = fitted_classifier(self.state.statistics, LinearDiscriminant.name).scores(states.features)
        regression = fitted_classifier(self.state.statistics, ProjectedRidge.name).scores(states.features)
        return 0.1 * discriminant + 10.0 * regression


class PrototypeSelector(_LabelBasedSelector):
    """Cosine of the frozen features with the mean of each label."""

    name = "prototypes"

    def label_scores(self, states: States) -> Tensor:
        """Return the cosines, scaled by 50 to give a peaked softmax."""
        return 50.0 * fitted_classifier(self.state.statistics, NearestMean.name).scores(states.features)
