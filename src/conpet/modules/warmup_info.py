"""Where a workspace keeps its warm-up, and what is said of it; reading that needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from conpet.artifact import ObjectReader

WARMUP = "warmup"
"""Shared slot of the warm-up module; its document of this stem says what it was tuned on, and its digest."""


class WarmupNote(NamedTuple):
    """What is said of a warm-up.

    Attributes:
        task: Name of the task it was tuned on.
        digest: Digest of its weights, by which it changes the backbone's fingerprint.
    """

    task: str
    digest: str

    @classmethod
    def of(cls, stored: ObjectReader) -> Self:
        """Read it from a stored warm-up."""
        return cls(**stored.document(WARMUP))

    @classmethod
    def among(cls, shared: Mapping[str, ObjectReader]) -> Self | None:
        """Read it from a workspace's shared objects; None where there was no warm-up."""
        return cls.of(shared[WARMUP]) if WARMUP in shared else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return self._asdict()
