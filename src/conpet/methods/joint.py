"""The upper bound: all data of all tasks at once."""

from __future__ import annotations

from typing import ClassVar

from conpet.backbone.states import States
from conpet.context import TrainContext
from conpet.heads.labels import indices_of, zero_head
from conpet.methods.base import TaskData
from conpet.methods.replay_batches import ReplayBatches
from conpet.methods.static import StaticMethod, labels_with
from conpet.modules.module import PetModule
from conpet.modules.optimisation import steps_of
from conpet.replay.memory import Subset
from conpet.state.state import State


class JointMethod(StaticMethod):
    """Joint training ("limitless" in Song et al. 2023): for every task a new module, on all examples of all tasks.

    The cost of a task grows with the number of tasks, so this is no method to use but the bound for those that are.
    Passes over the data are those of the settings (`epochs`), over old and new examples alike; `max_steps` bounds
    them. Stored: the module, the head, and all examples (it is no bound with a limited replay memory).
    """

    name = "joint"
    replays: ClassVar[bool] = False
    retrains: ClassVar[bool] = True

    def batches(self, state: State, task_data: TaskData, context: TrainContext) -> ReplayBatches:
        """Return a new module and head, with all examples of all tasks to be learned."""
        memory = [one for one in context.memory if one.task != task_data.task.name]
        states = [task_data.train, *(one.states(self.backbone, Subset.TRAIN) for one in memory)]
        answers = [*task_data.answers, *(label for one in memory for label in one.labels(Subset.TRAIN))]
        labels = labels_with(state, task_data)
        steps = steps_of(len(answers), task_data.settings.training)
        return ReplayBatches(
            PetModule(self.backbone, self.settings.for_task({}), context.seed),
            zero_head(self.backbone.representation_size, len(labels), self.backbone.device),
            state,
            task_data,
            context,
            labels,
            States.concatenated(states),
            indices_of(answers, labels),
            len(answers),
            steps,
        )
