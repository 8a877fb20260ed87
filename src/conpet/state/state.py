"""What a learner knows: the tasks as they were learned, and what belongs to none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conpet.artifact import Artifact
from conpet.data import Kind
from conpet.readable import Held, Readable

MODULE = "module"
"""Slot of a task version that holds what was learned of it; never changed once written."""

ASSIGNMENT = "unit"
"""Slot of a task version that has no PET module of its own: its document says in which shared slot the module lies
that serves it, together with other tasks, and which of the version's labels its head has under another name."""

STATIC = "static"
"""Shared slot of the module of methods that have one for all tasks; its head grows with every task."""

Names = Mapping[str, str | None]
"""Label to its new name, or to None where it goes; labels that are not in it stay as they are."""

_SLOT = "slot"
_NAMES = "names"


def assignment_artifact(slot: str, names: Mapping[str, str] | None = None) -> Artifact:
    """Return what a task version holds that is served by the module in a shared slot.

    Args:
        slot: The slot.
        names: Label to its name in the module's head, for labels renamed since the module was frozen.
    """
    return Artifact(documents={ASSIGNMENT: {_SLOT: slot, _NAMES: dict(names or {})}})


def shared_slot_of(objects: Mapping[str, Readable]) -> str | None:
    """Return the shared slot of the module that serves a version with these objects; None if it has its own."""
    return str(objects[ASSIGNMENT].document(ASSIGNMENT)[_SLOT]) if ASSIGNMENT in objects else None


def module_of(objects: Mapping[str, Readable], shared: Mapping[str, Readable]) -> Readable:
    """Return the object with the module that serves a version with these objects, its own or a shared one."""
    slot = shared_slot_of(objects)
    return objects[MODULE] if slot is None else shared[slot]


@dataclass(frozen=True, slots=True, eq=False)
class TaskState:
    """A task as learned, in its active version.

    Attributes:
        name: Its name.
        version: Number of the version.
        labels: Its labels, sorted.
        kind: What its examples ask.
        template: The template it is read with, or None for the default one.
        settings: Its settings in place of the workspace's.
        objects: What the store holds of the version beside its examples, by slot.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    kind: Kind
    template: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    objects: Mapping[str, Readable] = field(default_factory=dict)

    @property
    def unit(self) -> str | None:
        """The shared slot of the module that serves it, or None if it has its own (or needs none)."""
        return shared_slot_of(self.objects)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names its labels have in the head of the module that serves it, label by label."""
        names = self.objects[ASSIGNMENT].document(ASSIGNMENT)[_NAMES] if ASSIGNMENT in self.objects else {}
        return tuple(names.get(label, label) for label in self.labels)

    def renamed(self, names: Names) -> TaskState:
        """Return the task with some of its labels renamed or gone; its objects are still those of before."""
        found = (names.get(label, label) for label in self.labels)
        return replace(self, labels=tuple(sorted(label for label in found if label is not None)))


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that was learned so far, as the store holds it.

    Attributes:
        tasks: In the order they were first learned.
        shared: What belongs to no task, by slot.
    """

    tasks: tuple[TaskState, ...] = ()
    shared: Mapping[str, Readable] = field(default_factory=dict)

    def followed_by(self, known: TaskState, shared: Mapping[str, Artifact | None]) -> State:
        """Return the state in which a task has come, or has changed in its place, with new shared objects."""
        names = [task.name for task in self.tasks]
        tasks = list(self.tasks)
        if known.name in names:
            tasks[names.index(known.name)] = known
        else:
            tasks.append(known)
        return State(tuple(tasks), self._held(shared))

    def after(self, task: TaskState, objects: Mapping[str, Artifact], shared: Mapping[str, Artifact | None]) -> State:
        """Return the state in which a task has been learned, its objects and the new shared ones still in memory."""
        held = {slot: Held(artifact) for slot, artifact in objects.items()}
        return self.followed_by(replace(task, objects=held), shared)

    def after_all(
        self,
        tasks: Sequence[TaskState],
        objects: Sequence[Mapping[str, Artifact]],
        shared: Mapping[str, Artifact | None],
    ) -> State:
        """Return the state in which several tasks have been learned, as `after` does."""
        state = self
        for task, own in zip(tasks, objects, strict=True):
            state = state.after(task, own, shared)
        return state

    def sharing(self, shared: Mapping[str, Artifact | None]) -> State:
        """Return the state of the same tasks with new shared objects."""
        return State(self.tasks, self._held(shared))

    def without(self, name: str, shared: Mapping[str, Artifact | None]) -> State:
        """Return the state in which a task is gone, with new shared objects."""
        return State(tuple(task for task in self.tasks if task.name != name), self._held(shared))

    def _held(self, shared: Mapping[str, Artifact | None]) -> dict[str, Readable]:
        kept = {slot: reader for slot, reader in self.shared.items() if slot not in shared}
        return kept | {slot: Held(artifact) for slot, artifact in shared.items() if artifact is not None}
