"""How the labels of a data set are divided into tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from conpet.config import Frozen
from conpet.data.labelled import Grouping, LabelledData, PerLabel, stream_of
from conpet.data.task import TaskStream
from conpet.errors import ConfigError


class StreamRecipe(Frozen):
    """How labels become tasks.

    Attributes:
        by: "given" (groups that come with the data), or "random".
        tasks: Number of tasks, where the groups are not given.
        grouping: Which of the given groupings; None: the data's usual one.
        seed: Seed of "random".
    """

    by: Literal["given", "random"] = "given"
    tasks: Annotated[int, Field(ge=1)] | None = None
    grouping: str | None = None
    seed: int = 0

    def grouping_of(self, data: LabelledData) -> Grouping:
        """Divide the labels of a data set into tasks.

        Raises:
            UnknownNameError: The data has no such grouping.
            ConfigError: The number of tasks is missing, or larger than half the number of labels.
        """
        return _WAYS[self.by](data, self)

    def stream_of(self, data: LabelledData, per_label: PerLabel) -> TaskStream:
        """Make a stream of a data set."""
        return stream_of(data, self.grouping_of(data), per_label)


def _given(data: LabelledData, recipe: StreamRecipe) -> Grouping:
    if recipe.tasks is not None:
        raise ConfigError("tasks is for streams whose groups are made; with by=given it is the data that says")
    return data.grouping(recipe.grouping)


def _at_random(data: LabelledData, recipe: StreamRecipe) -> Grouping:
    labels = list(data.labels)
    random.Random(recipe.seed).shuffle(labels)  # noqa: S311 - not for secrets
    return _chunks(labels, recipe.tasks)


def _chunks(labels: Sequence[str], tasks: int | None) -> Grouping:
    """Divide labels into `tasks` neighbouring groups whose sizes differ by one at most."""
    if tasks is None:
        raise ConfigError("give the number of tasks")
    if 2 * tasks > len(labels):
        raise ConfigError(f"{len(labels)} labels make {len(labels) // 2} tasks of two labels at most, not {tasks}")
    bounds = [round(index * len(labels) / tasks) for index in range(tasks + 1)]
    return {
        f"task-{number:0{len(str(tasks))}d}": tuple(labels[first:last])
        for number, (first, last) in enumerate(pairwise(bounds), start=1)
    }


_WAYS: Mapping[str, Callable[[LabelledData, StreamRecipe], Grouping]] = {"given": _given, "random": _at_random}
