"""The paper's selector: a LoRA of its own and a linear head over tasks, grown by one output per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from conpet.artifact import Artifact
from conpet.backbone.states import States
from conpet.config import Positive, SelectorConfig, TaskSettings
from conpet.cost import meter
from conpet.heads.base import HEAD
from conpet.heads.labels import label_document, zero_head
from conpet.modules.adapter import ADAPTER_TENSORS
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.optimisation import Schedule, optimise
from conpet.replay.rehearsal import mean_loss
from conpet.replay.schedule import OLD_SHARE, divide_budget
from conpet.selectors.base import Selector, SelectorData

_TASKS = "tasks"


class LearnedSelectorConfig(SelectorConfig):
    """Settings of the learned selector.

    Attributes:
        rank: LoRA rank of its module.
        steps: Optimiser steps per task, however many tasks there are.
        learning_rate: Highest learning rate.
    """

    budget = frozenset({"steps", "learning_rate"})

    rank: Positive = 8
    steps: Positive = 100
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4


class LearnedSelector(Selector):
    """Dynamic ConPET's selector (Song et al. 2023, section 3.3).

    For each new task it goes on from its last weights, its head grown by one output, on batches of half new and half
    old examples. The number of steps per task is fixed. With only one task there is nothing to tell apart: it is not
    trained until the second comes.
    """

    name = "learned"
    Config = LearnedSelectorConfig
    config: LearnedSelectorConfig
    needs_replay = True

    def log_probabilities(self, states: States) -> Tensor:
        """Return the log-softmax of the head's outputs; all selector work of a batch is one pass of the suffix."""
        module = self._module()
        assert module is not None, "a learned selector was asked before anything was learned"  # noqa: S101
        logits = torch.stack([found[module] for found in self.pool.outputs(states, [[module]] * len(states))])
        known = {name: index for index, name in enumerate(module.reader.document(HEAD)[_TASKS])}
        return torch.log_softmax(logits[:, [known[name] for name in self.state.tasks]], dim=1)

    @property
    def replay_steps(self) -> int:
        """Optimiser steps per task."""
        return self.config.steps

    @property
    def parameters(self) -> int:
        """Number of its trained parameters, the head's included."""
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
        """Go on from the last weights with one more output, or with the task's own if it was learned before."""
        tasks = [*(name for name in self._head_tasks() if name != task_data.name), task_data.name]
        module = self._last_module(task_data.context.seed)
        head = self._head(tasks)
        if len(tasks) > 1:
            self._train(module, head, tasks, task_data)
        return _artifact(module, head, tasks)

    def forget(self, name: str) -> Artifact | None:
        """Take a task's output out of the head; what the LoRA learned from its examples cannot be told apart."""
        tasks = [task for task in self._head_tasks() if task != name]
        return _artifact(self._last_module(seed=0), self._head(tasks), tasks) if tasks else None

    def _head_tasks(self) -> list[str]:
        return list(self.state.stored.document(HEAD)[_TASKS]) if self.state.stored else []

    def _last_module(self, seed: int) -> PetModule:
        module = PetModule(self.backbone, self._module_settings(), seed)
        if self.state.stored is not None:
            module.load(self.state.stored.tensors(ADAPTER_TENSORS))
        return module

    def _module_settings(self) -> TaskSettings:
        # Whatever kind the tasks' modules are, the selector's is a plain LoRA, on the same maps if theirs is one.
        rank = self.config.rank
        plain = {"kind": "lora", "rank": rank, "alpha": 2.0 * rank, "rslora": False, "dora": False}
        return self.settings.for_task({"module": plain})

    def _head(self, tasks: Sequence[str]) -> nn.Linear:
        """Build a head for these tasks: rows of the last head where it has them, zeros for a new one."""
        head = zero_head(self.backbone.representation_size, len(tasks), self.backbone.device)
        if self.state.stored is not None:
            last = self.state.stored.tensors(HEAD)
            row_of = {name: row for row, name in enumerate(self._head_tasks())}
            rows = [row for row, name in enumerate(tasks) if name in row_of]
            former = [row_of[tasks[row]] for row in rows]
            with torch.no_grad():
                head.weight[rows] = last["weight"][former].to(head.weight)
                head.bias[rows] = last["bias"][former].to(head.bias)
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
            logits, truth = head(module.represent(batch)), targets[rows].to(self.backbone.device)
            return mean_loss(nn.functional.cross_entropy(logits, truth, reduction="none"), rehearsal, old)

        schedule = Schedule(
            steps, self.config.learning_rate, task_data.settings.training.weight_decay, seed=task_data.context.seed
        )
        parameters = {**module.parameters, **{f"head.{name}": value for name, value in head.named_parameters()}}
        resumable = rehearsal is None or rehearsal.resumable
        scratch = task_data.context.scratch / self.name if task_data.context.scratch and resumable else None
        log = optimise(
            parameters,
            loss,
            schedule,
            checkpoint=scratch,
            on_step=lambda step: task_data.context.progress("selector", (step + 1) / steps),
        )
        meter().steps += log.steps - log.resumed_at


def _artifact(module: PetModule, head: nn.Linear, tasks: Sequence[str]) -> Artifact:
    """Return what is stored of a selector: its module, and a head with an output for each task."""
    tensors = {name: value.detach().cpu().clone() for name, value in head.named_parameters()}
    return module_artifact(module.adapter(), tensors, {**label_document(()), _TASKS: list(tasks)})
