"""The head over labels: a linear map with one output per label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, ObjectReader
from conpet.errors import CorruptionError
from conpet.evaluation.metrics import Measurement
from conpet.heads.base import CONFIG, HEAD, Answer, Head
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS

LABELS = "labels"
"""Key of the labels in the stored document, in the order of the outputs."""

ACCURACY = "accuracy"


class LabelHead(Head):
    """Softmax over the task's labels: W h + b for representations h, trained by cross-entropy."""

    name = "labels"
    owns_labels: ClassVar[bool] = True

    def document(self, answers: Sequence[str]) -> dict[str, Any]:
        """Return the labels, sorted, in the order of the outputs."""
        return {LABELS: sorted(set(answers))}

    def build(self, width: int, document: Mapping[str, Any], device: torch.device) -> nn.Linear:
        """Return a linear map of zeros, whose predictions are uniform."""
        return zero_head(width, len(document[LABELS]), device)

    def targets(self, answers: Sequence[str], document: Mapping[str, Any]) -> Tensor:
        """Return the index of each answer among the labels `[n]`, int64."""
        return indices_of(answers, document[LABELS])

    def loss(
        self, head: nn.Module, representations: Tensor, targets: Tensor, competing_logits: Tensor | None = None
    ) -> Tensor:
        """Return the cross-entropy of each example `[n]`.

        Args:
            head: The result of `build`.
            representations: `[n, R]`.
            targets: `[n]`.
            competing_logits: Fixed logits `[n, K]` of the labels of other tasks, which share the softmax (Song et al.
                2023, training at top_k > 1), or None.
        """
        logits = head(representations)
        if competing_logits is not None:
            logits = torch.cat([logits, competing_logits.to(logits.device)], dim=1)
        return nn.functional.cross_entropy(logits, targets, reduction="none")

    def outputs(self, tensors: Mapping[str, Tensor], representations: Tensor) -> Tensor:
        """Return the logits `[n, labels]`."""
        return nn.functional.linear(representations, tensors["weight"], tensors["bias"])

    def answer(self, outputs: Tensor, document: Mapping[str, Any]) -> Answer:
        """Return the most likely label."""
        best = int(outputs.argmax())
        return Answer(document[LABELS][best], float(outputs.softmax(dim=0)[best]))

    def measure(self, answers: Sequence[Any], truth: Sequence[str]) -> Mapping[str, Measurement]:
        """Return the accuracy: the share of correct labels."""
        correct = sum(answer == true for answer, true in zip(answers, truth, strict=True))
        return {ACCURACY: Measurement(correct / len(truth), len(truth))} if truth else {}


class GroupedLabelHead(LabelHead):
    """A label head whose labels compete in training only within groups, such as the labels of one kind of input.

    It is stored and answers as `LabelHead`.

    Args:
        groups: The group of each output, in the order of the outputs.
    """

    def __init__(self, groups: Sequence[Hashable]) -> None:
        super().__init__()
        self._groups = indices_of(list(groups), list(dict.fromkeys(groups)))

    def loss(
        self, head: nn.Module, representations: Tensor, targets: Tensor, competing_logits: Tensor | None = None
    ) -> Tensor:
        """Return the cross-entropy of each example among the labels of its group `[n]`."""
        assert competing_logits is None, "labels compete within their groups"  # noqa: S101
        groups = self._groups.to(targets.device)
        logits = head(representations).masked_fill(groups != groups[targets].unsqueeze(1), -torch.inf)
        return nn.functional.cross_entropy(logits, targets, reduction="none")


def indices_of(answers: Sequence[Hashable], labels: Sequence[Hashable]) -> Tensor:
    """Return the index of each of n answers among `labels`: `[n]`, int64."""
    column = {label: index for index, label in enumerate(labels)}
    return torch.tensor([column[answer] for answer in answers], dtype=torch.int64)


def zero_head(width: int, outputs: int, device: torch.device | None = None) -> nn.Linear:
    """Return a linear map of zeros; does not use the global random generator."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, width, outputs, device=device, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def linear_head(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a head with this weight `[labels, R]` and bias `[labels]`."""
    head: nn.Linear = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], device=weight.device, dtype=torch.float32
    )
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


def label_document(labels: Sequence[str]) -> dict[str, Any]:
    """Return the document to store with a head over these labels."""
    return {CONFIG: {"name": LabelHead.name}, LABELS: list(labels)}


def with_labels(stored: ObjectReader, outputs: Mapping[str, str]) -> Artifact:
    """Return a stored module with its head's outputs renamed or reduced to some labels.

    Args:
        stored: The object with the module and its head.
        outputs: New labels, each with its name in the stored head.

    Raises:
        CorruptionError: The stored head has no such output.
    """
    row_of = {name: row for row, name in enumerate(stored.document(HEAD)[LABELS])}
    if missing := [name for name in outputs.values() if name not in row_of]:
        raise CorruptionError(f"a stored head has no output for {missing[0]!r}; restore the workspace from a backup")
    rows = [row_of[output] for output in outputs.values()]
    head = {name: value[rows] for name, value in stored.tensors(HEAD).items()}
    return Artifact(
        tensors={ADAPTER_TENSORS: stored.tensors(ADAPTER_TENSORS), HEAD: head},
        documents={
            ADAPTER_CONFIG: stored.document(ADAPTER_CONFIG),
            HEAD: {**stored.document(HEAD), LABELS: list(outputs)},
        },
    )
