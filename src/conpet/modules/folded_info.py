"""The stored record of a module folded into the backbone; reading it does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self

from conpet.artifact import ObjectReader

FOLDED = "folded"
"""Shared slot of the module folded into the backbone, and stem of the document with its `FoldedNote`."""


class Producer(StrEnum):
    """The operation that trained a module to fold into the backbone."""

    WARM_UP = "warm-up"
    CONSOLIDATION = "consolidation"


class FoldedNote(NamedTuple):
    """Record of a module folded into the backbone.

    Attributes:
        producer: The operation that trained it.
        tasks: Names of the tasks it was trained on.
        examples: Number of training examples that these tasks were learned from.
        digest: Digest of its weights, which becomes part of the backbone's fingerprint.
    """

    producer: Producer
    tasks: tuple[str, ...]
    examples: int
    digest: str

    @classmethod
    def of(cls, stored: ObjectReader) -> Self:
        """Read the record of a stored module."""
        document = stored.document(FOLDED)
        return cls(Producer(document["producer"]), tuple(document["tasks"]), document["examples"], document["digest"])

    @classmethod
    def among(cls, shared: Mapping[str, ObjectReader]) -> Self | None:
        """Read the record from a workspace's shared objects; None if no module was folded into the backbone."""
        return cls.of(shared[FOLDED]) if FOLDED in shared else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {**self._asdict(), "tasks": list(self.tasks)}


def consolidation_among(shared: Mapping[str, ObjectReader]) -> FoldedNote | None:
    """Return the record of the consolidation that a workspace's backbone contains, or None."""
    note = FoldedNote.among(shared)
    return note if note and note.producer is Producer.CONSOLIDATION else None
