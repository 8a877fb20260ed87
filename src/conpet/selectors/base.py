"""The contract of every selector: which tasks may an input belong to?"""

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
"""Shared slot in which a selector with weights of its own is stored."""


@dataclass(frozen=True, slots=True, eq=False)
class SelectorState:
    """What a selector works with in one state of the workspace.

    Attributes:
        tasks: Names of the T tasks, in order.
        sizes: Number of classes of each; the classes of the statistics follow one another task by task.
        statistics: The statistics over all tasks.
        stored: The selector's own object, or None if it has none or nothing was learned.
    """

    tasks: tuple[str, ...]
    sizes: tuple[int, ...]
    statistics: ClosedFormState
    stored: ObjectReader | None


@dataclass(frozen=True, slots=True, eq=False)
class SelectorData:
    """Examples a selector may learn a new task from, within the budget.

    Attributes:
        name: The new task.
        new: Prefix states of its training examples.
        old: Examples of past tasks; None if there are none, or the selector needs no replay.
        settings: Settings of the optimisation.
        work: Seed, checkpoints, progress.
    """

    name: str
    new: States
    old: Rehearsal | None
    settings: TaskSettings
    context: TrainContext


class Selector(ABC):
    """Finds the task of an input; stands for one state, like a learner.

    Args:
        backbone: The frozen model.
        settings: Settings of the workspace.
        bank: Runs modules, for selectors that have one.
        state: What was learned so far.
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
        """Return the selector's own next object, if it has one, after a new task or a new version of one."""
        return None

    def forget(self, name: str) -> Artifact | None:
        """Return the selector's own next object, if it has one and any task is left, without a task."""
        return None

    @property
    def replay_steps(self) -> int:
        """Optimiser steps per task for which it needs past examples."""
        return 0

    @property
    def parameters(self) -> int:
        """Number of its trained parameters."""
        return 0
