"""Make a generation that was kept the present one again."""

from __future__ import annotations

from conpet.commands.base import Transaction
from conpet.replay.memory_writer import stored_examples
from conpet.types import Evaluation


def restore(tx: Transaction, generation: int) -> Evaluation | None:
    """Go back or forward to a kept generation; see `ConPET.restore`."""
    kept = tx.store.pinned_snapshot(generation)
    live = tx.prepare(kept)
    tx.method = live.method
    versions = {task.name: task.active.number for task in kept.tasks}
    evaluation = tx.evaluate(
        live.state, {task.name: stored_examples(task.active) for task in kept.tasks}, returned=versions
    )
    tx.commit(live.state, evaluation, "restore", pin=True, restore=generation, detail={"versions": versions})
    return tx.measured(evaluation)
