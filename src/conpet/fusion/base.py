"""The contract of every fusion: combine evidence about inputs into one ranking over all classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from conpet.config import FusionConfig

UNSELECTED = -100.0
"""Logit of every label of a task that was not pre-selected (Song et al. 2023)."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Scores of selector, modules and classifiers for n examples.

    Attributes:
        lda: Log-probabilities of the C classes by LDA `[n, C]`; -inf for classes that cannot be the answer.
        logistic: Log-probabilities of the C classes by logistic regression `[n, C]`; -inf as in `lda`.
        tasks: Log-probabilities of the T tasks by the selector `[n, T]`; -inf for tasks that cannot be the answer.
        modules: Logits of the modules that were run, in the columns of their classes `[n, C]`; -inf elsewhere.
        owner: Task index of each class `[C]`.
    """

    lda: Tensor
    logistic: Tensor
    tasks: Tensor
    modules: Tensor
    owner: Tensor

    @property
    def ran(self) -> Tensor:
        """True for each class whose module was run `[n, C]`."""
        return self.modules > -torch.inf

    @property
    def impossible(self) -> Tensor:
        """True for each class that cannot be the answer, because its task takes another kind of input `[n, C]`."""
        return self.lda == -torch.inf

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """Return the evidence of all parts, concatenated over examples."""
        return cls(
            torch.cat([part.lda for part in parts]),
            torch.cat([part.logistic for part in parts]),
            torch.cat([part.tasks for part in parts]),
            torch.cat([part.modules for part in parts]),
            parts[0].owner,
        )


@dataclass(frozen=True)
class Fusion(ABC):
    """Turns evidence into log-probabilities over all classes. Immutable: `fit` returns a new instance.

    A subclass is a dataclass whose fields are its weights, all with defaults: `cls(config=..., **to_json())` restores
    it.

    Attributes:
        config: The fusion's own settings (`Settings.fusion`).
    """

    config: FusionConfig = field(default_factory=FusionConfig, kw_only=True, compare=False, repr=False)

    name: ClassVar[str]
    Config: ClassVar[type[FusionConfig]] = FusionConfig

    @abstractmethod
    def log_probabilities(self, evidence: Evidence) -> Tensor:
        """Return log-probabilities `[n, C]`, float32."""

    def decided(self, evidence: Evidence) -> Tensor:
        """Return which examples need no module `[n]`, bool, given evidence without modules. By default, none."""
        return torch.zeros(len(evidence.tasks), dtype=torch.bool)

    def fit(self, evidence: Evidence, targets: Tensor) -> Self:
        """Return the fusion with weights fitted on held-out examples, whose classes are `targets` `[n]`."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the weights by name, JSON-ready."""
        return {weight.name: getattr(self, weight.name) for weight in fields(self) if weight.name != "config"}
