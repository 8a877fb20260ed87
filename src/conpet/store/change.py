"""What a caller asks the store to change, in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conpet.artifact import Artifact, check_stem
from conpet.errors import ConfigError
from conpet.store.records import Cost, Metric, Reference


@dataclass(frozen=True, slots=True, eq=False)
class NewVersion:
    """A new version of the change's task; it becomes the active one.

    Attributes:
        digest: Digest of the data it was learned from.
        labels: Its labels in the order of its head's outputs.
        objects: Slot to artifact; `"module"` can never change, others can be replaced by a `SideObject`.
        description: Kind, template, settings, notes (JSON-ready).
        parameters: Trained parameters without the head.
        head_parameters: Trained parameters of the head.
    """

    digest: str
    labels: tuple[str, ...]
    objects: Mapping[str, Artifact] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    head_parameters: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SideObject:
    """A new artifact for a slot of an existing version, or None to empty the slot.

    In the slot `"module"` only one with some of the files that stand there: parts may be dropped, nothing may change.
    """

    task: str
    version: int
    slot: str
    artifact: Artifact | None


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Everything one commit makes visible together; at most one of `new_version`, `activate` and `remove` is set.

    Attributes:
        verb: "learn", "rollback", "remove", ...: how the history calls it.
        task: The task it is about; needed by the three below.
        new_version: Learned now; the task is created if it is new.
        activate: Number of the version of `task` to use from now on.
        remove: Take `task` out, with all its versions and their objects.
        dropped: Task and number of versions that are not in use after the change and go, with their objects.
        side_objects: New objects for slots of existing versions.
        shared: Slot to artifact that replaces what stands there, or None to empty the slot.
        metrics: Test results after the change.
        references: Results of the closed-form references after the change.
        costs: What it cost, by stage.
        confusion: The selector's confusion (JSON-ready).
        detail: Anything else for the history (JSON-ready).
        settings: The workspace's settings from now on (JSON-ready), or None to leave them as they are.
        clear_scratch: Digests whose scratch folders are no longer needed once this is committed.
    """

    verb: str
    task: str | None = None
    new_version: NewVersion | None = None
    activate: int | None = None
    remove: bool = False
    dropped: tuple[tuple[str, int], ...] = ()
    side_objects: tuple[SideObject, ...] = ()
    shared: Mapping[str, Artifact | None] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    references: tuple[Reference, ...] = ()
    costs: tuple[Cost, ...] = ()
    confusion: Any = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None
    clear_scratch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        deeds = (self.new_version is not None) + (self.activate is not None) + self.remove
        if deeds > 1:
            raise ConfigError(f"change {self.verb!r}: set one of new_version, activate and remove, not {deeds}")
        if deeds and not self.task:
            raise ConfigError(f"change {self.verb!r}: name the task")
        own = self.new_version.objects if self.new_version else {}
        for slot in (*self.shared, *own, *(side.slot for side in self.side_objects)):
            check_stem(slot)
