"""Compare a candidate with the present state on stored validation examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

from conpet.commands.held_out import Drawn, answer_held_out
from conpet.errors import AccuracyBoundError, plural
from conpet.evaluation.metrics import Tally
from conpet.methods.base import Method
from conpet.replay.memory import StoredExamples
from conpet.state.state import State


def validated(
    method: Method, state: State, sources: Iterable[StoredExamples], progress: Callable[[int], None] | None = None
) -> Tally:
    """Return the number of correct answers on validation examples, among all classes of the workspace.

    The class of a task without labels is the task, so its answers are correct if they come from it.

    Args:
        method: The method.
        state: The state.
        sources: The examples of tasks of the state.
        progress: Called with the number of examples done since the last call.
    """
    tasks = {task.name: task for task in state.tasks}
    drawn = [Drawn.all_of(source, tasks[source.task]) for source in sources]
    answers = answer_held_out(method, state, drawn, progress)
    return Tally(sum(one.correct for one in answers), len(answers))


def check_bound(before: Tally, after: Tally, bound: float, change: str, advice: str) -> None:
    """Refuse a candidate that is worse than the present state by more than a bound.

    Args:
        before: Correct answers of the present state.
        after: Correct answers of the candidate, on the same examples.
        bound: Largest accepted fall of the accuracy, in points.
        change: What the candidate would do, as it continues to "would lower the accuracy".
        advice: What to do instead of raising the bound.

    Raises:
        AccuracyBoundError: It is worse.
    """
    fewer = before.correct - after.correct
    fall = 100 * fewer / before.total
    if fall > bound:
        raise AccuracyBoundError(
            f"{change} would lower the accuracy on {after.total:,} validation examples from "
            f"{before.correct / before.total:.1%} to {after.correct / after.total:.1%}, by {fall:.1f} points "
            f"({plural(fewer, 'example')}); the bound is {bound:g}. Nothing was changed; raise the bound "
            f"(`--bound {ceil(fall)}`), or {advice}"
        )
