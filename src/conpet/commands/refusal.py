"""Remember a consolidation that was tried but not kept, so that it is not advised again before there is more data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from conpet.files import written_aside
from conpet.store import Store

_FILE = "consolidation-refused.json"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A consolidation that was not kept.

    Attributes:
        generation: The generation that was to be consolidated.
        examples: Number of training examples that its tasks were learned from.
        reason: Why it was not kept.
        seconds: How long it took.
    """

    generation: int
    examples: int
    reason: str
    seconds: float

    def record(self, store: Store) -> None:
        """Write it into the workspace's folder, in place of an earlier one."""
        with written_aside(store.path / _FILE) as file:
            json.dump(asdict(self), file)


def last_refusal(store: Store) -> Refusal | None:
    """Return the last refusal recorded in a workspace, if any."""
    path = store.path / _FILE
    return Refusal(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
