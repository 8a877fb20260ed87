"""What a server lists: tasks and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A learned task in its active version.

    Attributes:
        name: Its name.
        version: The active version.
        labels: Number of its labels.
        kind: Kind of its examples.
        head: Name of its head.
        template: Its template, or None for the default of the kind.
        learned: When the version was learned, in UTC.
    """

    name: str
    version: int
    labels: int
    kind: str
    head: str
    template: str | None
    learned: datetime

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TaskInfo:
        """Build from a server's answer."""
        return cls(**{**document, "learned": datetime.fromisoformat(document["learned"])})


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version of a task.

    Attributes:
        task: Name of the task.
        version: Its number.
        active: Whether it is the one that answers.
        labels: Its labels.
        parameters: Trained parameters of its module.
        head_parameters: Trained parameters of its head.
        bytes: Size of its objects.
        created: When it was learned, in UTC.
    """

    task: str
    version: int
    active: bool
    labels: tuple[str, ...]
    parameters: int
    head_parameters: int
    bytes: int
    created: datetime

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> VersionInfo:
        """Build from a server's answer."""
        created = datetime.fromisoformat(document["created"])
        return cls(**{**document, "labels": tuple(document["labels"]), "created": created})
