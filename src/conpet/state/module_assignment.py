"""Which modules there are and whom they serve: most serve one task, some serve several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.data import Kind
from conpet.features.grouped_logsumexp import segment_logsumexp
from conpet.methods.base import EncodedInputs, count
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS
from conpet.modules.logit_cache import LogitCache
from conpet.modules.module import HEAD, StoredModule
from conpet.readable import Readable
from conpet.state.state import MODULE, State, TaskState, module_of

LABELS = "labels"
"""Key of a head's document: the labels of its outputs, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class AssignedModule:
    """A module and the tasks it serves.

    Attributes:
        module: The module, its head over the labels of these tasks and perhaps of others that are gone.
        tasks: Indices of the tasks.
    """

    module: StoredModule
    tasks: tuple[int, ...]


class ModuleAssignment:
    """All modules of a state, and running them.

    Args:
        state: The state; each of its tasks has a module of its own or names the one that serves it.
        bank: Runs modules.

    Attributes:
        all: The units, in the order of their first tasks.
        of_task: Index of the unit of each of the T tasks `[T]`, int64.
    """

    def __init__(self, state: State, pool: LogitCache) -> None:
        self._state = state
        self._pool = pool
        members: dict[str, list[int]] = {}
        for index, task in enumerate(state.tasks):
            members.setdefault(task.unit or f"{MODULE}/{index}", []).append(index)
        self.all = tuple(
            AssignedModule(StoredModule.of(module_of(state.tasks[tasks[0]].objects, state.shared)), tuple(tasks))
            for tasks in members.values()
        )
        index_of = {task: number for number, unit in enumerate(self.all) for task in unit.tasks}
        self.of_task = torch.tensor([index_of[task] for task in range(len(state.tasks))], dtype=torch.int64)
        self._starts = [0, *accumulate(len(task.labels) for task in state.tasks)]
        self._columns: dict[tuple[int, Kind, str | None], tuple[list[int], list[int]]] = {}

    def run(self, readings: EncodedInputs, kind: Kind, wanted: Tensor) -> Tensor:
        """Run the units each of n examples wants.

        Args:
            readings: The examples' states, by template.
            kind: The kind of the examples.
            wanted: Indices of units `[n, k]`.

        Returns:
            Logits in their labels' columns `[n, L]`, -inf elsewhere.
        """
        out = torch.full((count(readings), self._starts[-1]), -torch.inf)
        for template, states in readings.items():
            rows = [[unit for unit in row if self._outputs(unit, kind, template)[0]] for row in wanted.tolist()]
            found = self._pool.logits(states, [[self.all[unit].module for unit in row] for row in rows])
            places: tuple[list[int], list[int]] = [], []
            values: list[Tensor] = []
            for row, units in enumerate(rows):
                for unit in units:
                    outputs, columns = self._outputs(unit, kind, template)
                    logits = found[row][self.all[unit].module]
                    places[0].extend([row] * len(columns))
                    places[1].extend(columns)
                    values.append(logits if outputs == list(range(len(logits))) else logits[outputs])
            if values:
                out[places] = torch.cat(values)
        return out

    def _outputs(self, unit: int, kind: Kind, template: str | None) -> tuple[list[int], list[int]]:
        """Return which outputs of a unit's head answer for a reading, and which columns they belong in."""
        key = (unit, kind, template)
        if key not in self._columns:
            document = self.all[unit].module.reader.document(HEAD)
            output_of = {label: output for output, label in enumerate(document[LABELS])}
            pairs = [
                (output_of[name], self._starts[index] + position)
                for index in self.all[unit].tasks
                for position, name in enumerate(self._state.tasks[index].outputs)
                if self._state.tasks[index].kind is kind and self._state.tasks[index].template == template
            ]
            self._columns[key] = ([output for output, _ in pairs], [column for _, column in pairs])
        return self._columns[key]


def with_labels(stored: Readable, outputs: Mapping[str, str]) -> Artifact:
    """Return a stored module with a head for some labels.

    Args:
        stored: The object with the module.
        outputs: Label to its name in the present head.
    """
    row_of = {name: row for row, name in enumerate(stored.document(HEAD)[LABELS])}
    rows = [row_of[output] for output in outputs.values()]
    head = {name: value[rows] for name, value in stored.tensors(HEAD).items()}
    return Artifact(
        tensors={ADAPTER_TENSORS: stored.tensors(ADAPTER_TENSORS), HEAD: head},
        documents={
            ADAPTER_CONFIG: stored.document(ADAPTER_CONFIG),
            HEAD: {**stored.document(HEAD), LABELS: list(outputs)},
        },
    )


def prune_labels(
    shared: Mapping[str, Readable], before: Sequence[TaskState], after: Sequence[TaskState]
) -> dict[str, Artifact | None]:
    """Return the shared modules that serve fewer labels after a change than before it; see `Method.prune_labels`."""
    was, now = _served(before), _served(after)
    return {
        slot: with_labels(shared[slot], {name: name for name in sorted(now[slot])}) if slot in now else None
        for slot in was
        if was[slot] != now.get(slot)
    }


def _served(versions: Sequence[TaskState]) -> dict[str, set[str]]:
    """Return the outputs of each shared module's head that any version needs, by slot."""
    served: dict[str, set[str]] = {}
    for version in versions:
        if version.unit is not None:
            served.setdefault(version.unit, set()).update(version.outputs)
    return served


def sum_by_module(log_probabilities: Tensor, of_task: Tensor) -> Tensor:
    """Sum probabilities of tasks over each unit's tasks, in logs: `[n, T]` to `[n, U]`; -inf where all are."""
    units = int(of_task.max()) + 1
    if units == len(of_task):  # each task has its own
        return log_probabilities
    index = of_task.expand(len(log_probabilities), -1)
    likeliest = torch.full((len(log_probabilities), units), -torch.inf).scatter_reduce(
        1, index, log_probabilities, "amax"
    )
    sums = segment_logsumexp(log_probabilities, of_task, units)
    return sums.masked_fill(likeliest == -torch.inf, -torch.inf)
