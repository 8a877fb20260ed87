"""Which module serves which tasks, and how modules run on inputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from conpet.artifact import Artifact, ObjectReader
from conpet.backbone.states import States
from conpet.data import Kind
from conpet.errors import CorruptionError, DamagedModuleError
from conpet.features.grouped_logsumexp import segment_logsumexp
from conpet.heads.base import HEAD, Answer
from conpet.heads.labels import LABELS, with_labels
from conpet.heads.stored import head_for
from conpet.modules.logit_cache import LogitCache
from conpet.modules.module import StoredModule
from conpet.state.slots import MODULE, module_of
from conpet.state.state import State, TaskState


@dataclass(frozen=True, slots=True, eq=False)
class AssignedModule:
    """A module and the tasks it serves.

    Attributes:
        module: The module; its head may also have labels that no task uses.
        tasks: Indices of the tasks it serves.
    """

    module: StoredModule
    tasks: tuple[int, ...]


class ModuleAssignment:
    """The modules of a state and the tasks that each serves: usually one, several after a merge.

    Args:
        state: The state; each of its tasks has its own module, or names the shared slot of its module.
        cache: Runs modules.

    Attributes:
        modules: The M modules, in the order of their first tasks.
        of_task: Index of each task's module `[T]`, int64.
    """

    def __init__(self, state: State, cache: LogitCache) -> None:
        self._tasks = state.tasks
        self._cache = cache
        members: dict[str, list[int]] = {}
        for index, task in enumerate(state.tasks):
            members.setdefault(task.shared_slot or f"{MODULE}/{index}", []).append(index)
        self.modules = tuple(
            AssignedModule(StoredModule.of(module_of(state.tasks[tasks[0]].objects, state.shared)), tuple(tasks))
            for tasks in members.values()
        )
        index_of = {task: number for number, module in enumerate(self.modules) for task in module.tasks}
        self.of_task = torch.tensor([index_of[task] for task in range(len(state.tasks))], dtype=torch.int64)
        self._starts = [0, *accumulate(len(task.classes) for task in state.tasks)]
        self._columns: dict[tuple[int, Kind, str | None], tuple[list[int], list[int]]] = {}

    def run(self, inputs: Mapping[str | None, States], kind: Kind, wanted: Tensor) -> Tensor:
        """Run modules on inputs.

        Args:
            inputs: The states of n examples, by template.
            kind: The kind of the examples.
            wanted: Indices of the modules to run for each example `[n, k]`; -1 for none.

        Returns:
            Logits in the columns of the modules' classes `[n, C]`, -inf elsewhere. The single class of a task without
            labels gets 0.
        """
        out = torch.full((len(wanted), self._starts[-1]), -torch.inf, dtype=torch.float32)
        for template, states in inputs.items():
            rows = [
                [module for module in row if module >= 0 and self._outputs(module, kind, template)[1]]
                for row in wanted.tolist()
            ]
            logits_by_row = self._cache.outputs(
                states, [[self.modules[module].module for module in row] for row in rows]
            )
            positions: tuple[list[int], list[int]] = [], []
            values: list[Tensor] = []
            for row, modules in enumerate(rows):
                for module in modules:
                    outputs, columns = self._outputs(module, kind, template)
                    logits = logits_by_row[row][self.modules[module].module]
                    positions[0].extend([row] * len(columns))
                    positions[1].extend(columns)
                    if not outputs:
                        values.append(torch.zeros(len(columns), dtype=torch.float32))
                    else:
                        values.append(logits if outputs == list(range(len(logits))) else logits[outputs])
            if values:
                out[positions] = torch.cat(values)
        return out

    def run_intact(self, inputs: Mapping[str | None, States], kind: Kind, wanted: Tensor) -> Tensor:
        """Run modules on inputs as `run` does, but leave out damaged ones where another module is wanted first.

        Args:
            inputs: As in `run`.
            kind: As in `run`.
            wanted: As in `run`, the most important module of each example first.

        Raises:
            DamagedModuleError: The first module of some examples is damaged.
        """
        try:
            return self.run(inputs, kind, wanted)
        except CorruptionError as error:
            pool, used = self._cache.pool, [module for module in wanted.unique().tolist() if module >= 0]
            damages = {module: damage for module in used if (damage := pool.damage(self.modules[module].module))}
            if not damages:
                raise
            left_out = torch.isin(wanted, torch.tensor(list(damages), dtype=wanted.dtype))
            if needing := left_out[:, 0].nonzero().squeeze(1).tolist():
                first = dict.fromkeys(str(damages[int(wanted[row, 0])]) for row in needing)
                raise DamagedModuleError("; ".join(first), needing) from error
            for damage in damages.values():
                warnings.warn(f"{damage}. Inputs of other tasks are answered without it", stacklevel=2)
            return self.run(inputs, kind, wanted.masked_fill(left_out, -1))

    def answers(self, inputs: Mapping[str | None, States], rows: Sequence[int], task: int) -> list[Answer]:
        """Return the answers of a task's head for these rows of the inputs.

        Raises:
            DamagedModuleError: The module of the task is damaged.
        """
        module = self.modules[int(self.of_task[task])].module
        states = inputs[self._tasks[task].template].select(rows)
        try:
            document = module.reader.document(HEAD)
            outputs = self._cache.outputs(states, [[module]] * len(rows))
        except CorruptionError as error:
            if damage := self._cache.pool.damage(module):
                raise DamagedModuleError(str(damage), list(rows)) from error
            raise
        head = head_for(document)
        return [head.answer(row_outputs[module], document) for row_outputs in outputs]

    def _outputs(self, module: int, kind: Kind, template: str | None) -> tuple[list[int], list[int]]:
        """Return a module's head outputs for classes of this kind and template, and the columns of these classes."""
        key = (module, kind, template)
        if key not in self._columns:
            tasks = [
                index
                for index in self.modules[module].tasks
                if self._tasks[index].kind is kind and self._tasks[index].template == template
            ]
            labelled = [index for index in tasks if self._tasks[index].labels]
            document = self.modules[module].module.reader.document(HEAD) if labelled else {LABELS: ()}
            output_of = {label: output for output, label in enumerate(document[LABELS])}
            outputs = [output_of[name] for index in labelled for name in self._tasks[index].outputs]
            columns = [column for index in tasks for column in range(self._starts[index], self._starts[index + 1])]
            self._columns[key] = (outputs, columns)
        return self._columns[key]


def prune_labels(
    shared: Mapping[str, ObjectReader], before: Sequence[TaskState], after: Sequence[TaskState]
) -> dict[str, Artifact | None]:
    """Return the shared modules that serve fewer labels after a change than before it; see `Method.prune_labels`."""
    former, present = _served(before), _served(after)
    return {
        slot: with_labels(shared[slot], {name: name for name in sorted(present[slot])}) if slot in present else None
        for slot in former
        if former[slot] != present.get(slot)
    }


def _served(versions: Sequence[TaskState]) -> dict[str, set[str]]:
    """Return the names of the outputs that any version needs from each shared module's head, by slot."""
    served: dict[str, set[str]] = {}
    for version in versions:
        if version.shared_slot is not None:
            served.setdefault(version.shared_slot, set()).update(version.outputs)
    return served


def sum_by_module(log_probabilities: Tensor, of_task: Tensor) -> Tensor:
    """Return the log of the summed probabilities of each module's tasks.

    Args:
        log_probabilities: Log-probabilities of the tasks `[n, T]`.
        of_task: Index of the module of each task `[T]`.

    Returns:
        `[n, M]`; -inf if all tasks of a module have -inf.
    """
    modules = int(of_task.max()) + 1
    if modules == len(of_task):  # each task has its own module
        return log_probabilities
    index = of_task.expand(len(log_probabilities), -1)
    likeliest = torch.full((len(log_probabilities), modules), -torch.inf, dtype=torch.float32).scatter_reduce(
        1, index, log_probabilities, "amax"
    )
    sums = segment_logsumexp(log_probabilities, of_task, modules)
    return sums.masked_fill(likeliest == -torch.inf, -torch.inf)
