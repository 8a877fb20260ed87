"""Selectors that are computed: a closed-form classifier over labels, read task by task. Nothing trained, no replay."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from conpet.backbone.states import States
from conpet.closedform.fitting import fitted
from conpet.selectors.base import Selector


class _ByLabels(Selector):
    """Ranks tasks by the best score among their labels."""

    needs_replay = False
    method: ClassVar[str]
    temperature: ClassVar[float]
    """Scores are divided by it before the softmax over tasks."""

    def log_probabilities(self, states: States) -> Tensor:
        """Return log-probabilities of the tasks: the softmax over tasks of each one's best label score."""
        scores = fitted(self.state.closed, self.method).scores(states.features)
        best = [part.amax(dim=1) for part in scores.split(self.state.sizes, dim=1)]
        return torch.log_softmax(torch.stack(best, dim=1) / self.temperature, dim=1)


class ClosedFormSelector(_ByLabels):
    """Ridge regression on a random ReLU projection of the prefix features (RanPAC, McDonnell et al. 2023).

    Updated exactly one task at a time, independent of the order of tasks, and a task can be taken out exactly. The
    regression is over labels rather than tasks: a task is as likely as its likeliest label.
    """

    name = "closed-form"
    method = "projected-ridge"
    temperature = 0.1


class PrototypeSelector(_ByLabels):
    """The task of the nearest label mean of the prefix features (cosine)."""

    name = "prototypes"
    method = "nearest-mean"
    temperature = 0.05
