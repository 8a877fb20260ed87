"""The verbs by which a workspace learns several tasks, or grows out of what it was; each commit by one writer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from conpet.commands.growing import GrowingCommands
from conpet.context import Progress
from conpet.data import Examples, Task
from conpet.errors import ConfigError
from conpet.types import Evaluation, LearnReport, MergeReport

Done = TypeVar("Done")


class GrowingVerbs(ABC):
    """What learns several tasks, or changes labels, tasks and method of a workspace; the base of `ConPET`.

    All verbs take `evaluate`, `wait_seconds` and `progress`, and raise `WorkspaceBusyError`, as `ConPET.learn` does.
    """

    def learn_batch(
        self,
        tasks: Iterable[Task],
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> list[LearnReport]:
        """Learn several tasks in one change, all of them or none: many small ones cost much less so.

        The modules of small tasks pass a training step together, each on its own examples; statistics are written,
        weights calibrated and tests evaluated once. Each task has its module, version and place in the history as if it
        had been learned by itself, and modules come out the same but for rounding. Calibration, which is fitted when a
        change ends, then has no draw from between these tasks.

        Args:
            tasks: The tasks; those already learned from the same data are skipped.
            evaluate: As in `ConPET.learn`, once for all; the report of the last task learned has the evaluation.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Returns:
            A report for each; each is charged the share of the cost that its training examples have.

        Raises:
            ConfigError: As in `ConPET.learn`; or the method, selector or rule learns each task on from the one before.
            DataError: As in `ConPET.learn`; or two of the tasks have a name or a label in common. A label that one of
                them gives up is free for others when the change is made, not before.
            WorkspaceBusyError: As in `ConPET.learn`.
        """
        some = list(tasks)
        return self._change("learn", wait_seconds, progress, evaluate, lambda grower: grower.learn_batch(some))

    def learn_stream(
        self,
        stream: Iterable[Task],
        *,
        batch: int = 1,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Iterator[LearnReport]:
        """Learn tasks one after another, yielding a report for each.

        Args:
            stream: The tasks.
            batch: Tasks learned in one change (see `learn_batch`), 1 or more.
            evaluate: As in `ConPET.learn`, after each change.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            ConfigError: `batch` is below 1; else errors as in `learn_batch`.
        """
        if not isinstance(batch, int) or batch < 1:
            raise ConfigError(f"batch={batch!r}: give a whole number, 1 or more")
        rest = iter(stream)
        while tasks := list(islice(rest, batch)):
            yield from self.learn_batch(tasks, evaluate=evaluate, wait_seconds=wait_seconds, progress=progress)

    def extend(
        self,
        examples: Examples | Task,
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> list[LearnReport]:
        """Learn more examples of labels that are learned already: their tasks get new versions, one commit for each.

        A version is learned from what is stored of its task and the new examples together. Inputs that are stored
        already are left out, so that doing it again does nothing.

        Args:
            examples: The new examples, of labels of any tasks.
            evaluate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Returns:
            A report for each task that owns one of the labels, in the order of the tasks.

        Raises:
            DataError: A label is not known, an input is stored with another label, or the limit of the replay memory
                let all training examples of a label go.
            ConfigError: The workspace keeps no texts to learn from again (`latent_only`).
        """
        owners = self._change("extend", wait_seconds, None, False, lambda grower: grower.owners_of(examples))

        def extended(task: str) -> LearnReport:
            return self._change(
                "extend", wait_seconds, progress, evaluate, lambda grower: grower.extend(task, examples)
            )

        return [extended(task) for task in owners]

    def rename(
        self,
        old: str,
        new: str,
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Give a label another name: a new version of its task, with the same weights. Nothing is trained.

        Older versions keep the former name, and can be rolled back to.

        Raises:
            UnknownNameError: There is no label `old`.
            DataError: A task has a label `new` already.
        """
        return self._change("rename", wait_seconds, progress, evaluate, lambda grower: grower.rename(old, new))

    def retire(
        self,
        label: str,
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Take a label out: its examples, its output, and exactly its share of the statistics. Nothing is trained.

        The task gets a new version without it. All its older versions are deleted, for they hold the label's examples,
        and so are those of other tasks in which the label was once. A module that was trained with the label keeps
        having seen it.

        Raises:
            UnknownNameError: There is no such label.
            ConfigError: It is the last one of its task.
        """
        return self._change("retire", wait_seconds, progress, evaluate, lambda grower: grower.retire(label))

    def split_label(
        self,
        label: str,
        examples: Examples | Task,
        *,
        replace: bool = False,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Put finer labels in the place of one: its task is learned anew, as a new version.

        Stored examples of the label that `examples` has too get their finer label and stay where they were (training,
        validation, test); those it does not have are dropped, and `LearnReport.notes` says how many.

        Args:
            label: The label.
            examples: Examples of two finer labels or more, one of which may keep the label's name.
            replace: Whether `examples` may have none of the label's stored examples, so that all of them are dropped.
            evaluate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            UnknownNameError: There is no such label.
            DataError: A finer label is known already, or has no training example; an input is stored under a label
                other than `label`; none is stored under it, without `replace`; or the limit of the replay memory let
                all training examples of another label of the task go.
            ConfigError: The workspace keeps no texts to learn from again (`latent_only`).
        """
        return self._change(
            "split", wait_seconds, progress, evaluate, lambda grower: grower.split_label(label, examples, replace)
        )

    def upgrade(
        self,
        method: str = "dynamic",
        *,
        fusion: str = "paper",
        selector: str | None = None,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Evaluation | None:
        """Let a workspace with one module for all tasks go on with a module for each new one.

        The one module is frozen and serves the labels learned so far; a selector chooses between it and the modules of
        tasks to come. With the paper's rule answers are what they were until the next task is learned, and the scores
        of the old labels among each other are so for ever.

        Args:
            method: What to go on with; "dynamic" is all there is.
            rule: How scores become one ranking from now on; "calibrated" changes answers at once.
            selector: What finds an input's task; None: as the settings have it. One that is computed, not trained.
            evaluate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            ConfigError: The workspace's method has no module that could be frozen, or is dynamic already; or nothing
                was learned yet.
        """
        return self._change(
            "upgrade", wait_seconds, progress, evaluate, lambda grower: grower.upgrade(method, fusion, selector)
        )

    def merge(
        self,
        tasks: Sequence[str],
        *,
        bound: float = 1.0,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> MergeReport:
        """Let several tasks share one module, trained on their stored examples, in place of one each.

        The tasks keep their labels, examples and versions. Training takes the sum of their steps. The modules that are
        replaced are deleted; older versions keep theirs.

        Args:
            tasks: Two tasks or more.
            bound: How many points the accuracy on their validation examples, all labels of the workspace competing,
                may fall at most.
            evaluate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            AccuracyBoundError: It would fall by more; nothing was changed.
            DataError: A task has no validation or no training examples.
            ConfigError: The method is not dynamic, or there is nothing to merge.
        """
        return self._change("merge", wait_seconds, progress, evaluate, lambda grower: grower.merge(tasks, bound))

    @abstractmethod
    def _change(
        self,
        verb: str,
        wait_seconds: float | None,
        progress: Progress | None,
        evaluate: bool,
        change: Callable[[GrowingCommands], Done],
    ) -> Done:
        """Make a change as the only writer."""
