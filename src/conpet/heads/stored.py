"""Heads by their settings, and heads that were trained and stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conpet.artifact import ObjectReader
from conpet.config import HeadConfig
from conpet.errors import CorruptionError
from conpet.heads import HEADS
from conpet.heads.base import CONFIG, HEAD, Head


@dataclass(frozen=True, slots=True, eq=False)
class StoredHead:
    """A trained head, ready to answer.

    Attributes:
        head: The head, which interprets the outputs.
        tensors: Its trained parameters, float32.
        document: The document stored with them.
    """

    head: Head
    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]

    @classmethod
    def read(cls, stored: ObjectReader, device: torch.device | None = None) -> StoredHead:
        """Read a head from a stored object.

        Raises:
            CorruptionError: A parameter is missing or unexpected.
            UnknownNameError: No head is registered under its name.
        """
        document = stored.document(HEAD)
        head = head_for(document)
        tensors = {name: value.float().to(device) for name, value in stored.tensors(HEAD).items()}
        if wrong := sorted(tensors.keys() ^ head.parameters):
            raise CorruptionError(
                f"a stored head has missing or unexpected tensors: {', '.join(wrong)}; restore the workspace from a "
                "backup"
            )
        return cls(head, tensors, document)

    def outputs(self, representations: Tensor) -> Tensor:
        """Return the outputs `[n, O]` for representations `[n, R]`."""
        return self.head.outputs(self.tensors, representations)


def head_for(document: Mapping[str, Any]) -> Head:
    """Return the head described by a stored document."""
    return make_head(document[CONFIG])


def make_head(config: HeadConfig | Mapping[str, Any]) -> Head:
    """Return the head with these settings."""
    name = config.name if isinstance(config, HeadConfig) else str(config["name"])
    cls: type[Head] = HEADS[name]
    return cls(config if isinstance(config, HeadConfig) else cls.Config.model_validate(dict(config)))


def head_document(head: Head, answers: Sequence[str]) -> dict[str, Any]:
    """Return the document to store with a head trained on these answers."""
    return {CONFIG: head.config.model_dump(mode="json"), **head.document(answers)}
