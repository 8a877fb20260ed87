"""What a workspace knows: an immutable state, and everything that is fitted from it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject, ObjectReader
from conpet.data import Kind

if TYPE_CHECKING:
    from conpet.state.update import SharedUpdate, TaskUpdate

MODULE = "module"
"""Slot of a task version that holds what was learned of it; never changed once written."""

ASSIGNMENT = "assignment"
"""Slot of a task version without a PET module of its own: its document names the shared slot of the module that serves
it, together with other tasks, and those of the version's labels that its head knows under another name."""

STATIC = "static"
"""Shared slot of the module of methods that have one for all tasks; its head grows with every task."""

STATISTICS = "statistics"
"""Shared slot, and stem in it, of the Gram matrix; also the name of the fitted statistics of a state."""

OF_FEATURES = ("gram", STATISTICS)
"""Names of fits that depend on the features of the training examples alone."""

Names = Mapping[str, str | None]
"""Label to its new name, or to None where it is removed; labels not in it stay as they are."""

Value = TypeVar("Value")

_SLOT = "slot"
_NAMES = "names"
_LABELS_HEAD = "labels"


def assignment_artifact(slot: str, names: Mapping[str, str] | None = None) -> Artifact:
    """Return what a task version holds that is served by the module in a shared slot.

    Args:
        slot: The slot.
        names: Label to its name in the module's head, for labels renamed since the module was frozen.
    """
    return Artifact(documents={ASSIGNMENT: {_SLOT: slot, _NAMES: dict(names or {})}})


def shared_slot_of(objects: Mapping[str, ObjectReader]) -> str | None:
    """Return the shared slot of the module that serves a version with these objects; None if it has its own."""
    return str(objects[ASSIGNMENT].document(ASSIGNMENT)[_SLOT]) if ASSIGNMENT in objects else None


def module_of(objects: Mapping[str, ObjectReader], shared: Mapping[str, ObjectReader]) -> ObjectReader:
    """Return the object with the module that serves a version with these objects, its own or a shared one."""
    slot = shared_slot_of(objects)
    return objects[MODULE] if slot is None else shared[slot]


@dataclass(frozen=True, slots=True, eq=False)
class TaskState:
    """A task as learned, in its active version.

    Attributes:
        name: Its name.
        version: Number of the version.
        labels: Its labels, sorted; none where its head is not one over labels.
        kind: What its examples ask.
        template: The template its inputs are read with, or None for the default of its kind.
        head: Name of the head it ends in.
        settings: Its settings in place of the workspace's.
        objects: What the store holds of the version apart from its examples, by slot.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    kind: Kind
    template: str | None
    head: str = _LABELS_HEAD
    settings: Mapping[str, Any] = field(default_factory=dict)
    objects: Mapping[str, ObjectReader] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """What selector, classifiers and fusion score: the labels, or a single class for a task without labels."""
        return self.labels if self.head == _LABELS_HEAD else (class_of_task(self.name),)

    def classes_for(self, answers: Sequence[str]) -> list[str]:
        """Return the class of each of some answers of this task."""
        return list(answers) if self.head == _LABELS_HEAD else [class_of_task(self.name)] * len(answers)

    @property
    def shared_slot(self) -> str | None:
        """The shared slot of the module that serves it, or None if it has its own (or needs none)."""
        return shared_slot_of(self.objects)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names its labels have in the head of the module that serves it, label by label."""
        names = self.objects[ASSIGNMENT].document(ASSIGNMENT)[_NAMES] if ASSIGNMENT in self.objects else {}
        return tuple(names.get(label, label) for label in self.labels)

    def renamed(self, names: Names) -> TaskState:
        """Return the task with some labels renamed or removed; its objects are still the former ones."""
        found = (names.get(label, label) for label in self.labels)
        return replace(self, labels=tuple(sorted(label for label in found if label is not None)))


def class_of_task(name: str) -> str:
    """Return the class that stands for a whole task; no label is called so, for labels hold no control character."""
    return f"\0{name}"


@dataclass(frozen=True, eq=False)
class State:
    """Everything a workspace has learned, as of one generation. Never changed: `apply` and its like return the next.

    What is computed from a state (statistics, classifiers, selector, fusion, module assignment) is computed once, when
    it is first asked for, by `fitted`; the next state takes over what has not changed.

    Attributes:
        tasks: In the order in which they were first learned.
        shared: What belongs to no task, by slot.
        generation: The workspace's generation, or None for a state that is not committed.
        fits: What was computed so far, by name. Use `fitted`.
    """

    tasks: tuple[TaskState, ...] = ()
    shared: Mapping[str, ObjectReader] = field(default_factory=dict)
    generation: int | None = None
    fits: dict[str, Any] = field(default_factory=dict, repr=False)

    def fitted(self, name: str, fit: Callable[[], Value]) -> Value:
        """Return what `fit` computes from this state, computed once.

        Two threads that ask for the same at once may both compute it; all later calls get one of the two.
        """
        found = self.fits.get(name, self)
        if found is self:
            found = self.fits.setdefault(name, fit())
        value: Value = found
        return value

    # The next state

    def apply(self, *updates: TaskUpdate) -> State:
        """Return the state in which tasks have been learned, their objects still in memory."""
        state = self
        for update in updates:
            objects = {slot: InMemoryObject(artifact) for slot, artifact in update.objects.items()}
            state = state.with_task(replace(update.task, objects=objects), update)
        return state

    def with_task(self, task: TaskState, update: SharedUpdate | TaskUpdate) -> State:
        """Return the state in which a task was added, or replaced in its place, with new shared objects."""
        names = [known.name for known in self.tasks]
        tasks = list(self.tasks)
        if task.name in names:
            tasks[names.index(task.name)] = task
        else:
            tasks.append(task)
        return State(tuple(tasks), self._held(update.shared), fits=dict(update.fits))

    def with_shared(self, shared: Mapping[str, Artifact | None]) -> State:
        """Return the state of the same tasks with new shared objects.

        Statistics that did not change are taken over with all that is fitted from them.
        """
        kept = {} if STATISTICS in shared else {name: self.fits[name] for name in OF_FEATURES if name in self.fits}
        return State(self.tasks, self._held(shared), fits=kept)

    def without(self, name: str, update: SharedUpdate) -> State:
        """Return the state in which a task is gone, with new shared objects."""
        tasks = tuple(task for task in self.tasks if task.name != name)
        return State(tasks, self._held(update.shared), fits=dict(update.fits))

    def with_objects(self, objects: Mapping[str, Mapping[str, Artifact]]) -> State:
        """Return the state in which tasks, by name, hold other objects; what they were learned from is the same."""
        tasks = tuple(
            replace(task, objects={slot: InMemoryObject(one) for slot, one in objects[task.name].items()})
            if task.name in objects
            else task
            for task in self.tasks
        )
        kept = {name: self.fits[name] for name in OF_FEATURES if name in self.fits}
        return State(tasks, self.shared, fits=kept)

    def _held(self, shared: Mapping[str, Artifact | None]) -> dict[str, ObjectReader]:
        kept = {slot: reader for slot, reader in self.shared.items() if slot not in shared}
        return kept | {slot: InMemoryObject(artifact) for slot, artifact in shared.items() if artifact is not None}

    # Looking up

    def known(self, *names: str) -> list[TaskState]:
        """Return those of the tasks of these names that were learned already."""
        return [task for task in self.tasks if task.name in names]

    def index(self, name: str) -> int:
        """Return the position of a task."""
        return [task.name for task in self.tasks].index(name)

    def templates(self, kind: Kind) -> dict[str | None, None]:
        """Return the templates in use for a kind, each once."""
        return dict.fromkeys(task.template for task in self.tasks if task.kind is kind)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All classes, task by task: the columns of scores `[n, C]`."""
        return tuple(one for task in self.tasks for one in task.classes)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels, task by task."""
        return tuple(label for task in self.tasks for label in task.labels)

    @cached_property
    def owner(self) -> Tensor:
        """Index of the task each class belongs to `[C]`, int64."""
        sizes = torch.tensor([len(task.classes) for task in self.tasks], dtype=torch.int64)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    @cached_property
    def class_templates(self) -> tuple[str | None, ...]:
        """The template the task of each class is read with."""
        return tuple(task.template for task in self.tasks for _ in task.classes)

    @cached_property
    def other_kind(self) -> Mapping[Kind, Tensor]:
        """For each kind, which tasks are of another `[T]`, bool."""
        kinds = [task.kind for task in self.tasks]
        return {kind: torch.tensor([one is not kind for one in kinds], dtype=torch.bool) for kind in Kind}

    def impossible(self, kind: Kind) -> Tensor:
        """Return which classes cannot be the answer for an input of a kind `[C]`, bool: those of other kinds."""
        return self.other_kind[kind][self.owner]
