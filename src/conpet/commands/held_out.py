"""Held-out (validation) examples: answered by a state, and chosen for the gate."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from conpet.data import Kind
from conpet.errors import DamagedModuleError
from conpet.evaluation.answers import AnsweredExample
from conpet.evaluation.evaluator import CHUNK
from conpet.features.statistics import ClosedFormState
from conpet.methods.base import Method
from conpet.replay.memory import StoredExamples, Subset
from conpet.state.state import State, TaskState


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Validation examples drawn of one task.

    Attributes:
        source: The task's stored examples.
        classes: The class of each drawn example, by its row.
    """

    source: StoredExamples
    classes: Mapping[int, str]

    @classmethod
    def all_of(cls, source: StoredExamples, task: TaskState) -> Drawn:
        """Draw all validation examples of a task."""
        return cls(source, dict(enumerate(task.classes_for(source.labels(Subset.VALIDATION)))))

    def only(self, rows: Iterable[int]) -> Drawn:
        """Return these rows only."""
        return Drawn(self.source, {row: self.classes[row] for row in rows})


def answer_held_out(
    method: Method, state: State, drawn: Sequence[Drawn], progress: Callable[[int], None] | None = None
) -> list[AnsweredExample]:
    """Answer validation examples among all classes of a state; a task without labels has a single class.

    Tasks share batches, so that the cost does not grow with their number. Examples that need a damaged module are left
    out: a workspace can be changed, and so mended, before the module is replaced.

    Args:
        method: The method.
        state: The state.
        drawn: Validation examples of any tasks; the state need not know their classes.
        progress: Called with the number of examples done since the last call.
    """
    owner, classes = state.owner.tolist(), state.classes
    answered: list[AnsweredExample] = []
    for kind in Kind:
        for chunk in _chunks([one for one in drawn if one.source.kind is kind]):
            answerable, best = _best(method, state, kind, chunk)
            found = iter(best)
            for one in answerable:
                for row, name in one.classes.items():
                    column, score = next(found)
                    by = state.tasks[owner[column]].name
                    answered.append(AnsweredExample(name, classes[column], score, one.source.task, by, row + 1))
            if progress:
                progress(sum(len(one.classes) for one in chunk))
    return answered


def _best(
    method: Method, state: State, kind: Kind, chunk: Sequence[Drawn]
) -> tuple[Sequence[Drawn], list[tuple[int, float]]]:
    """Return the examples of a chunk that can be answered, and the column of the best class of each with its score."""
    chosen = [(one.source, list(one.classes)) for one in chunk]
    if not any(rows for _, rows in chosen):
        return (), []
    inputs = method.encode_stored(state, chosen, Subset.VALIDATION)
    try:
        best = method.score(state, inputs, kind).classes.max(dim=1)
    except DamagedModuleError as error:
        places = [(number, row) for number, (_, rows) in enumerate(chosen) for row in rows]
        damaged = {places[at] for at in error.inputs}
        left = [
            one.only(row for row in one.classes if (number, row) not in damaged) for number, one in enumerate(chunk)
        ]
        return _best(method, state, kind, left)
    return chunk, list(zip(best.indices.tolist(), best.values.exp().tolist(), strict=True))


def _chunks(drawn: Iterable[Drawn]) -> Iterator[list[Drawn]]:
    """Divide drawn examples into chunks of at most `CHUNK`."""
    chunk: list[Drawn] = []
    room = CHUNK
    for one in drawn:
        rows = list(one.classes)
        while rows:
            part, rows = rows[:room], rows[room:]
            chunk.append(one.only(part))
            room -= len(part)
            if not room:
                yield chunk
                chunk, room = [], CHUNK
    if chunk:
        yield chunk


def choose(classes: Mapping[str, Mapping[int, str]], *, per_class: int, total: int, seed: int) -> dict[str, list[int]]:
    """Choose examples evenly over classes: the same ones as long as the examples and the limits are the same.

    Where the limit on all is reached, every class gets its first example before one gets its second.

    Args:
        classes: The class of each example, by task and row.
        per_class: Most examples of a class.
        total: Most examples.
        seed: Seed of the choice.

    Returns:
        The rows chosen of each task that has any, ascending.
    """
    ranked = []
    for task, rows in classes.items():
        of_class: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
        for row, name in rows.items():
            key = hashlib.blake2b(f"{seed}|{task}|{row}".encode(), digest_size=8).digest()
            of_class[name].append((key, row))
        for keys in of_class.values():
            ranked += [(rank, key, task, row) for rank, (key, row) in enumerate(sorted(keys)[:per_class])]
    chosen: dict[str, list[int]] = defaultdict(list)
    for _, _, task, row in sorted(ranked)[:total]:
        chosen[task].append(row)
    return {task: sorted(rows) for task, rows in chosen.items()}


def nearest_classes(statistics: ClosedFormState, new: Collection[str], most: int) -> list[str]:
    """Return the classes whose training examples are most like those of new ones, the most similar first.

    Two classes are compared by the cosine of their mean features, less the mean over all examples.

    Args:
        statistics: Statistics of all classes.
        new: The new classes.
        most: Most classes to return.
    """
    names = statistics.labels
    counts = torch.cat([sums.counts for sums in statistics.classes]).unsqueeze(1)
    view = statistics.feature_map.views[0]
    sums = torch.cat([sums.sums[view] for sums in statistics.classes])
    means = torch.nn.functional.normalize(sums / counts - sums.sum(dim=0) / counts.sum(), dim=1)
    is_new = torch.tensor([name in new for name in names])
    similarity = (means @ means[is_new].T).amax(dim=1).masked_fill(is_new, -torch.inf)
    ordered = similarity.topk(min(most, int((~is_new).sum()))).indices
    return [names[index] for index in ordered.tolist()]
