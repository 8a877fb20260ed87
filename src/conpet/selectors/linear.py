"""Selectors that read classifiers of the frozen features: label probabilities, summed by task."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from conpet.backbone.states import States
from conpet.features.classifiers import LinearDiscriminant, NearestMean
from conpet.features.fitted import fitted_classifier
from conpet.features.grouped_logsumexp import segment_logsumexp
from conpet.features.logistic import LogisticRegression
from conpet.selectors.base import Selector

DISCRIMINANT = 0.02
"""Weight of LDA's log-probabilities beside those of the logistic regression."""


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


class LinearSelector(_LabelBasedSelector):
    """Logistic regression and LDA on the frozen features.

    Both are trained anyway, and their order of tasks matters little or not at all. Together they find the task more
    often than either alone (chosen on unused training examples: benchmarks/results/selectors.json).
    """

    name = "linear"

    def label_scores(self, states: States) -> Tensor:
        """Return the regression's log-probabilities plus 0.02 times LDA's, which are overconfident."""
        regression = fitted_classifier(self.state.statistics, LogisticRegression.name).scores(states.features)
        discriminant = fitted_classifier(self.state.statistics, LinearDiscriminant.name).scores(states.features)
        return regression + DISCRIMINANT * discriminant


class PrototypeSelector(_LabelBasedSelector):
    """Cosine of the frozen features with the mean of each label."""

    name = "prototypes"

    def label_scores(self, states: States) -> Tensor:
        """Return the cosines, scaled by 50 to give a peaked softmax."""
        return 50.0 * fitted_classifier(self.state.statistics, NearestMean.name).scores(states.features)
