"""Draw the stored validation examples that the decisions of a state are calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from conpet.data import Kind
from conpet.errors import DamagedModuleError
from conpet.methods.base import Method
from conpet.replay.dynamic import draw_by_task
from conpet.replay.memory import StoredExamples, Subset
from conpet.state.refusal import HeldOut
from conpet.state.state import State


def held_out_examples(method: Method, state: State, sources: Sequence[StoredExamples]) -> list[HeldOut]:
    """Return validation examples with the scores of a state; the cost does not grow with the number of tasks.

    Args:
        method: The method.
        state: A state with at least one task.
        sources: The examples of its tasks, without test labels.
    """
    most, seed = method.settings.refusal.held_out_examples, method.settings.seed
    tasks = {task.name: task for task in state.tasks}
    held_out = []
    for kind in Kind:
        of_kind = [source for source in sources if source.kind is kind]
        drawn = _drawn(of_kind, most, seed)
        if not drawn:
            continue
        classes = []
        for source, rows in drawn:
            own = tasks[source.task].classes_for(source.labels(Subset.VALIDATION))
            classes += [own[row] for row in rows]
        inputs = method.encode_stored(state, drawn, Subset.VALIDATION)
        with suppress(DamagedModuleError):  # a workspace can be changed, and so mended, before the module is replaced
            scores = method.score(state, inputs, kind).classes
            if not scores.isnan().any():  # they are NaN after a training that diverged
                held_out.append(HeldOut(kind, inputs, classes, scores))
    return held_out


def _drawn(sources: Sequence[StoredExamples], most: int, seed: int) -> list[tuple[StoredExamples, Sequence[int]]]:
    """Return all validation examples, or at most `most`, every task as likely as any other."""
    if sum(source.count(Subset.VALIDATION) for source in sources) > most:
        return [(source, sorted(set(rows))) for source, rows in draw_by_task(sources, Subset.VALIDATION, most, seed)]
    counts = [(source, source.count(Subset.VALIDATION)) for source in sources]
    return [(source, range(count)) for source, count in counts if count]
