"""The contract of every head: what a task ends in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from conpet.config import HeadConfig
from conpet.evaluation.metrics import Measurement

HEAD = "head"
"""Stem of a stored head: its tensors, and a document that names its class and says what its outputs stand for."""

CONFIG = "head"
"""Key of that document: the head's name and settings."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a head says of one input.

    Attributes:
        value: The answer, JSON-ready: a label, a number, a text.
        score: How sure the head is, 0 to 1, given that the input belongs to the task.
    """

    value: Any
    score: float = 1.0


class Head(ABC):
    """Turns representations into answers, learns to, and says how good they are.

    A head has no state: its trained parameters are an `nn.Module` while it is trained, and named tensors with a
    document afterwards. One with `owns_labels` answers with labels that compete with those of all other tasks. Any
    other head answers alone for its task, and competes with other tasks as a whole.

    Args:
        config: The head's own settings (`Settings.head`).
    """

    name: ClassVar[str]
    Config: ClassVar[type[HeadConfig]] = HeadConfig
    owns_labels: ClassVar[bool] = False
    """Whether the answers of a task are labels, each of which belongs to this task alone."""
    parameters: ClassVar[frozenset[str]] = frozenset({"weight", "bias"})
    """Names of the trained parameters."""

    def __init__(self, config: HeadConfig | None = None) -> None:
        self.config = config or self.Config(name=self.name)

    # Learning

    def check(self, answers: Sequence[str]) -> list[str | None]:
        """Say of each answer, as it stands in a file, what is wrong with it; None: nothing."""
        return [None] * len(answers)

    def document(self, answers: Sequence[str]) -> dict[str, Any]:
        """Return what is stored of the head beside its tensors, JSON-ready, given the training answers."""
        return {}

    @abstractmethod
    def build(self, width: int, document: Mapping[str, Any], device: torch.device) -> nn.Module:
        """Return an untrained head on representations `[n, width]`; nothing is drawn from the global generator."""

    @abstractmethod
    def targets(self, answers: Sequence[str], document: Mapping[str, Any]) -> Tensor:
        """Return what `loss` compares with, a row for each answer `[n, ...]`."""

    @abstractmethod
    def loss(self, head: nn.Module, representations: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each of n examples `[n]`.

        Args:
            head: What `build` returned.
            representations: `[n, R]`, float32.
            targets: Rows of what `targets` returned, on the same device.
        """

    def tensors(self, head: nn.Module) -> dict[str, Tensor]:
        """Return the trained parameters by name, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in head.state_dict().items()}

    # Answering

    @abstractmethod
    def outputs(self, tensors: Mapping[str, Tensor], representations: Tensor) -> Tensor:
        """Return the outputs `[n, O]`, float32, for representations `[n, R]`.

        Args:
            tensors: What `tensors` returned, float32, on the representations' device.
            representations: `[n, R]`, float32.
        """

    @abstractmethod
    def answer(self, outputs: Tensor, document: Mapping[str, Any]) -> Answer:
        """Return the answer for one input, given its outputs `[O]`."""

    # Measuring

    @abstractmethod
    def measure(self, answers: Sequence[Any], truth: Sequence[str]) -> Mapping[str, Measurement]:
        """Return the metrics of a task, by name.

        Args:
            answers: For each test example the answer; None where another task answered.
            truth: The right answers, as they stand in files.
        """
