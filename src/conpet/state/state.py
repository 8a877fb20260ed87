"""The immutable state of a workspace, and what is fitted from it once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject, ObjectReader
from conpet.data import Kind
from conpet.errors import ConfigError, UnknownNameError, did_you_mean
from conpet.state.slots import ASSIGNMENT, LOGISTIC, NAMES, REFIT, STATISTICS, shared_slot_of

if TYPE_CHECKING:
    from conpet.state.update import SharedUpdate, TaskUpdate

SCOPES = "scopes"
"""Name of a state's fit: the scores of belonging to something learned, by kind of input."""

OF_FEATURES = ("gram", STATISTICS, f"{STATISTICS}, {REFIT}", SCOPES)
"""Names of fits that depend only on the features of the training and validation examples."""

SELECTOR_FIT = "selector"
"""Name of a state's fit: the selector."""

_OF_CLASSIFIERS = frozenset({STATISTICS, SELECTOR_FIT})
"""Names of fits that differ in a state that was refit."""

Names = Mapping[str, str | None]
"""Label to its new name, or to None if it is removed; labels that are not in it do not change."""

Value = TypeVar("Value")

_LABELS_HEAD = "labels"


@dataclass(frozen=True, slots=True, eq=False)
class TaskState:
    """A learned task in its active version.

    Attributes:
        name: Its name.
        version: Number of the version.
        labels: Its labels, sorted; empty for a head without labels.
        kind: Kind of its examples.
        template: Template of its inputs, or None for the default of its kind.
        head: Name of its head.
        settings: Settings of the task that override the workspace's.
        objects: Stored objects of the version without its examples, by slot.
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
        """The classes that classifiers and fusion score: the labels, or a single class for a task without labels."""
        return self.labels if self.head == _LABELS_HEAD else (class_of_task(self.name),)

    def classes_for(self, answers: Sequence[str]) -> list[str]:
        """Return the class of each of these answers of the task."""
        return list(answers) if self.head == _LABELS_HEAD else [class_of_task(self.name)] * len(answers)

    @property
    def shared_slot(self) -> str | None:
        """The shared slot of the task's module, or None if it has its own module (or needs none)."""
        return shared_slot_of(self.objects)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its labels in the head of its module, label by label."""
        names = self.objects[ASSIGNMENT].document(ASSIGNMENT)[NAMES] if ASSIGNMENT in self.objects else {}
        return tuple(names.get(label, label) for label in self.labels)

    def renamed(self, names: Names) -> TaskState:
        """Return the task with labels renamed or removed; its objects do not change."""
        renamed = (names.get(label, label) for label in self.labels)
        return replace(self, labels=tuple(sorted(label for label in renamed if label is not None)))


def class_of_task(name: str) -> str:
    """Return the single class of a task without labels; it cannot equal a label, which has no control characters."""
    return f"\0{name}"


@dataclass(frozen=True, eq=False)
class State:
    """Everything a workspace has learned, as of one generation. Immutable: `apply` and similar methods return the next.

    `fitted` computes what is derived from a state (statistics, classifiers, selector, fusion, module assignment) once,
    on first use; the next state takes over what has not changed.

    Attributes:
        tasks: In the order in which they were first learned.
        shared: Objects that belong to no single task, by slot.
        generation: The workspace's generation, or None for a state that is not committed.
        fits: Results of `fitted` so far, by name.
        only: Names of the only tasks that may answer (see `among`), or None for all.
        refit: Whether the classifiers of frozen features learned from validation examples, too (see `refitted`).
    """

    tasks: tuple[TaskState, ...] = ()
    shared: Mapping[str, ObjectReader] = field(default_factory=dict)
    generation: int | None = None
    fits: dict[str, Any] = field(default_factory=dict, repr=False)
    only: frozenset[str] | None = None
    refit: bool = False

    @property
    def refitted(self) -> State:
        """The same state with classifiers that learned from validation examples, too. It shares all other fits.

        It answers, and is measured on test examples. Whatever is measured on validation examples uses this state
        itself: its classifiers have not seen them.
        """
        return replace(self, refit=True)

    @property
    def held_out(self) -> State:
        """The same state with classifiers that have not seen validation examples; the inverse of `refitted`."""
        return replace(self, refit=False)

    def fitted(self, name: str, fit: Callable[[], Value]) -> Value:
        """Return the result of `fit` for this state, computed once.

        Two threads may both compute it at the same time; all later calls return the same one of the two results.
        """
        name = f"{name}, {REFIT}" if self.refit and name in _OF_CLASSIFIERS else name
        stored = self.fits.get(name, self)  # self: a marker for "not computed", since None may be a result
        if stored is self:
            stored = self.fits.setdefault(name, fit())
        value: Value = stored
        return value

    def among(self, names: Collection[str]) -> State:
        """Return the same state, in which only these tasks may answer. It shares all fits; use it to predict only.

        Raises:
            ConfigError: There are no names.
            UnknownNameError: There is no such task.
        """
        if isinstance(names, str):
            raise ConfigError(f"tasks={names!r}: give a list of names")
        if not names:
            raise ConfigError("tasks=[]: name at least one task, or leave it out")
        known = [task.name for task in self.tasks]
        for name in names:
            if name not in known:
                raise UnknownNameError(f"no task {name!r} was learned{did_you_mean(name, known)}")
        return replace(self, only=frozenset(names))

    # The next state

    def apply(self, *updates: TaskUpdate) -> State:
        """Return the state after tasks were learned; their objects are in memory."""
        state = self
        for update in updates:
            objects = {slot: InMemoryObject(artifact) for slot, artifact in update.objects.items()}
            state = state.with_task(replace(update.task, objects=objects), update)
        return state

    def with_task(self, task: TaskState, update: SharedUpdate | TaskUpdate) -> State:
        """Return the state with a task added, or replaced at its position, and with new shared objects."""
        names = [known.name for known in self.tasks]
        tasks = list(self.tasks)
        if task.name in names:
            tasks[names.index(task.name)] = task
        else:
            tasks.append(task)
        return State(tuple(tasks), self._held(update.shared), fits=dict(update.fits))

    def with_shared(self, shared: Mapping[str, Artifact | None]) -> State:
        """Return the state of the same tasks with new shared objects.

        Unchanged statistics are taken over, with everything fitted from them.
        """
        changed = not shared.keys().isdisjoint({STATISTICS, LOGISTIC, REFIT})
        fits = {} if changed else {name: self.fits[name] for name in OF_FEATURES if name in self.fits}
        return State(self.tasks, self._held(shared), fits=fits)

    def without(self, name: str, update: SharedUpdate) -> State:
        """Return the state without a task and with new shared objects."""
        tasks = tuple(task for task in self.tasks if task.name != name)
        return State(tasks, self._held(update.shared), fits=dict(update.fits))

    def with_objects(self, objects: Mapping[str, Mapping[str, Artifact]]) -> State:
        """Return the state with new objects of tasks, by name; the features of their examples are the same."""
        tasks = tuple(
            replace(task, objects={slot: InMemoryObject(artifact) for slot, artifact in objects[task.name].items()})
            if task.name in objects
            else task
            for task in self.tasks
        )
        fits = {name: self.fits[name] for name in OF_FEATURES if name in self.fits}
        return State(tasks, self.shared, fits=fits)

    def _held(self, shared: Mapping[str, Artifact | None]) -> dict[str, ObjectReader]:
        unchanged = {slot: reader for slot, reader in self.shared.items() if slot not in shared}
        return unchanged | {slot: InMemoryObject(artifact) for slot, artifact in shared.items() if artifact is not None}

    # Looking up

    def known(self, *names: str) -> list[TaskState]:
        """Return the learned tasks among these names."""
        return [task for task in self.tasks if task.name in names]

    def index(self, name: str) -> int:
        """Return the index of a task."""
        return [task.name for task in self.tasks].index(name)

    def templates(self, kind: Kind) -> dict[str | None, None]:
        """Return the templates in use for a kind, as an ordered set."""
        return dict.fromkeys(task.template for task in self.tasks if task.kind is kind)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All classes, task by task: the columns of scores `[n, C]`."""
        return tuple(name for task in self.tasks for name in task.classes)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels, task by task."""
        return tuple(label for task in self.tasks for label in task.labels)

    @cached_property
    def owner(self) -> Tensor:
        """Index of each class's task `[C]`, int64."""
        sizes = torch.tensor([len(task.classes) for task in self.tasks], dtype=torch.int64)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    @cached_property
    def class_templates(self) -> tuple[str | None, ...]:
        """The template of each class's task."""
        return tuple(task.template for task in self.tasks for _ in task.classes)

    @cached_property
    def other_kind(self) -> Mapping[Kind, Tensor]:
        """For each kind, which tasks cannot answer: they have another kind, or `only` leaves them out `[T]`, bool."""
        kinds = [task.kind if self.only is None or task.name in self.only else None for task in self.tasks]
        return {kind: torch.tensor([other is not kind for other in kinds], dtype=torch.bool) for kind in Kind}

    def impossible(self, kind: Kind) -> Tensor:
        """Return which classes cannot be the answer for an input of a kind `[C]`, bool (see `other_kind`)."""
        return self.other_kind[kind][self.owner]
