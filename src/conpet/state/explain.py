"""Why inputs were answered as they were: the selector's ranking, the modules that ran, the nearest stored examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from conpet.data import Example, Kind
from conpet.features.grouped_logsumexp import FLOOR
from conpet.methods.base import Scores
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.state.inputs import EncodedInputs, count
from conpet.state.live import Live
from conpet.state.state import TaskState
from conpet.state.statistics import classes_of, features_of
from conpet.types import Explanation, Neighbour, RankedTask

RANKED = 10
"""Most tasks in the ranking of an explanation."""
NEAREST = 3
"""Number of nearest stored examples in an explanation."""
SEARCHED = 5
"""Number of likeliest tasks whose examples are searched, besides the answering task."""


def explain(live: Live, kind: Kind, inputs: EncodedInputs, scores: Scores) -> list[Explanation]:
    """Return the explanation of each of n inputs.

    Args:
        live: The state that answered.
        kind: The kind of the inputs.
        inputs: The inputs.
        scores: Their scores.
    """
    tasks = live.state.tasks
    by_answer = task_scores(live, scores.classes)
    by_selector = by_answer if scores.tasks is None else scores.tasks
    ranked = _likeliest(live, kind, by_selector, RANKED)
    nearest = _nearest(live, inputs, _likeliest(live, kind, by_answer, SEARCHED)[1])
    explanations = []
    for row in range(count(inputs)):
        values, order = ranked[0][row].exp().tolist(), ranked[1][row].tolist()
        ran = live.state.owner[scores.ran[row]].unique().tolist() if scores.ran is not None else []
        explanations.append(
            Explanation(
                ranking=tuple(RankedTask(tasks[task].name, score) for task, score in zip(order, values, strict=True)),
                modules=tuple(tasks[task].name for task in ran),
                nearest=tuple(nearest[row]),
            )
        )
    return explanations


def task_scores(live: Live, classes: Tensor) -> Tensor:
    """Return the log of the summed probabilities of each task's classes `[n, T]`."""
    sums = torch.zeros((len(classes), len(live.state.tasks)), dtype=torch.float32)
    return sums.index_add_(1, live.state.owner, classes.exp()).log()


def _likeliest(live: Live, kind: Kind, scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Return the highest scores, and the indices of their tasks, among those that can answer `[n, k]`."""
    excluded = live.state.other_kind[kind]
    possible = scores.clamp(min=FLOOR).masked_fill(excluded, -torch.inf)
    best = possible.topk(min(limit, int((~excluded).sum())), dim=1)
    return best.values, best.indices


def _nearest(live: Live, inputs: EncodedInputs, searched: Tensor) -> list[list[Neighbour]]:
    """Return, for each input, the examples nearest to it by the cosine of the frozen features, nearest first.

    Args:
        live: The state that answered.
        inputs: The inputs.
        searched: Indices of the tasks whose examples are searched `[n, k]`.
    """
    found: list[list[tuple[float, int, int]]] = [[] for _ in range(len(searched))]
    for index in searched.unique().tolist():
        task = live.state.tasks[index]
        rows = (searched == index).any(dim=1).nonzero().squeeze(1)
        cosines = _cosines(inputs[task.template].features[rows], features_of(task))
        best = cosines.topk(min(NEAREST, cosines.shape[1]), dim=1)
        for row, values, found_at in zip(rows.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
            found[row] += [(value, index, place) for value, place in zip(values, found_at, strict=True)]
    nearest = [sorted(of_row, key=lambda one: -one[0])[:NEAREST] for of_row in found]
    places: dict[int, set[int]] = {}
    for _, index, place in chain.from_iterable(nearest):
        places.setdefault(index, set()).add(place)
    examples = {index: _Examples(live, live.state.tasks[index], of_task) for index, of_task in places.items()}
    return [[examples[index].neighbour(place, value) for value, index, place in row] for row in nearest]


def _cosines(features: Tensor, stored: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float()) @ torch.nn.functional.normalize(stored.float()).T


class _Examples:
    """Some training examples of a task.

    Args:
        live: The state.
        task: The task.
        places: Places of the examples in its training set.
    """

    def __init__(self, live: Live, task: TaskState, places: set[int]) -> None:
        self._task = task
        self._classes = classes_of(task)
        self._texts = _stored(live, task, sorted(places))

    def neighbour(self, place: int, similarity: float) -> Neighbour:
        """Return an example as a neighbour of an input."""
        label = self._classes[place] if self._task.labels else None
        return Neighbour(self._task.name, label, similarity, self._texts.get(place))


def _stored(live: Live, task: TaskState, places: Sequence[int]) -> dict[int, Example]:
    """Return those of the examples at these places of a task's training set whose texts are stored, by place."""
    memory = examples_without_test_labels(live.snapshot.task(task.name).active)
    if memory.latent:
        return {}
    position_of = {index: position for position, index in enumerate(memory.indices)}
    kept = [place for place in places if place in position_of]
    return dict(zip(kept, memory.chosen(Subset.TRAIN, [position_of[place] for place in kept]), strict=True))
