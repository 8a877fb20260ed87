"""Settings of the selectors; imports no torch, so that wrong settings are reported at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from conpet.config import Positive, SelectorConfig, Width


class LearnedSelectorConfig(SelectorConfig):
    """Settings of the learned selector.

    Attributes:
        rank: LoRA rank of the selector's module.
        steps: Optimiser steps per task, independent of the number of tasks.
        learning_rate: Peak learning rate.
    """

    budget = frozenset({"steps", "learning_rate"})

    rank: Width = 8
    steps: Positive = 100
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
