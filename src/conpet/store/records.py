"""Records returned by the store, with lazy readers for contents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

from conpet.artifact import ArtifactReader
from conpet.errors import UnknownNameError
from conpet.store.leases import Lease

MODULE = "module"
"""The slot of a version that is replaced only by a change that pins the generation before it."""


@dataclass(frozen=True, slots=True)
class Header:
    """The description of a workspace.

    Attributes:
        schema_version: Version of the layout on disk.
        settings: The current settings of the workspace.
        backbone: The fingerprint of its backbone.
        created: Time of creation, in UTC.
        conpet_version: The version of conpet that created it.
    """

    schema_version: int
    settings: Mapping[str, Any]
    backbone: Mapping[str, Any]
    created: datetime
    conpet_version: str


@dataclass(frozen=True, slots=True, eq=False)
class VersionRecord:
    """A version of a task.

    Attributes:
        id: Unique in the workspace, never reused.
        task: Name of its task.
        number: 1, 2, ... by task name, never reused, not even after the task was removed.
        active: Whether predictions use it; exactly one version of a task is active.
        digest: Digest of the data it was learned from.
        labels: Its labels in the order of its head's outputs.
        description: Kind, template, settings, notes: as passed to the store.
        parameters: Trained parameters without the head.
        head_parameters: Trained parameters of the head.
        created: Time of creation, in UTC.
        objects: Readers by slot. `"module"` is replaced only by a change that pins the generation before it.
    """

    id: int
    task: str
    number: int
    active: bool
    digest: str
    labels: tuple[str, ...]
    description: Mapping[str, Any]
    parameters: int
    head_parameters: int
    created: datetime
    objects: Mapping[str, ArtifactReader]

    @property
    def module(self) -> ArtifactReader | None:
        """The reader of the slot `"module"`, if it was written."""
        return self.objects.get(MODULE)

    @property
    def bytes(self) -> int:
        """Size of all its objects."""
        return sum(reader.bytes for reader in self.objects.values())


@dataclass(frozen=True, slots=True, eq=False)
class TaskRecord:
    """One task.

    Attributes:
        id: Unique in the workspace, never reused.
        name: Unique among the tasks not removed.
        position: Ascending in the order in which tasks were first learned, with gaps for removed tasks.
        versions: All its versions by number, ascending; at least one.
    """

    id: int
    name: str
    position: int
    versions: tuple[VersionRecord, ...]

    @property
    def active(self) -> VersionRecord:
        """The version that predictions use."""
        return next(version for version in self.versions if version.active)

    def version(self, number: int) -> VersionRecord:
        """Return the version of this number, or raise `UnknownNameError`."""
        for version in self.versions:
            if version.number == number:
                return version
        have = ", ".join(str(version.number) for version in self.versions)
        raise UnknownNameError(f"task {self.name!r} has no version {number}; have: {have}")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The whole workspace as of one generation.

    Until `close` is called, or the snapshot and all its readers are garbage, nothing it refers to is deleted from disk,
    whatever other processes learn or remove.

    Attributes:
        generation: Id of the last event it includes.
        header: The description of the workspace, with the settings of this generation.
        tasks: All tasks, by position.
        shared: Readers by slot of the objects that belong to no task.
    """

    generation: int
    header: Header
    tasks: tuple[TaskRecord, ...]
    shared: Mapping[str, ArtifactReader]
    lease: Lease = field(repr=False)

    @property
    def versions(self) -> tuple[VersionRecord, ...]:
        """All versions of all tasks."""
        return tuple(version for task in self.tasks for version in task.versions)

    @property
    def owners(self) -> dict[str, str]:
        """Maps the labels of the active versions to the names of their tasks."""
        return {label: task.name for task in self.tasks for label in task.active.labels}

    def task(self, name: str) -> TaskRecord:
        """Return the task of this name, or raise `UnknownNameError`."""
        for task in self.tasks:
            if task.name == name:
                return task
        have = ", ".join(repr(task.name) for task in self.tasks) or "none yet"
        raise UnknownNameError(f"no task {name!r} in this workspace; have: {have}")

    def readers(self) -> Iterator[ArtifactReader]:
        """Iterate over the readers of every object."""
        yield from self.shared.values()
        for version in self.versions:
            yield from version.objects.values()

    def close(self) -> None:
        """Allow the store to delete objects that later generations do not use; tensors already read stay valid."""
        self.lease.release()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Metric:
    """The mean of a metric over the test examples of a task.

    Attributes:
        task: Name of the task whose test examples were predicted.
        metric: Name of the metric, from the head of the task or the method.
        value: The mean.
        n: Number of examples.
    """

    task: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True, slots=True)
class Reference:
    """Accuracy of a closed-form classifier over the test examples of all tasks seen."""

    name: str
    value: float
    n: int


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one stage of an event.

    Attributes:
        stage: "selector", "module", "evaluation", ...
        seconds: Wall time.
        tokens: Tokens the backbone computed.
        cached_tokens: Tokens whose prefix states came from the cache.
        steps: Optimisation steps.
        parameters: Parameters trained, without heads.
        head_parameters: Parameters of heads trained.
        peak_bytes: Peak memory of the process during the stage; 0 if not measured.
    """

    stage: str
    seconds: float
    tokens: int = 0
    cached_tokens: int = 0
    steps: int = 0
    parameters: int = 0
    head_parameters: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EventSummary:
    """A change of the workspace without its measurements, which are many; see `EventRecord`.

    `seconds` is the sum of the costs.
    """

    id: int
    time: datetime
    verb: str
    task: str | None
    version: int | None
    detail: Mapping[str, Any]
    actor: str
    written: Mapping[str, Any]
    digest: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A change of the workspace, as an entry of its history.

    Attributes:
        id: The generation it created.
        time: Time of the change, in UTC.
        verb: "create", "learn", "rollback", "remove", ...
        task: Name of the task changed, if any; it may have been removed since.
        version: The version it created or activated, if any.
        detail: Further details from the caller.
        metrics: Test results after the event.
        references: Results of the reference classifiers after the event.
        costs: The costs by stage.
        confusion: The selector's confusion, from the caller.
        bytes_stored: Size of all objects in use after the event, without those that only pinned generations need.
        restores: The pinned generation that it made present again, or None.
        actor: Who made the change: a user of the machine, or an API key.
        written: Hashes of what it wrote, and of the state after it (see `conpet.store.chain`).
        digest: Hash of the event and of the digest before it.
    """

    id: int
    time: datetime
    verb: str
    task: str | None
    version: int | None
    detail: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    references: tuple[Reference, ...]
    costs: tuple[Cost, ...]
    confusion: Any
    bytes_stored: int
    restores: int | None
    actor: str
    written: Mapping[str, Any]
    digest: str
