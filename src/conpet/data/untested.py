"""Notes on labels without test examples."""

from __future__ import annotations

from collections.abc import Iterator

from conpet.data.benchmarks.reading import listed
from conpet.data.task import TaskStream


def untested(stream: TaskStream) -> Iterator[str]:
    """Yield a note with the first labels that have no test example, if there are any."""
    labels = {label for task in stream for label in task.labels}
    if without := labels - {example.label for task in stream for example in task.test}:
        yield (
            f"{len(without):,} of {len(labels):,} labels have no test example, so accuracy does not cover them: "
            f"{listed(without, 10)}"
        )
