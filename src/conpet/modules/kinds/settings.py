"""Settings of the module kinds; imports no torch, so that wrong settings are reported at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conpet.config import ModuleConfig, NonEmpty, Width

Targets = Literal["all-linear"] | NonEmpty[str]
"""Leaf names of linear maps (`("q_proj", "k_proj")`), or "all-linear"."""


class LoraConfig(ModuleConfig):
    """Settings of LoRA modules.

    Attributes:
        rank: Rank r.
        alpha: Updates are scaled by alpha / rank.
        dropout: Dropout on the input of the LoRA maps in training.
        targets: Leaf names of the linear maps to adapt (`("q_proj", "k_proj")`), or "all-linear".
        rslora: Whether updates are scaled by alpha / sqrt(rank) instead (rsLoRA).
        dora: Whether the norm of each row of the updated maps is trained too (DoRA).
    """

    budget = frozenset({"dropout"})

    rank: Width = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Targets = "all-linear"
    rslora: bool = False
    dora: bool = False


class Ia3Config(ModuleConfig):
    """Settings of (IA)3 modules.

    Attributes:
        targets: Leaf names of the linear maps to scale, or "all-linear" for those of the paper.
    """

    targets: Targets = "all-linear"


class BottleneckConfig(ModuleConfig):
    """Settings of bottleneck adapters.

    Attributes:
        width: Width of the bottleneck.
    """

    width: Width = 16


class PrefixConfig(ModuleConfig):
    """Settings of prefix tuning.

    Attributes:
        tokens: Length of the prefix: the number of trained keys and of trained values.
    """

    tokens: Width = 16
