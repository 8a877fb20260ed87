"""Make another version of a task active."""

from __future__ import annotations

from dataclasses import replace

from conpet.commands.base import Transaction
from conpet.commands.checks import check_labels
from conpet.commands.extend import check_every_label
from conpet.methods.base import TaskData
from conpet.replay.memory import MEMORY, Subset
from conpet.replay.memory_writer import MemoryWriter, examples_without_test_labels, stored_examples
from conpet.state.reading import task_state
from conpet.state.slots import MODULE
from conpet.store import SideObject, VersionRecord
from conpet.types import LearnReport


def rollback(tx: Transaction, name: str, number: int) -> LearnReport:
    """Make another version of a task active; see `ConPET.rollback`."""
    record = tx.snapshot.task(name)
    chosen = record.version(number)
    if chosen.active:
        return tx.report(chosen, skipped=True)
    check_labels(tx.snapshot, name, chosen.labels)
    if MODULE not in chosen.objects:
        return _learned_again(tx, chosen)
    added = task_state(chosen)
    context = tx.context(name)
    context = replace(context, memory=[*context.memory, examples_without_test_labels(chosen)])
    update = tx.method.update_shared(tx.state, task_state(record.active), added, context)
    state = tx.state.with_task(added, update)
    evaluation = tx.evaluate(state, {name: stored_examples(chosen)}, {name: number})
    event = tx.commit(state, evaluation, "rollback", name, activate=number, shared=update.shared)
    return tx.report(tx.snapshot.task(name).active, event=event, evaluation=evaluation)


def _learned_again(tx: Transaction, chosen: VersionRecord) -> LearnReport:
    """Learn a version from before a consolidation again, from its stored examples, over the present backbone."""
    source, memory = examples_without_test_labels(chosen), stored_examples(chosen)
    check_every_label(chosen, source.labels(Subset.TRAIN), chosen.labels)
    with tx.costs.stage("prefix"):
        progress = tx.counted("prefix", source.count(Subset.TRAIN))
        data = TaskData.of(task_state(chosen), tx.settings, source, tx.method.backbone, progress=progress)
    context = tx.context(chosen.task, scratch=tx.scratch_name([chosen.digest, "rollback"]))
    update = tx.method.learn_task(tx.state, data, context)
    state = tx.state.apply(update)
    evaluation = tx.evaluate(state, {chosen.task: memory}, {chosen.task: chosen.number})
    renewed = MemoryWriter(tx.method.backbone, tx.settings).learned_again(memory, data.train)
    objects = {**update.objects, **({MEMORY: renewed} if renewed else {})}
    event = tx.commit(
        state,
        evaluation,
        "rollback",
        chosen.task,
        activate=chosen.number,
        side_objects=tuple(
            SideObject(chosen.task, chosen.number, slot, artifact) for slot, artifact in objects.items()
        ),
        shared=update.shared,
        detail=update.detail,
    )
    note = (
        f"version {chosen.number} was learned before a consolidation changed the backbone, so it was learned again "
        f"from its {source.count(Subset.TRAIN):,} stored training examples"
    )
    return tx.report(tx.snapshot.task(chosen.task).active, event=event, evaluation=evaluation, notes=[note])
