"""The stored record of a warm-up; reading it does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from conpet.artifact import ObjectReader

WARMUP = "warmup"
"""Shared slot of the warm-up module, and stem of the document with its `WarmupNote`."""


class WarmupNote(NamedTuple):
    """Record of a warm-up.

    Attributes:
        task: Name of the task it was trained on.
        digest: Digest of its weights, which becomes part of the backbone's fingerprint.
    """

    task: str
    digest: str

    @classmethod
    def of(cls, stored: ObjectReader) -> Self:
        """Read the record of a stored warm-up."""
        return cls(**stored.document(WARMUP))

    @classmethod
    def among(cls, shared: Mapping[str, ObjectReader]) -> Self | None:
        """Read the record from a workspace's shared objects; None if there was no warm-up."""
        return cls.of(shared[WARMUP]) if WARMUP in shared else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return self._asdict()
