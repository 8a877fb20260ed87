"""The fusion of the ConPET paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from conpet.fusion.base import UNSELECTED, Evidence, Fusion


@dataclass(frozen=True)
class PaperFusion(Fusion):
    """One softmax over the modules' logits, with -100 for the labels of unselected tasks (Song et al. 2023)."""

    name: ClassVar[str] = "paper"

    def log_probabilities(self, evidence: Evidence) -> Tensor:
        """Return log-probabilities `[n, C]`."""
        logits = evidence.modules.masked_fill(~evidence.ran, UNSELECTED)
        return torch.log_softmax(logits.masked_fill(evidence.impossible, -torch.inf), dim=1)
