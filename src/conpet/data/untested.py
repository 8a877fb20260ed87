"""What should be told of a stream, beside what reading its data noted."""

from __future__ import annotations

from collections.abc import Iterator

from conpet.data.benchmarks.reading import listed
from conpet.data.task import TaskStream


def untested(stream: TaskStream) -> Iterator[str]:
    """Name the labels without a test example, some of many; nothing is yielded where every label has one."""
    labels = {label for task in stream for label in task.labels}
    if without := labels - {example.label for task in stream for example in task.test}:
        yield (
            f"{len(without):,} of {len(labels):,} labels have no test example, so that accuracy tells nothing of them: "
            f"{listed(without, 10)}"
        )
