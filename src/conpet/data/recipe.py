"""How the labels of a data set are divided into tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from conpet.config import Positive, StrictModel
from conpet.data.groups import numbered
from conpet.data.label_pieces import in_pieces
from conpet.data.labelled import Grouping, LabelledData, PerLabel, stream_of
from conpet.data.similarity import similarity_order
from conpet.data.task import TaskStream
from conpet.errors import ConfigError

Vectors = Callable[[], Mapping[str, NDArray[Any]]]
"""Returns a vector for each label of a data set; similar labels have vectors of similar direction."""
Divided = tuple[LabelledData, Grouping]


class StreamRecipe(StrictModel):
    """How labels become tasks.

    Attributes:
        by: "given" (groups that come with the data); "random"; "frequency" (labels with most training examples first,
            ties by name); "similar-together" (similar labels in one task: an easy stream) and "similar-apart" (similar
            labels in different tasks: a hard stream), both from one order of the labels by similarity; or "pieces"
            (every label cut into several, see `conpet.data.label_pieces`: many small tasks, only to measure costs).
        tasks: Number of tasks, unless `by` is "given".
        grouping: Name of a grouping of the data; None for its default.
        labels_per_task: Labels per task for "pieces".
        seed: Seed for "random", "pieces" and the choice of examples.
    """

    noun = "key of a stream"

    by: Literal["given", "random", "frequency", "similar-together", "similar-apart", "pieces"] = "given"
    tasks: Positive | None = None
    grouping: str | None = None
    labels_per_task: Annotated[int, Field(ge=2)] = 2
    seed: int = 0

    @property
    def by_similarity(self) -> bool:
        """Whether the recipe needs the similarity of labels."""
        return self.by in ("similar-together", "similar-apart")

    def stream_of(self, data: LabelledData, per_label: PerLabel, *, vectors: Vectors | None = None) -> TaskStream:
        """Make a task stream from a data set.

        Args:
            data: The data.
            per_label: Most examples per label (per piece for "pieces").
            vectors: Only called, and then required, for recipes by similarity.

        Raises:
            UnknownNameError: The data has no such grouping, or no training example of a label in it.
            ConfigError: The number of tasks is missing, given together with groups, or too large for the labels (for
                "pieces": for the training examples); vectors are missing; SciPy is not installed.
            DataError: The tasks cannot be learned.
        """
        divided, grouping = _WAYS[self.by](data, self, vectors)
        return stream_of(divided, grouping, per_label, seed=self.seed)


def _given(data: LabelledData, recipe: StreamRecipe, _: Vectors | None) -> Divided:
    if recipe.tasks is not None:
        raise ConfigError(
            f"by 'given' takes no number of tasks ({recipe.tasks}), because the groups determine it; to choose the "
            "number, make tasks by 'random', 'frequency', 'similar-together' or 'similar-apart'"
        )
    return data, data.grouping(recipe.grouping)


def _at_random(data: LabelledData, recipe: StreamRecipe, _: Vectors | None) -> Divided:
    tasks = _number_of_tasks(data, recipe)
    labels = list(data.labels)
    random.Random(recipe.seed).shuffle(labels)  # noqa: S311 - not for secrets
    return data, _neighbours(labels, tasks)


def _by_frequency(data: LabelledData, recipe: StreamRecipe, _: Vectors | None) -> Divided:
    tasks, counts = _number_of_tasks(data, recipe), data.counts
    return data, _neighbours(sorted(counts, key=lambda label: (-counts[label], label)), tasks)


def _together(data: LabelledData, recipe: StreamRecipe, vectors: Vectors | None) -> Divided:
    tasks = _number_of_tasks(data, recipe)
    return data, _neighbours(_similarity_order(data, vectors), tasks)


def _apart(data: LabelledData, recipe: StreamRecipe, vectors: Vectors | None) -> Divided:
    tasks = _number_of_tasks(data, recipe)
    order = _similarity_order(data, vectors)
    return data, numbered([order[first::tasks] for first in range(tasks)])


def _in_pieces(data: LabelledData, recipe: StreamRecipe, _: Vectors | None) -> Divided:
    return in_pieces(data, _requested_tasks(recipe), recipe.labels_per_task, recipe.seed)


def _requested_tasks(recipe: StreamRecipe) -> int:
    if recipe.grouping is not None:
        raise ConfigError(f"the grouping {recipe.grouping!r} needs by 'given'; by {recipe.by!r} makes its own groups")
    if recipe.tasks is None:
        raise ConfigError(f"by {recipe.by!r} needs the number of tasks; give it (`--tasks`)")
    return recipe.tasks


def _number_of_tasks(data: LabelledData, recipe: StreamRecipe) -> int:
    tasks, labels = _requested_tasks(recipe), len(data.labels)
    if 2 * tasks > labels:
        raise ConfigError(f"{labels} labels are enough for at most {labels // 2} tasks of two labels, not {tasks}")
    return tasks


def _similarity_order(data: LabelledData, vectors: Vectors | None) -> Sequence[str]:
    if vectors is None:
        raise ConfigError("tasks by similarity need a vector for each label; pass `vectors`")
    label_vectors = vectors()
    return similarity_order({label: label_vectors[label] for label in data.labels})


def _neighbours(labels: Sequence[str], tasks: int) -> Grouping:
    """Divide labels into `tasks` consecutive groups whose sizes differ by at most one."""
    bounds = [round(index * len(labels) / tasks) for index in range(tasks + 1)]
    return numbered([labels[first:last] for first, last in pairwise(bounds)])


_WAYS: Mapping[str, Callable[[LabelledData, StreamRecipe, Vectors | None], Divided]] = {
    "given": _given,
    "random": _at_random,
    "frequency": _by_frequency,
    "similar-together": _together,
    "similar-apart": _apart,
    "pieces": _in_pieces,
}
