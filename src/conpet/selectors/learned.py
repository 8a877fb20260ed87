"""The paper's selector: a LoRA module and a linear head over tasks that grows by one output per task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact
from conpet.backbone.states import States
from conpet.config import TaskSettings
from conpet.heads.base import HEAD
from conpet.heads.labels import LabelHead, label_document, zero_head
from conpet.modules.adapter import ADAPTER_TENSORS
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.optimisation import Schedule, optimise
from conpet.replay.schedule import OLD_SHARE, divide_budget
from conpet.selectors.base import Selector, SelectorData
from conpet.selectors.settings import LearnedSelectorConfig

_TASKS = "tasks"


class LearnedSelector(Selector):
    """Dynamic ConPET's selector (Song et al. 2023, section 3.3).

    For each new task, the head gets one more output, and training continues from the current weights on batches with
    equal numbers of new and old examples. The number of steps per task is fixed. A single task needs no selector, so
    training starts with the second.
    """

    name = "learned"
    Config = LearnedSelectorConfig
    config: LearnedSelectorConfig
    needs_replay = True

    def log_probabilities(self, states: States) -> Tensor:
        """Return the log-softmax of the head's outputs `[n, T]`, from one pass of the suffix."""
        module = self._module()
        assert module is not None, "a learned selector was used before any task was learned"  # noqa: S101
        logits = torch.stack([outputs[module] for outputs in self.pool.outputs(states, [[module]] * len(states))])
        output_of = {name: index for index, name in enumerate(module.reader.document(HEAD)[_TASKS])}
        return torch.log_softmax(logits[:, [output_of[name] for name in self.state.tasks]], dim=1)

    @property
    def replay_steps(self) -> int:
        """Optimiser steps per task."""
        return self.config.steps

    @property
    def parameters(self) -> int:
        """Number of its trained parameters, including the head."""
        module = self._module()
        if module is None:
            return 0
        tensors = [*module.reader.tensors(ADAPTER_TENSORS).values(), *module.reader.tensors(HEAD).values()]
        return sum(tensor.numel() for tensor in tensors)

    def _module(self) -> StoredModule | None:
        if self.state.stored is None:
            return None
        return StoredModule.of(self.state.stored)

    def learn(self, task_data: SelectorData) -> Artifact:
        """Continue training from the current weights, with one more output for a new task."""
        tasks = [*(name for name in self._head_tasks() if name != task_data.name), task_data.name]
        module = self._current_module(task_data.context.seed)
        head = self._head(tasks)
        if len(tasks) > 1:
            self._train(module, head, tasks, task_data)
        return _artifact(module, head, tasks)

    def forget(self, name: str) -> Artifact | None:
        """Remove a task's output from the head; what the LoRA learned from its examples cannot be separated out."""
        tasks = [task for task in self._head_tasks() if task != name]
        return _artifact(self._current_module(seed=0), self._head(tasks), tasks) if tasks else None

    def _head_tasks(self) -> list[str]:
        return list(self.state.stored.document(HEAD)[_TASKS]) if self.state.stored else []

    def _current_module(self, seed: int) -> PetModule:
        module = PetModule(self.backbone, self._module_settings(), seed)
        if self.state.stored is not None:
            module.load(self.state.stored.tensors(ADAPTER_TENSORS))
        return module

    def _module_settings(self) -> TaskSettings:
        # The selector's module is a plain LoRA, whatever kind the tasks use; with LoRA tasks, it adapts the same maps.
        rank = self.config.rank
        plain_lora = {"kind": "lora", "rank": rank, "alpha": 2.0 * rank, "rslora": False, "dora": False}
        return self.settings.for_task({"module": plain_lora})

    def _head(self, tasks: Sequence[str]) -> nn.Linear:
        """Build a head for these tasks: rows of the current head, zeros for new tasks."""
        head = zero_head(self.backbone.representation_size, len(tasks), self.backbone.device)
        if self.state.stored is not None:
            current = self.state.stored.tensors(HEAD)
            row_of = {name: row for row, name in enumerate(self._head_tasks())}
            rows = [row for row, name in enumerate(tasks) if name in row_of]
            current_rows = [row_of[tasks[row]] for row in rows]
            with torch.no_grad():
                head.weight[rows] = current["weight"][current_rows].to(head.weight)
                head.bias[rows] = current["bias"][current_rows].to(head.bias)
        return head

    def _train(self, module: PetModule, head: nn.Linear, tasks: Sequence[str], task_data: SelectorData) -> None:
        rehearsal, count = task_data.old, len(task_data.new)
        states = States.concatenated([task_data.new, *([rehearsal.states] if rehearsal else [])])
        owners = [*[task_data.name] * count, *(rehearsal.tasks if rehearsal else ())]
        output_of = {name: output for output, name in enumerate(tasks)}
        targets = torch.tensor([output_of[owner] for owner in owners])
        new, replayed = divide_budget(
            task_data.settings.training.batch_size, old_share=OLD_SHARE, has_memory=rehearsal is not None
        )
        steps = self.config.steps

        def loss(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(task_data.context.seed + step)
            fresh = torch.randint(count, (new,), generator=generator).tolist()
            old = rehearsal.rows(step, replayed) if rehearsal else []
            rows = [*fresh, *(count + row for row in old)]
            batch = states.collate(rows, pad=self.backbone.encoder.pad, device=self.backbone.device)
            logits, tasks_of_rows = head(module.represent(batch)), targets[rows].to(self.backbone.device)
            return nn.functional.cross_entropy(logits, tasks_of_rows, reduction="none").mean()

        schedule = Schedule(
            steps, self.config.learning_rate, task_data.settings.training.weight_decay, seed=task_data.context.seed
        )
        parameters = {**module.parameters, **{f"head.{name}": value for name, value in head.named_parameters()}}
        scratch = task_data.context.scratch / self.name if task_data.context.scratch else None
        optimise(
            parameters,
            loss,
            schedule,
            checkpoint=scratch,
            on_step=lambda step: task_data.context.progress("selector", (step + 1) / steps),
        )


def _artifact(module: PetModule, head: nn.Linear, tasks: Sequence[str]) -> Artifact:
    """Return the object to store: the selector's module, and a head with one output per task."""
    return module_artifact(module.adapter(), LabelHead().tensors(head), {**label_document(()), _TASKS: list(tasks)})
