"""Joint training, the upper bound: all tasks at once."""

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
    """Joint training ("limitless" in Song et al. 2023): each task trains a new module on all examples of all tasks.

    The cost of a task grows with the number of tasks, so this is an upper bound for comparison, not a practical method.
    `epochs` counts passes over old and new examples together; `max_steps` limits them. Stored: the module, the head and
    all examples. With a limited replay memory it is not an upper bound.
    """

    name = "joint"
    replays: ClassVar[bool] = False
    retrains: ClassVar[bool] = True

    def batches(self, state: State, task_data: TaskData, context: TrainContext) -> ReplayBatches:
        """Return a new module and head, and batches of all examples of all tasks."""
        memory = [source for source in context.memory if source.task != task_data.task.name]
        states = [task_data.train, *(source.states(self.backbone, Subset.TRAIN) for source in memory)]
        answers = [*task_data.answers, *(label for source in memory for label in source.labels(Subset.TRAIN))]
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
