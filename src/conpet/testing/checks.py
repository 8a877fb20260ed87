"""What the contracts are checked with."""

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
"""How far scores may move with the batch an input comes in: padding changes the order in which numbers are added."""


class ContractError(ConpetError, AssertionError):
    """Something registered does not keep its contract."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Where a contract is checked, and with which settings.

    Attributes:
        folder: An empty folder.
        settings: Arguments of `ConPET.create`.
    """

    folder: Path
    settings: Mapping[str, Any]

    def workspace(self, name: str = "workspace") -> ConPET:
        """Make a workspace."""
        return ConPET.create(self.folder / name, **self.settings)

    def taught(self, stream: Iterable[Task], name: str = "workspace") -> ConPET:
        """Make a workspace and let it learn some tasks."""
        workspace = self.workspace(name)
        for task in stream:
            workspace.learn(task, evaluate=False)
        return workspace


def live_of(workspace: ConPET, **changes: Any) -> Live:
    """Return a new method with a workspace's present state, with nothing in memory yet.

    Args:
        workspace: The workspace.
        changes: Settings in place of the workspace's, by dotted keys.
    """
    settings = workspace.settings.changed(changes) if changes else workspace.settings
    method: type[Method] = METHODS[settings.method.name]
    snapshot = workspace.store.snapshot()
    return Live(method(workspace.backbone, settings), state_of(snapshot), snapshot)


def ask(workspace: ConPET, inputs: Sequence[str | Example]) -> list[dict[str, float]]:
    """Return the score of every label for every input."""
    answers = workspace.predict(inputs, runners_up=len(workspace.labels))
    return [_scores(answer) for answer in answers]


def _scores(answer: Prediction) -> dict[str, float]:
    return {answer.label or answer.task: answer.score} | {one.label or one.task: one.score for one in answer.runners_up}


def require(kept: bool, message: str) -> None:
    """Raise `ContractError` unless a promise was kept."""
    if not kept:
        raise ContractError(message)


def require_same(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], where: str) -> None:
    """Raise `ContractError` unless what `ask` gave is the same twice, but for `TOLERANCE`."""
    for row, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        require(one.keys() == other.keys(), f"input {row} has other labels {where}")
        off = max(abs(one[label] - other[label]) for label in one)
        require(off < TOLERANCE, f"the scores of input {row} are off by {off:.2g} {where}")


def files(workspace: ConPET, slots: Sequence[str] = ()) -> dict[str, str]:
    """Return the hash of every file of the learned objects, or of those in some slots of the versions."""
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
    """Return the names of files that are missing on one side, or have another content there."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def digest_of_weights(workspace: ConPET) -> str:
    """Return a hash of the backbone's frozen weights."""
    return digest_tensors(workspace.backbone.cut.model.state_dict())
