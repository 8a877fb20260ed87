"""Rename or remove labels: a new version of their task, without training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from conpet.artifact import InMemoryObject
from conpet.commands.base import Transaction
from conpet.commands.generations import holding
from conpet.replay.memory import MEMORY, StoredExamples, Subset, relabel
from conpet.replay.memory_writer import MemoryWriter, stored_examples
from conpet.state.reading import ORIGINS, origins, task_state, task_states
from conpet.state.state import Names
from conpet.state.statistics import remaining_rows
from conpet.store import NewVersion, VersionRecord
from conpet.types import LearnReport


@dataclass(frozen=True, slots=True, eq=False)
class _Relabelling:
    """New names of a task's labels.

    Attributes:
        present: The task's active version.
        names: Label to its new name, or to None if it is removed.
        remaining: Indices of the training examples whose label is not removed.
    """

    present: VersionRecord
    names: Names
    remaining: Sequence[int]

    @classmethod
    def of(cls, present: VersionRecord, names: Names) -> _Relabelling:
        """Find the remaining training examples."""
        return cls(present, names, remaining_rows(task_state(present), names))

    def drops(self, version: VersionRecord) -> bool:
        """Whether to delete a version because it has, or may have under a former name, examples of a removed label."""
        return bool(self.removed) and (version.task == self.present.task or bool(self.removed & set(version.labels)))

    @property
    def removed(self) -> frozenset[str]:
        """The removed labels."""
        return frozenset(label for label, name in self.names.items() if name is None)

    @property
    def memory(self) -> StoredExamples:
        """The remaining examples with their new labels, including test labels."""
        memory = stored_examples(self.present)
        return replace(memory, reader=InMemoryObject(relabel(memory, self.names, self.remaining)))

    @property
    def digest(self) -> str:
        """Digest of the new data, derived from the former digest because not all of the data may be stored."""
        parts = [self.present.digest, dict(self.names)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def description(self, memory: StoredExamples) -> dict[str, Any]:
        """Return the description of the new version with these examples."""
        held_out = {str(subset): memory.count(subset) for subset in (Subset.VALIDATION, Subset.TEST)}
        counts = {str(Subset.TRAIN): len(self.remaining), **held_out}
        return {**self.present.description, "counts": counts, ORIGINS: origins(self.present)}


def relabel_task(tx: Transaction, verb: str, present: VersionRecord, names: Names) -> LearnReport:
    """Rename or remove labels of a task, and commit.

    Args:
        tx: The transaction.
        verb: Name of the change in the history.
        present: The task's active version.
        names: Label to its new name, or to None if it is removed.
    """
    method, name = tx.method, present.task
    change, task = _Relabelling.of(present, names), task_state(present)
    memory = change.memory
    context = tx.context(name)
    context = replace(context, memory=[*context.memory, memory.without_test_labels()])
    update = method.relabel(tx.state, task, names, context)
    remaining_versions = [version for version in tx.snapshot.versions if not change.drops(version)]
    (retained,), smaller = MemoryWriter(method.backbone, tx.settings).retained([memory], remaining_versions)
    state = tx.state.apply(update)
    (added,) = state.known(name)
    pruned = method.prune_labels(tx.state, task_states(tx.snapshot.versions), [*task_states(remaining_versions), added])
    state = state.with_shared(pruned) if pruned else state
    evaluation = tx.evaluate(state, {name: memory})
    row = method.backbone.representation_size + 1
    event = tx.commit(
        state,
        evaluation,
        verb,
        name,
        new_version=NewVersion(
            change.digest,
            added.labels,
            {**update.objects, MEMORY: retained},
            change.description(memory),
            present.parameters,
            max(0, present.head_parameters - row * len(change.removed)),
        ),
        dropped=tuple((version.task, version.number) for version in tx.snapshot.versions if change.drops(version)),
        unpinned=holding(tx.store, name, change.removed) if change.removed else (),
        side_objects=smaller,
        shared={**update.shared, **pruned},  # no detail: the history must not keep removed labels
    )
    return tx.report(tx.snapshot.task(name).active, event=event, evaluation=evaluation)
