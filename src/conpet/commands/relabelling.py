"""Labels that get another name, or are retired: new versions of their tasks, nothing trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import category

from conpet.commands.changing import BaseCommands
from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.readable import Held
from conpet.replay.memory import MEMORY, StoredExamples, Subset, relabel
from conpet.replay.memory_writer import MemoryWriter, stored_examples
from conpet.state.reading import ORIGINS, origins, task_state, task_states
from conpet.state.state import Names
from conpet.state.statistics import staying
from conpet.store import NewVersion, TaskRecord, VersionRecord
from conpet.types import LearnReport

_SHOWN = 20
"""Labels named in a message."""


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
        return cls(present, names, staying(task_state(present), names))

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
        return replace(memory, reader=Held(relabel(memory, self.names, self.stay)))

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


class RelabelCommands(BaseCommands):
    """Works out and commits changes of labels; arguments as in `BaseCommands`."""

    def rename(self, old: str, new: str) -> LearnReport:
        """Give a label another name; see `ConPET.rename`."""
        record = self._owner(old)
        if new == old:
            raise ConfigError(f"label {old!r} has this name already; nothing was changed")
        self._check_new(new)
        return self._relabel("rename", record.active, {old: new})

    def retire(self, label: str) -> LearnReport:
        """Take a label out; see `ConPET.retire`."""
        record = self._owner(label)
        if len(record.active.labels) == 1:
            raise ConfigError(
                f"label {label!r} is the last of task {record.name!r}; remove the task (`conpet modules remove`)"
            )
        return self._relabel("retire", record.active, {label: None})

    def _relabel(self, verb: str, present: VersionRecord, names: Names) -> LearnReport:
        learner, name = self._learner, present.task
        change, known = _Relabelling.of(present, names), task_state(present)
        memory = change.memory
        context = self._context(name)
        learned = learner.relabel(known, names, replace(context, memory=[*context.memory, memory.without_test_labels]))
        state = learner.state.after(known.renamed(names), learned.objects, learned.shared)
        staying = [version for version in self.snapshot.versions if not change.drops(version)]
        (kept,), smaller = MemoryWriter(learner.backbone, learner.settings).kept([memory], staying)
        added = next(task for task in state.tasks if task.name == name)
        prune_labels = learner.prune_labels(task_states(self.snapshot.versions), [*task_states(staying), added])
        evaluation = self._evaluated(state.followed_by(added, prune_labels), {name: memory})
        row = learner.backbone.representation_size + 1
        event = self._commit(
            evaluation,
            verb,
            name,
            new_version=NewVersion(
                change.digest,
                added.labels,
                {**learned.objects, MEMORY: kept},
                change.description(memory),
                present.parameters,
                max(0, present.head_parameters - row * len(change.gone)),
            ),
            dropped=tuple((one.task, one.number) for one in self.snapshot.versions if change.drops(one)),
            side_objects=smaller,
            shared={**learned.shared, **prune_labels},  # no names in the history: it would keep them for ever
        )
        return self._report(self.snapshot.task(name).active, event=event, evaluation=evaluation)

    def _owner(self, label: str) -> TaskRecord:
        for task in self.snapshot.tasks:
            if label in task.active.labels:
                return task
        known = [repr(one) for task in self.snapshot.tasks for one in task.active.labels]
        have = ", ".join(known[:_SHOWN]) or "none yet"
        more = f", ... ({len(known):,} in all, see `conpet labels list`)" if len(known) > _SHOWN else ""
        raise UnknownNameError(f"no label {label!r} in this workspace; have: {have}{more}")

    def _check_new(self, label: str) -> None:
        owners = {one: task.name for task in self.snapshot.tasks for one in task.active.labels}
        if label in owners:
            raise DataError(f"label {label!r} is owned by task {owners[label]!r} already; choose another name")
        surrogates_or_controls = any(category(one) in ("Cs", "Cc") for one in label)
        if not label.strip() or surrogates_or_controls:
            raise ConfigError(
                f"{label!r} cannot be a label: give it a name that is not blank, is valid Unicode and has no control "
                "characters"
            )
