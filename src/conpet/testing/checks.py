"""Helpers of the contract checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conpet.api import ConPET
from conpet.data import Example, Task
from conpet.errors import ConpetError
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.adapter import digest_tensors
from conpet.state.live import Live
from conpet.state.reading import state_of
from conpet.types import Prediction

TOLERANCE = 1e-4
"""Largest difference of scores between batches: padding changes the order of floating-point additions."""


class ContractError(ConpetError, AssertionError):
    """A component violates its contract."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A folder and settings for a contract check.

    Attributes:
        folder: An empty folder.
        settings: Arguments of `ConPET.create`.
    """

    folder: Path
    settings: Mapping[str, Any]

    def workspace(self, name: str = "workspace") -> ConPET:
        """Create a workspace."""
        return ConPET.create(self.folder / name, **self.settings)

    def taught(self, stream: Iterable[Task], name: str = "workspace") -> ConPET:
        """Create a workspace and learn tasks in it."""
        workspace = self.workspace(name)
        for task in stream:
            workspace.learn(task, evaluate=False, gate=False)
        return workspace


def live_of(workspace: ConPET, **changes: Any) -> Live:
    """Return a new method with the current state of a workspace, without cached results.

    Args:
        workspace: The workspace.
        changes: Changed settings, by dotted keys.
    """
    settings = workspace.settings.changed(changes) if changes else workspace.settings
    method: type[Method] = METHODS[settings.method.name]
    snapshot = workspace.store.snapshot()
    return Live(method(workspace.backbone, settings), state_of(snapshot), snapshot)


def ask(workspace: ConPET, inputs: Sequence[str | Example]) -> list[dict[str, float]]:
    """Return the scores of all labels for each input."""
    answers = workspace.predict(inputs, top_n=len(workspace.labels) + 1)
    return [_scores(answer) for answer in answers]


def _scores(answer: Prediction) -> dict[str, float]:
    return {answer.label or answer.task: answer.score} | {
        other.label or other.task: other.score for other in answer.runners_up
    }


def require(condition: bool, message: str) -> None:
    """Raise `ContractError` unless a condition holds."""
    if not condition:
        raise ContractError(message)


def require_same(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], where: str) -> None:
    """Raise `ContractError` unless two results of `ask` are equal within `TOLERANCE`."""
    for row, (left, right) in enumerate(zip(first, second, strict=True), start=1):
        require(left.keys() == right.keys(), f"input {row} has other labels {where}")
        difference = max(abs(left[label] - right[label]) for label in left)
        require(difference < TOLERANCE, f"the scores of input {row} differ by {difference:.2g} {where}")


def files(workspace: ConPET, slots: Sequence[str] = ()) -> dict[str, str]:
    """Return the hash of every file of the stored objects, or only of given slots of the versions."""
    snapshot = workspace.store.snapshot()
    readers = {f"shared/{slot}": reader for slot, reader in snapshot.shared.items() if not slots}
    for version in snapshot.versions:
        for slot, reader in version.objects.items():
            if not slots or slot in slots:
                readers[f"{version.task}/{version.number}/{slot}"] = reader
    return {
        f"{name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, reader in readers.items()
        for path in sorted(reader.folder.iterdir())
    }


def different(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Return the names of files that are missing on one side or differ."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def digest_of_weights(workspace: ConPET) -> str:
    """Return a hash of the backbone's frozen weights."""
    return digest_tensors(workspace.backbone.cut.model.state_dict())
