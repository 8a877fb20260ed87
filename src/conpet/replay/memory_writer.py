"""Write the replay memory of tasks, and shrink that of older tasks to make room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import Settings
from conpet.data import Example, Kind, Task
from conpet.errors import ConfigError
from conpet.replay import RETENTIONS
from conpet.replay.fixed import FixedReplay
from conpet.replay.memory import (
    MEMORY,
    Days,
    StoredExamples,
    Subset,
    cut_to,
    latent_memory,
    renumbered,
    text_memory,
    today,
)
from conpet.replay.retention import Holding, KMeans, Limits, Retention
from conpet.state.state import TaskState
from conpet.store import SideObject, TaskRecord, VersionRecord


def examples_without_test_labels(version: VersionRecord) -> StoredExamples:
    """Return the stored examples of a version without test labels, for code that learns or chooses."""
    return stored_examples(version).without_test_labels()


def stored_examples(version: VersionRecord) -> StoredExamples:
    """Return the stored examples of a version with test labels, for the metrics and for storing them again."""
    description = version.description
    return StoredExamples(version.task, description["template"], Kind(description["kind"]), version.objects[MEMORY])


def past_examples(tasks: Iterable[TaskRecord]) -> list[StoredExamples]:
    """Return the stored examples of tasks without test labels."""
    return [examples_without_test_labels(task.active) for task in tasks]


def retention_of(settings: Settings) -> Retention:
    """Return a workspace's retention; the schedule "fixed" always uses k-means with a limit per label."""
    replay = settings.replay
    fixed = replay.schedule.name == FixedReplay.name
    per_label = replay.memory_per_label if fixed else None
    limits = Limits(replay.memory_examples, replay.memory_bytes, per_label)
    retention: Retention = RETENTIONS[KMeans.name if fixed else replay.retention](limits, settings.seed)
    return retention


class MemoryWriter:
    """Makes memory objects according to a workspace's settings: texts or states, within the limits.

    The limits apply to training examples, because only they are replayed; all validation and test examples are stored.

    Args:
        backbone: The frozen model.
        settings: The workspace's settings.
    """

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        self._backbone = backbone
        self._latent = settings.replay.latent_only
        self._retention = retention_of(settings)
        self._represented = self._retention.needs_representations and not self._retention.limits.unlimited

    def all_examples(
        self,
        task: Task,
        train: States,
        representations: Callable[[], Tensor] | None,
        former: VersionRecord | None = None,
    ) -> StoredExamples:
        """Return all examples of a task just learned, with test labels, not stored yet.

        Args:
            task: The task.
            train: Prefix states of its training examples.
            representations: Computes the representations for k-means `[n, R]`; None for the frozen features.
            former: The version that its examples were taken from, if any; they keep the days when they were learned.
        """
        clustered = None
        if self._represented:
            clustered = train.features if representations is None else representations()
        examples = {Subset.TRAIN: task.train, Subset.VALIDATION: task.validation, Subset.TEST: task.test}
        if not self._latent:
            artifact = text_memory(examples, clustered, _days(examples, former) if former else None)
        else:
            labels = {
                subset: [str(example.label) for example in subset_examples]
                for subset, subset_examples in examples.items()
            }
            artifact = latent_memory(self._states_of(task, train), labels, clustered)
        return StoredExamples(task.name, task.template, task.kind, InMemoryObject(artifact))

    def retained(
        self, newest: Sequence[StoredExamples], older: Sequence[VersionRecord]
    ) -> tuple[list[Artifact], tuple[SideObject, ...]]:
        """Return the memory objects of the newest tasks, and smaller ones for older versions that must make room.

        Args:
            newest: All examples of each newest task.
            older: All stored versions, active or not: inactive ones count towards the limits as well.
        """
        if self._retention.limits.unlimited:
            return [self._cut(memory, range(memory.count(Subset.TRAIN))) for memory in newest], ()
        competing = older if self._retention.limits.shared else ()
        memories = [*(stored_examples(version) for version in competing), *newest]
        seed = self._retention.seed
        kept = self._retention.keep([Holding.of(memory, seed, represented=self._represented) for memory in memories])
        smaller = tuple(
            SideObject(version.task, version.number, MEMORY, self._cut(memory, positions))
            for version, memory, positions in zip(competing, memories, kept, strict=False)
            if len(positions) < memory.count(Subset.TRAIN)
        )
        new = zip(newest, kept[len(competing) :], strict=True)
        return [self._cut(memory, positions) for memory, positions in new], smaller

    def learned_again(self, memory: StoredExamples, train: States) -> Artifact | None:
        """Return the new memory object of a version learned again from its stored examples; None if it is the same.

        Args:
            memory: Its stored examples, with test labels.
            train: Their prefix states; the frozen features are the new representations.
        """
        if memory.indices == list(range(memory.count(Subset.TRAIN))) and not self._represented:
            return None
        return renumbered(memory, train.features if self._represented else None)

    def notes(self, whole: StoredExamples, stored: Artifact) -> list[str]:
        """Return a note for the user if the memory has no room for any training example of a task just learned."""
        if replace(whole, reader=InMemoryObject(stored)).count(Subset.TRAIN):
            return []
        limits = {"memory_examples": self._retention.limits.examples, "memory_bytes": self._retention.limits.bytes}
        settings = ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
        return [
            f"the replay memory ({settings}) has no room for any of its training examples, so none can be replayed; "
            "to replay them, make a workspace with a higher limit"
        ]

    def _cut(self, memory: StoredExamples, positions: Sequence[int]) -> Artifact:
        return cut_to(memory, positions, represented=self._represented)

    def _states_of(self, task: Task, train: States) -> dict[Subset, States]:
        # Stored states need no cache entry; and the backbone belongs to the method, so it gets no labels.
        validation, test = (
            self._backbone.states([example.labelled(None) for example in examples], task.template, keep=False)
            for examples in (task.validation, task.test)
        )
        return {Subset.TRAIN: train, Subset.VALIDATION: validation, Subset.TEST: test}


def _days(examples: Mapping[Subset, Sequence[Example]], former: VersionRecord) -> Days:
    """Return the day on which each example was learned first, if `former` stores it; today for the others."""
    memory, day = stored_examples(former), today()
    known: dict[object, str] = {}
    for subset in Subset:
        days = memory.days(subset) or [former.created.date().isoformat()] * memory.count(subset)
        known |= {example.input_key: day for example, day in zip(memory.examples(subset), days, strict=True)}
    return {
        subset: [known.get(example.input_key, day) for example in subset_examples]
        for subset, subset_examples in examples.items()
    }


def check_templates(task: Task, others: Iterable[Task | TaskState]) -> None:
    """Refuse a task whose template differs from that of stored tasks of its kind (`latent_only`).

    Args:
        task: The task.
        others: Every stored version, including those of the task itself, because each can be rolled back to.

    Raises:
        ConfigError: A version of the same kind has another template.
    """
    for other in others:
        if other.kind is task.kind and other.template != task.template:
            raise ConfigError(
                f"its template, {_named(task.template)}, differs from that of task {other.name!r}, "
                f"{_named(other.template)}: with latent_only=true all examples of kind {task.kind} need the same "
                "template, because past texts are not stored. Use that template, remove the other task, or make a "
                "workspace without latent_only"
            )


def _named(template: str | None) -> str:
    return "the default one" if template is None else repr(template)
