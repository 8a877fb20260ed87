"""Merge tasks: train one module to replace theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conpet.commands.base import Transaction
from conpet.commands.checks import mergeable
from conpet.commands.validation import check_bound, validated
from conpet.errors import ConfigError, DataError, Problem
from conpet.methods.base import Rebuilt
from conpet.methods.dynamic import DynamicMethod
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.state.reading import task_states
from conpet.store import SideObject
from conpet.types import MergeReport

_SLOT = "merged-"
"""Prefix of the shared slots of merged modules."""


def merge(tx: Transaction, names: Sequence[str], bound: float) -> MergeReport:
    """Merge tasks; see `ConPET.merge`."""
    wanted, method = mergeable(tx.snapshot, names, bound), tx.method
    assert isinstance(method, DynamicMethod), "`mergeable` refuses other methods"  # noqa: S101
    slot, sources = free_slot(tx), _sources(tx, wanted)
    context = tx.context(scratch=tx.scratch_name(["|".join(sorted(sources)), "merge"]))
    merged = method.merge(tx.state, sources, slot, context)
    before, after = (validated(method, state, sources.values()) for state in (tx.state, merged.state))
    check_bound(before, after, bound, f"merging {', '.join(sources)}", "merge other tasks")
    merged, side_objects = pruned_merge(tx, merged)
    state = merged.state
    bytes_before = tx.store.events()[-1].bytes_stored
    evaluation = tx.evaluate(state)
    event = tx.commit(
        state,
        evaluation,
        "merge",
        side_objects=side_objects,
        shared=merged.shared,
        detail={"tasks": list(sources), "steps": merged.steps, "bound": bound},
    )
    return MergeReport(tuple(sources), before, after, bytes_before, event.bytes_stored, tx.measured(evaluation))


def pruned_merge(tx: Transaction, merged: Rebuilt) -> tuple[Rebuilt, tuple[SideObject, ...]]:
    """Return a merge without shared modules that serve no version any more, and the new objects of the versions."""
    versions = task_states(tx.snapshot.versions)
    active = {task.name: task for task in merged.state.tasks}
    following = [
        active[task.name] if version.active else task
        for version, task in zip(tx.snapshot.versions, versions, strict=True)
    ]
    pruned = tx.method.prune_labels(tx.state, versions, following)
    side_objects = tuple(
        SideObject(name, tx.snapshot.task(name).active.number, part, artifact)
        for name, objects in merged.objects.items()
        for part, artifact in objects.items()
    )
    if pruned:
        merged = replace(merged, shared={**merged.shared, **pruned}, state=merged.state.with_shared(pruned))
    return merged, side_objects


def _sources(tx: Transaction, names: Sequence[str]) -> dict[str, StoredExamples]:
    """Return the examples of the tasks to merge, by name."""
    records = [tx.snapshot.task(name).active for name in names]
    slots = {task.shared_slot for task in task_states(records)}
    if len(slots) == 1 and None not in slots:
        raise ConfigError(
            f"{', '.join(sorted(names))} already share one module; there is nothing to merge. Name other tasks"
        )
    sources = {record.task: examples_without_test_labels(record) for record in records}
    problems = [
        Problem(f"task {name!r}", None, f"has no stored {subset} examples")
        for name, source in sources.items()
        for subset in (Subset.TRAIN, Subset.VALIDATION)
        if not source.count(subset)
    ]
    if problems:
        raise DataError(
            "merging needs training examples, and validation examples to compare accuracies; learn these tasks again "
            "with such examples, or leave them out. Nothing was changed",
            problems,
        )
    return sources


def free_slot(tx: Transaction) -> str:
    """Return the name of a shared slot for a merged module that no version uses."""
    used = [int(slot.removeprefix(_SLOT)) for slot in tx.snapshot.shared if slot.startswith(_SLOT)]
    return f"{_SLOT}{max(used, default=0) + 1}"
