"""The results of learning a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from conpet.artifact import Artifact
from conpet.state.state import TaskState


@dataclass(frozen=True, slots=True, eq=False)
class TaskUpdate:
    """The result of learning one task, not committed yet.

    Attributes:
        task: The task as the next state holds it.
        objects: Objects of the new version without its examples, by slot.
        shared: New shared objects, by slot; None removes one.
        parameters: Trained parameters of the PET module.
        head_parameters: Trained parameters of the head.
        detail: Details for the history (JSON-ready).
        representations: Computes the representations of the training examples `[n, R]`; None for a method that uses
            only their frozen features.
        fits: Fits of the next state that are already computed, by name (see `State.fitted`).
    """

    task: TaskState
    objects: Mapping[str, Artifact]
    shared: Mapping[str, Artifact | None] = field(default_factory=dict)
    parameters: int = 0
    head_parameters: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)
    representations: Callable[[], Tensor] | None = None
    fits: Mapping[str, Any] = field(default_factory=dict)

    def plus(self, other: SharedUpdate) -> TaskUpdate:
        """Return the update with the shared objects and fits of another."""
        both = SharedUpdate(self.shared, self.fits).plus(other.shared, other.fits)
        return replace(self, shared=both.shared, fits=both.fits)


@dataclass(frozen=True, slots=True, eq=False)
class SharedUpdate:
    """New shared objects of a workspace.

    Attributes:
        shared: New objects by slot; None removes one.
        fits: Fits of the next state that are already computed, by name (see `State.fitted`).
    """

    shared: Mapping[str, Artifact | None] = field(default_factory=dict)
    fits: Mapping[str, Any] = field(default_factory=dict)

    def plus(
        self, shared: Mapping[str, Artifact | None], fits: Mapping[str, Any] = MappingProxyType({})
    ) -> SharedUpdate:
        """Return the update with further shared objects and fits."""
        return SharedUpdate({**self.shared, **shared}, {**self.fits, **fits})
