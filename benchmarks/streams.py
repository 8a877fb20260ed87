"""The first streams of the scripts here: a data set's usual tasks, so many examples a label, in one order."""

from __future__ import annotations

from conpet import TaskStream
from conpet.bench.measuring import ordered
from conpet.data.formats import read_data
from conpet.data.labelled import PerLabel, stream_of


def stream(data: str, per_label: dict[str, int], order: int = 0) -> TaskStream:
    """Return a stream of a data set's usual tasks; 0 is the order of the source, others are shuffled by that seed."""
    found = read_data(data)
    return ordered(stream_of(found, found.grouping(), PerLabel(**per_label)), order)
