"""The contract of every head, the output layer of a task."""

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
"""Stem of a stored head: its tensors, and a document with its settings and the meaning of its outputs."""

CONFIG = "head"
"""Key of the head's name and settings in that document."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A head's answer for one input.

    Attributes:
        value: A label, number or text; JSON-ready.
        score: Confidence, 0 to 1, given that the input belongs to the task.
    """

    value: Any
    score: float = 1.0


class Head(ABC):
    """Turns representations into answers; defines its loss and its metrics.

    A head is stateless: its trained parameters are an `nn.Module` during training, and named tensors with a document
    afterwards. A head with `owns_labels` answers with labels that compete with the labels of all other tasks. Any other
    head gives one answer for its task, and the task competes with other tasks as a whole.

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
        """Return, for each answer as read from a file, what is wrong with it, or None."""
        return [None] * len(answers)

    def document(self, answers: Sequence[str]) -> dict[str, Any]:
        """Return the JSON-ready document stored with the head's tensors, given the training answers."""
        return {}

    @abstractmethod
    def build(self, width: int, document: Mapping[str, Any], device: torch.device) -> nn.Module:
        """Return an untrained head for representations `[n, width]`; must not use the global random generator."""

    @abstractmethod
    def targets(self, answers: Sequence[str], document: Mapping[str, Any]) -> Tensor:
        """Return the targets of `loss`, one row per answer `[n, ...]`."""

    @abstractmethod
    def loss(self, head: nn.Module, representations: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each of n examples `[n]`.

        Args:
            head: The result of `build`.
            representations: `[n, R]`, float32.
            targets: Rows of the result of `targets`, on the same device.
        """

    def tensors(self, head: nn.Module) -> dict[str, Tensor]:
        """Return the trained parameters by name, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in head.state_dict().items()}

    # Answering

    @abstractmethod
    def outputs(self, tensors: Mapping[str, Tensor], representations: Tensor) -> Tensor:
        """Return the outputs `[n, O]`, float32, for representations `[n, R]`.

        Args:
            tensors: The result of `tensors`, float32, on the representations' device.
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
            answers: The answer for each test example; None if another task answered.
            truth: The correct answers, as read from files.
        """
