"""Make another version of a task active."""

from __future__ import annotations

from dataclasses import replace

from conpet.commands.base import Transaction
from conpet.commands.checks import check_labels
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.reading import task_state
from conpet.types import LearnReport


def rollback(tx: Transaction, name: str, number: int) -> LearnReport:
    """Make another version of a task active; see `ConPET.rollback`."""
    record = tx.snapshot.task(name)
    chosen = record.version(number)
    if chosen.active:
        return tx.report(chosen, skipped=True)
    check_labels(tx.snapshot, name, chosen.labels)
    added = task_state(chosen)
    context = tx.context(name)
    context = replace(context, memory=[*context.memory, examples_without_test_labels(chosen)])
    update = tx.method.update_shared(tx.state, task_state(record.active), added, context)
    state = tx.state.with_task(added, update)
    evaluation = tx.evaluate(state, {name: stored_examples(chosen)})
    event = tx.commit(state, evaluation, "rollback", name, activate=number, shared=update.shared)
    return tx.report(tx.snapshot.task(name).active, event=event, evaluation=evaluation)
