"""Evaluate a workspace without changing it."""

from __future__ import annotations

from conpet.commands.base import evaluate_tests
from conpet.context import Progress
from conpet.evaluation.history import TUNE, learned_by, matrix_of
from conpet.evaluation.metrics import Row
from conpet.replay.memory_writer import stored_examples
from conpet.state.live import Live
from conpet.store import Store
from conpet.types import Evaluation


def evaluate_workspace(live: Live, store: Store, progress: Progress) -> Evaluation:
    """Evaluate the live state on the stored test examples; its row replaces the last event's in the matrix."""
    tasks = live.snapshot.tasks
    evaluation = evaluate_tests(
        live.method, live.state, {task.name: stored_examples(task.active) for task in tasks}, progress
    )
    events = [event for event in store.events() if event.id <= live.generation and event.verb != TUNE]
    *earlier, last = events
    matrix = matrix_of(earlier).followed_by(Row(learned_by(last), evaluation.tallies))
    return Evaluation(evaluation.tasks, evaluation.references, evaluation.confusion, matrix)
