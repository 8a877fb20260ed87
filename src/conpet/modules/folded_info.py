"""The stored records of warm-ups and consolidations; reading them does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Self

from conpet.artifact import Artifact, ObjectReader
from conpet.state.slots import CONSOLIDATION

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


class ConsolidationNote(NamedTuple):
    """Record of the last consolidation that a state contains.

    Attributes:
        tasks: Number of its tasks.
        examples: Number of training examples that these were learned from.
        digest: Digest of the weights it trained.
        layers: The layers it trained (`ConsolidationConfig.layers`).
    """

    tasks: int
    examples: int
    digest: str
    layers: Literal["all", "top"]

    def artifact(self) -> Artifact:
        """Return the object to store in the slot `CONSOLIDATION`, if no module was folded into the backbone."""
        return Artifact(documents={CONSOLIDATION: self._asdict()})


def consolidation_among(shared: Mapping[str, ObjectReader]) -> ConsolidationNote | None:
    """Return the record of the last consolidation among a workspace's shared objects, or None.

    One of the top layers is the last one if there is any: one of all layers empties its slot.
    """
    if CONSOLIDATION in shared:
        return ConsolidationNote(**shared[CONSOLIDATION].document(CONSOLIDATION))
    note = FoldedNote.among(shared)
    if note is None or note.producer is not Producer.CONSOLIDATION:
        return None
    return ConsolidationNote(len(note.tasks), note.examples, note.digest, "all")
