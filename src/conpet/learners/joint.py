"""The upper bound: all data of all tasks at once."""

from __future__ import annotations

from typing import ClassVar

from conpet.backbone.states import States
from conpet.learners.base import Lesson
from conpet.learners.session import Session
from conpet.learners.static import StaticLearner
from conpet.learners.statistics import outputs_of
from conpet.pet.module import PetModule
from conpet.pet.train import zero_head
from conpet.replay.memory import Split
from conpet.training import steps_of
from conpet.work import Work


class JointLearner(StaticLearner):
    """Joint training ("limitless" in Song et al. 2023): for every task a new module, on all examples of all tasks.

    The cost of a task grows with the number of tasks, so this is no method to use but the bound for those that are.
    Passes over the data are those of the settings (`epochs`), over old and new examples alike; `max_steps` bounds
    them. Stored: the module, the head, and all examples (it is no bound with a limited replay memory).
    """

    name = "joint"
    replays: ClassVar[bool] = False
    retrains: ClassVar[bool] = True

    def session(self, lesson: Lesson, work: Work) -> Session:
        """Return a new module and head, with all examples of all tasks to be learned."""
        memory = [one for one in work.memory if one.task != lesson.task.name]
        states = [lesson.train, *(one.states(self.backbone, Split.TRAIN) for one in memory)]
        answers = [*lesson.answers, *(label for one in memory for label in one.labels(Split.TRAIN))]
        labels = self.labels_with(lesson)
        steps = steps_of(len(answers), lesson.settings)
        return Session(
            PetModule(self.backbone, self.settings.for_task({}), work.seed),
            zero_head(self.backbone, len(labels)),
            lesson,
            work,
            labels,
            States.concatenated(states),
            outputs_of(answers, labels),
            len(answers),
            steps,
        )
