"""What learning a task produces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from conpet.artifact import Artifact
from conpet.state.state import TaskState


@dataclass(frozen=True, slots=True, eq=False)
class TaskUpdate:
    """What learning one task produced. Nothing of it is in force until the store has committed it.

    Attributes:
        task: The task as it is known from now on.
        objects: The new version's objects, by slot: what the workspace stores of it apart from its examples.
        shared: New shared objects, by slot; None removes one.
        parameters: Trained parameters of the PET module.
        head_parameters: Trained parameters of the head.
        detail: What the history notes (JSON-ready).
        representations: Computes how the method represents the training examples now `[n, R]`; None for a method that
            represents them by their frozen features alone.
        fits: What was computed for the next state already, by name (see `State.fitted`).
    """

    task: TaskState
    objects: Mapping[str, Artifact]
    shared: Mapping[str, Artifact | None] = field(default_factory=dict)
    parameters: int = 0
    head_parameters: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)
    representations: Callable[[], Tensor] | None = None
    fits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SharedUpdate:
    """New shared objects of a workspace.

    Attributes:
        shared: New objects by slot; None removes one.
        fits: What was computed for the next state already, by name (see `State.fitted`).
    """

    shared: Mapping[str, Artifact | None] = field(default_factory=dict)
    fits: Mapping[str, Any] = field(default_factory=dict)

    def plus(self, shared: Mapping[str, Artifact | None]) -> SharedUpdate:
        """Return it with more shared objects."""
        return SharedUpdate({**self.shared, **shared}, self.fits)
