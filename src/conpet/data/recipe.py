"""How the labels of a data set are divided into tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from conpet.config import Frozen
from conpet.data.labelled import Grouping, LabelledData, PerLabel, stream_of
from conpet.data.task import TaskStream
from conpet.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = Callable[[], Mapping[str, NDArray[Any]]]


class StreamRecipe(Frozen):
    """How labels become tasks.

    Attributes:
        by: "given" (groups that come with the data), or "random".
        tasks: Number of tasks, where the groups are not given.
        grouping: Which of the given groupings; None: the data's usual one.
        seed: Seed of "random", and of the choice of examples.
    """

    by: Literal["given", "random"] = "given"
    tasks: Annotated[int, Field(ge=1)] | None = None
    grouping: str | None = None
    seed: int = 0

    def stream_of(self, data: LabelledData, per_label: PerLabel, *, vectors: Vectors | None = None) -> TaskStream:
        """Make a task stream of a data set.

        Args:
            data: The data.
            per_label: How many examples of a label are taken.
            vectors: Gives a vector for each label, for the ways that go by similarity; called for these alone.

        Raises:
            UnknownNameError: The data has no such grouping, or no training example of a label.
            ConfigError: The number of tasks is missing, or larger than half the number of labels.
            DataError: The tasks cannot be learned.
        """
        return stream_of(data, self.grouping_of(data), per_label, seed=self.seed)

    def grouping_of(self, data: LabelledData) -> Grouping:
        """Divide the labels of a data set into tasks.

        Raises:
            UnknownNameError: The data has no such grouping.
            ConfigError: The number of tasks is missing, or larger than half the number of labels.
        """
        return _WAYS[self.by](data, self)


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
