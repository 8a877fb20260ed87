"""A change of the workspace that the store commits in one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        objects: Artifacts by slot. A `SideObject` can replace them; `"module"` only in a change that pins.
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

    In the slot `"module"`, files may be dropped but not changed, unless the change pins the generation it replaces, or
    forgets examples.
    """

    task: str
    version: int
    slot: str
    artifact: Artifact | None


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Everything that one commit makes visible; at most one of `new_version`, `activate` and `remove` is set.

    Attributes:
        verb: Its name in the history: "learn", "rollback", "remove", ...
        task: The task changed; required by the next three.
        new_version: The new version; the task is created if it is new.
        activate: Number of the version of `task` to use from now on.
        remove: Remove `task` with all its versions and their objects.
        dropped: Task and number of inactive versions to delete, with their objects.
        side_objects: New objects for slots of existing versions.
        shared: Artifacts by shared slot, which replace the present ones; None empties the slot.
        metrics: Test results after the change.
        references: Results of the reference classifiers after the change.
        costs: The costs by stage.
        confusion: The selector's confusion (JSON-ready).
        detail: Anything else for the history (JSON-ready).
        settings: The new settings of the workspace (JSON-ready), or None for no change.
        clear_scratch: Digests whose scratch folders can be deleted after the commit.
        pin: Whether to pin the generation that the change replaces. Such a change may also replace modules, because
            none of them is lost.
        restore: A pinned generation to make the present one again; excludes all other changes of tasks, objects and
            settings.
        unpinned: Pinned generations to release.
        forgets: Whether it forgets examples: such a change may replace modules and keeps no way back to them.
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
    pin: bool = False
    restore: int | None = None
    unpinned: tuple[int, ...] = ()
    forgets: bool = False

    @property
    def replaces_modules(self) -> bool:
        """Whether modules of existing versions may be replaced."""
        return self.pin or self.forgets

    @property
    def artifacts(self) -> Iterator[Artifact]:
        """The content that it writes."""
        yield from self.new_version.objects.values() if self.new_version else ()
        yield from (side.artifact for side in self.side_objects if side.artifact is not None)
        yield from (artifact for artifact in self.shared.values() if artifact is not None)

    def __post_init__(self) -> None:
        actions = (self.new_version is not None) + (self.activate is not None) + self.remove
        if actions > 1:
            raise ConfigError(f"change {self.verb!r}: set one of new_version, activate and remove, not {actions}")
        if actions and not self.task:
            raise ConfigError(f"change {self.verb!r}: name the task")
        others = (self.task, self.dropped, self.side_objects, self.shared, self.settings)
        if self.restore is not None and any(others):
            raise ConfigError(f"change {self.verb!r}: restore a generation in a change of its own")
        own = self.new_version.objects if self.new_version else {}
        for slot in (*self.shared, *own, *(side.slot for side in self.side_objects)):
            check_stem(slot)
