"""The contract of every selector, which predicts the tasks an input may belong to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from conpet.artifact import Artifact, ObjectReader
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import SelectorConfig, Settings, TaskSettings
from conpet.context import TrainContext
from conpet.features.statistics import ClosedFormState
from conpet.modules.pool import ModulePool
from conpet.replay.rehearsal import Rehearsal

SELECTOR = "selector"
"""Shared slot for the weights of a selector that has any."""


@dataclass(frozen=True, slots=True, eq=False)
class SelectorState:
    """The part of a workspace's state that a selector reads.

    Attributes:
        tasks: Names of the T tasks, in order.
        sizes: Number of classes of each task; the statistics order classes by task.
        statistics: Statistics over all tasks.
        stored: The selector's stored object, or None if it has none or no task was learned.
    """

    tasks: tuple[str, ...]
    sizes: tuple[int, ...]
    statistics: ClosedFormState
    stored: ObjectReader | None


@dataclass(frozen=True, slots=True, eq=False)
class SelectorData:
    """Examples from which a selector learns a new task, within the budget.

    Attributes:
        name: The new task.
        new: Prefix states of its training examples.
        old: Examples of past tasks; None if there are none or the selector needs no replay.
        settings: The task's settings.
        context: Seed, checkpoints, progress.
    """

    name: str
    new: States
    old: Rehearsal | None
    settings: TaskSettings
    context: TrainContext


class Selector(ABC):
    """Finds the task of an input. An instance belongs to one state of the workspace.

    Args:
        backbone: The frozen model.
        settings: Settings of the workspace.
        pool: Runs modules, for selectors that have one.
        state: Tasks and statistics so far.
    """

    name: ClassVar[str]
    Config: ClassVar[type[SelectorConfig]] = SelectorConfig
    """The selector's own settings (`Settings.selector`)."""
    needs_replay: ClassVar[bool] = False
    """Whether it learns from old examples."""

    def __init__(self, backbone: Backbone, settings: Settings, pool: ModulePool, state: SelectorState) -> None:
        self.backbone = backbone
        self.settings = settings
        self.config = settings.selector
        self.pool = pool
        self.state = state

    @abstractmethod
    def log_probabilities(self, states: States) -> Tensor:
        """Return log-probabilities of the T tasks `[n, T]`, float32."""

    def learn(self, task_data: SelectorData) -> Artifact | None:
        """Learn a new task, or a task again; return the object to store, or None for a selector without weights."""
        return None

    def forget(self, name: str) -> Artifact | None:
        """Forget a task; return the object to store, or None without weights or remaining tasks."""
        return None

    @property
    def replay_steps(self) -> int:
        """Optimiser steps per task that replay past examples."""
        return 0

    @property
    def parameters(self) -> int:
        """Number of its trained parameters."""
        return 0
