"""Remove a task."""

from __future__ import annotations

from conpet.commands.base import Transaction
from conpet.commands.generations import holding
from conpet.state.reading import task_state, task_states
from conpet.types import Evaluation


def remove(tx: Transaction, name: str) -> Evaluation | None:
    """Remove a task; see `ConPET.remove`."""
    removed = task_state(tx.snapshot.task(name).active)
    before = task_states(tx.snapshot.versions)
    update = tx.method.update_shared(tx.state, removed, None, tx.context(name))
    update = update.plus(
        tx.method.prune_labels(tx.state, before, [version for version in before if version.name != name])
    )
    state = tx.state.without(name, update)
    evaluation = tx.evaluate(state)
    tx.commit(
        state,
        evaluation,
        "remove",
        name,
        remove=True,
        unpinned=holding(tx.store, name),  # they hold its examples
        shared=update.shared,
    )
    return tx.measured(evaluation)
