"""New names for labels, or labels removed: a new version of their task, nothing trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from conpet.artifact import InMemoryObject
from conpet.commands.base import Transaction
from conpet.replay.memory import MEMORY, StoredExamples, Subset, relabel
from conpet.replay.memory_writer import MemoryWriter, stored_examples
from conpet.state.reading import ORIGINS, origins, task_state, task_states
from conpet.state.state import Names
from conpet.state.statistics import remaining_rows
from conpet.store import NewVersion, VersionRecord
from conpet.types import LearnReport


@dataclass(frozen=True, slots=True, eq=False)
class _Relabelling:
    """New labels for a task.

    Attributes:
        present: The task's version in use.
        names: Label to its new name, or to None where it goes.
        stay: Indices of the training examples whose label does not go.
    """

    present: VersionRecord
    names: Names
    stay: Sequence[int]

    @classmethod
    def of(cls, present: VersionRecord, names: Names) -> _Relabelling:
        """Find which training examples stay."""
        return cls(present, names, remaining_rows(task_state(present), names))

    def drops(self, version: VersionRecord) -> bool:
        """Whether a version goes: one that holds a label that goes, or may hold its examples under a former name."""
        return bool(self.gone) and (version.task == self.present.task or bool(self.gone & set(version.labels)))

    @property
    def gone(self) -> frozenset[str]:
        """The labels that go."""
        return frozenset(label for label, name in self.names.items() if name is None)

    @property
    def memory(self) -> StoredExamples:
        """The examples that stay, under their new labels, test ones too."""
        memory = stored_examples(self.present)
        return replace(memory, reader=InMemoryObject(relabel(memory, self.names, self.stay)))

    @property
    def digest(self) -> str:
        """Digest of the data, made of that of the data before: not all of it need be stored any more."""
        parts = [self.present.digest, dict(self.names)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def description(self, memory: StoredExamples) -> dict[str, Any]:
        """Return the description of the new version, given its examples."""
        held_out = {str(subset): memory.count(subset) for subset in (Subset.VALIDATION, Subset.TEST)}
        counts = {str(Subset.TRAIN): len(self.stay), **held_out}
        return {**self.present.description, "counts": counts, ORIGINS: origins(self.present)}


def relabel_task(tx: Transaction, verb: str, present: VersionRecord, names: Names) -> LearnReport:
    """Give labels of a task other names, or remove them, and commit.

    Args:
        tx: The transaction.
        verb: What is done, for the history.
        present: The task's version in use.
        names: Label to its new name, or to None where it is removed.
    """
    method, name = tx.method, present.task
    change, task = _Relabelling.of(present, names), task_state(present)
    memory = change.memory
    context = tx.context(name)
    context = replace(context, memory=[*context.memory, memory.without_test_labels()])
    update = method.relabel(tx.state, task, names, context)
    kept = [version for version in tx.snapshot.versions if not change.drops(version)]
    (retained,), smaller = MemoryWriter(method.backbone, tx.settings).retained([memory], kept)
    state = tx.state.apply(update)
    (added,) = state.known(name)
    pruned = method.prune_labels(tx.state, task_states(tx.snapshot.versions), [*task_states(kept), added])
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
            max(0, present.head_parameters - row * len(change.gone)),
        ),
        dropped=tuple((one.task, one.number) for one in tx.snapshot.versions if change.drops(one)),
        side_objects=smaller,
        shared={**update.shared, **pruned},  # no names in the history: it would keep them
    )
    return tx.report(tx.snapshot.task(name).active, event=event, evaluation=evaluation)
