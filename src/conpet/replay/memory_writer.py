"""What a workspace keeps of its tasks' examples, and how older tasks make room for a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from conpet.artifact import Artifact, InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import Settings
from conpet.data import Kind, Task
from conpet.errors import ConfigError
from conpet.replay import RETENTIONS
from conpet.replay.fixed import FixedReplay
from conpet.replay.memory import MEMORY, StoredExamples, Subset, cut_to, latent_memory, text_memory
from conpet.replay.retention import Holding, KMeans, Limits, Retention
from conpet.state.state import TaskState
from conpet.store import SideObject, TaskRecord, VersionRecord


def examples_without_test_labels(version: VersionRecord) -> StoredExamples:
    """Return the replay memory of a version, blind to its test labels: for all that learns and chooses."""
    return stored_examples(version).without_test_labels()


def stored_examples(version: VersionRecord) -> StoredExamples:
    """Return the memory of a version with its test labels: for the metrics, and for what stores it anew."""
    description = version.description
    return StoredExamples(version.task, description["template"], Kind(description["kind"]), version.objects[MEMORY])


def past_examples(tasks: Iterable[TaskRecord]) -> list[StoredExamples]:
    """Return the replay memory of some tasks, as `examples_without_test_labels` does."""
    return [examples_without_test_labels(task.active) for task in tasks]


def retention_of(settings: Settings) -> Retention:
    """Return a workspace's retention; with `replay="fixed"` it is that of the unstarred methods' own memory."""
    replay = settings.replay
    fixed = replay.schedule.name == FixedReplay.name
    per_label = replay.memory_per_label if fixed else None
    limits = Limits(replay.memory_examples, replay.memory_bytes, per_label)
    retention: Retention = RETENTIONS[KMeans.name if fixed else replay.retention](limits, settings.seed)
    return retention


class MemoryWriter:
    """Makes memory objects by a workspace's settings: texts or states, and no more of them than there is room for.

    The limits are on training examples, which are what is replayed; validation and test examples are kept whole.

    Args:
        backbone: The frozen model.
        settings: The workspace's settings.
    """

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        self._backbone = backbone
        self._latent = settings.replay.latent_only
        self._retention = retention_of(settings)
        self._represented = self._retention.needs_representations and not self._retention.limits.unlimited

    def all_examples(self, task: Task, train: States, representations: Callable[[], Tensor] | None) -> StoredExamples:
        """Return all examples of a task just learned, in memory, test labels too.

        Args:
            task: The task.
            train: States of its training examples.
            representations: Computes what k-means clusters `[n, R]`; None: their frozen features.
        """
        clustered = None
        if self._represented:
            clustered = train.features if representations is None else representations()
        examples = {Subset.TRAIN: task.train, Subset.VALIDATION: task.validation, Subset.TEST: task.test}
        if not self._latent:
            artifact = text_memory(examples, clustered)
        else:
            labels = {subset: [str(example.label) for example in some] for subset, some in examples.items()}
            artifact = latent_memory(self._states_of(task, train), labels, clustered)
        return StoredExamples(task.name, task.template, task.kind, InMemoryObject(artifact))

    def retained(
        self, newest: Sequence[StoredExamples], older: Sequence[VersionRecord]
    ) -> tuple[list[Artifact], tuple[SideObject, ...]]:
        """Return what is kept of the newest tasks, and the memory objects of older versions that must make room.

        Args:
            newest: All examples of each.
            older: All versions stored, in use or not: those that are not take up room as well.
        """
        if self._retention.limits.unlimited:
            return [self._cut(one, range(one.count(Subset.TRAIN))) for one in newest], ()
        competing = older if self._retention.limits.shared else ()
        memories = [*(stored_examples(version) for version in competing), *newest]
        seed = self._retention.seed
        kept = self._retention.keep([Holding.of(memory, seed, represented=self._represented) for memory in memories])
        smaller = tuple(
            SideObject(version.task, version.number, MEMORY, self._cut(memory, positions))
            for version, memory, positions in zip(competing, memories, kept, strict=False)
            if len(positions) < memory.count(Subset.TRAIN)
        )
        return [self._cut(*one) for one in zip(newest, kept[len(competing) :], strict=True)], smaller

    def notes(self, whole: StoredExamples, kept: Artifact) -> list[str]:
        """Return what the user should know of what is kept of a task just learned: that it is nothing, if so."""
        if replace(whole, reader=InMemoryObject(kept)).count(Subset.TRAIN):
            return []
        limits = {"memory_examples": self._retention.limits.examples, "memory_bytes": self._retention.limits.bytes}
        told = ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
        return [
            f"the replay memory ({told}) has no room for any of its training examples: none can be replayed; "
            "for that make a workspace with a higher limit"
        ]

    def _cut(self, memory: StoredExamples, positions: Sequence[int]) -> Artifact:
        return cut_to(memory, positions, represented=self._represented)

    def _states_of(self, task: Task, train: States) -> dict[Subset, States]:
        # What is stored need not lie in the cache as well; and the backbone is the learner's, so without labels.
        validation, test = (
            self._backbone.states([one.labelled(None) for one in examples], task.template, keep=False)
            for examples in (task.validation, task.test)
        )
        return {Subset.TRAIN: train, Subset.VALIDATION: validation, Subset.TEST: test}


def check_templates(task: Task, others: Iterable[Task | TaskState]) -> None:
    """Refuse a task that cannot be learned beside others of which only states are kept (`latent_only`).

    Args:
        task: The task.
        others: Every version stored, that of the task's own too: each may be gone back to.

    Raises:
        ConfigError: One of them is of the same kind and read with another template.
    """
    for other in others:
        if other.kind is task.kind and other.template != task.template:
            raise ConfigError(
                f"its template, {_named(task.template)}, is not that of task {other.name!r}, {_named(other.template)}: "
                f"with latent_only=true all examples of a kind ({task.kind}) are read through one template, for the "
                "past ones' texts are gone; use the same template, remove the other task, or make a workspace without "
                "latent_only"
            )


def _named(template: str | None) -> str:
    return "the default one" if template is None else repr(template)
