"""Selectors that are computed: a closed form's probabilities of labels, added up task by task. Nothing trained."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from conpet.backbone.states import States
from conpet.closedform.classifiers import LinearDiscriminant, NearestMean, ProjectedRidge
from conpet.closedform.fitting import fitted
from conpet.selectors.base import Selector


class _ByLabels(Selector):
    """A task is as likely as its labels are together."""

    needs_replay = False

    @abstractmethod
    def label_scores(self, states: States) -> Tensor:
        """Return logits of all labels `[n, L]`, float32, task by task."""

    def log_probabilities(self, states: States) -> Tensor:
        """Return log-probabilities of the T tasks `[n, T]`: of the softmax over labels, each task's share."""
        labels = torch.log_softmax(self.label_scores(states), dim=1)
        tasks = labels.new_empty(len(labels), len(self.state.sizes))
        for indices, columns in self._alike:
            tasks[:, indices] = labels[:, columns].logsumexp(dim=2)
        return tasks

    @cached_property
    def _alike(self) -> list[tuple[Tensor, Tensor]]:
        """Tasks of one size, in one step however many they are: their indices `[t]` and columns of labels `[t, s]`."""
        sizes = torch.tensor(self.state.sizes)
        starts = sizes.cumsum(dim=0) - sizes
        found = [(size, (sizes == size).nonzero().squeeze(1)) for size in sizes.unique().tolist()]
        return [(indices, starts[indices].unsqueeze(1) + torch.arange(size)) for size, indices in found]


class ClosedFormSelector(_ByLabels):
    """LDA times ridge regression on a random ReLU projection (RanPAC, McDonnell et al. 2023) of the prefix features.

    Updated exactly one task at a time, independent of the order of tasks, and a task can be taken out exactly. The two
    err differently: on relations LDA finds the task more often, on intents the regression, and together they are as
    good as the better one on both (chosen on validation examples: benchmarks/results/selectors.json).
    """

    name = "closed-form"

    def label_scores(self, states: States) -> Tensor:
        """Return a tenth of LDA's log-probabilities, for they are far too sure, plus ten times the regression."""
        discriminant = fitted(self.state.closed, LinearDiscriminant.name).scores(states.features)
        regression = fitted(self.state.closed, ProjectedRidge.name).scores(states.features)
        return 0.1 * discriminant + 10.0 * regression


class PrototypeSelector(_ByLabels):
    """The cosine to each label's mean of the prefix features."""

    name = "prototypes"

    def label_scores(self, states: States) -> Tensor:
        """Return the cosines, made as sure as the means allow."""
        return 50.0 * fitted(self.state.closed, NearestMean.name).scores(states.features)
