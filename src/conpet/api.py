"""`ConPET`: a workspace in which one frozen backbone learns task after task."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from conpet import commands
from conpet.backbone.backbone import Backbone
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.load import find_folder, fingerprint_of, load_backbone
from conpet.commands.base import Transaction
from conpet.commands.checks import check_settings
from conpet.commands.evaluate import evaluate_workspace
from conpet.commands.export import export_version
from conpet.commands.tune import search
from conpet.config import DesignChoices, Settings
from conpet.context import Progress, ignore
from conpet.cost import metered
from conpet.data import Example, Examples, Style, Task, render
from conpet.errors import BackboneMismatchError, ConfigError, UnknownNameError
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.kinds import check_module
from conpet.replay.memory_writer import check_templates
from conpet.report.design import TuneReport
from conpet.state.engine import Engine
from conpet.state.live import LiveState, cut_backbone
from conpet.state.reading import task_state
from conpet.state.state import TaskState
from conpet.store import Store, TaskRecord
from conpet.tuning.search import CostLimit
from conpet.types import Evaluation, LearnReport, MergeReport, Prediction

Given = ParamSpec("Given")
Done = TypeVar("Done")


class ConPET:
    """A workspace on disk, its frozen backbone and what was learned so far.

    Use `ConPET.create` or `ConPET.open`. Objects may be shared by threads, and a folder by processes: readers always
    see a whole state, writers wait for one another.

        learner = ConPET.create("support")
        print(learner.learn(read_stream("tasks/")[0]))
        print(learner.predict(["my card was swallowed"])[0].label)

    Args:
        store: The workspace's store.
        settings: Its settings.
        backbone: Name or folder of the backbone, where it is not the one in the settings.
        device: A torch device in place of the one in the settings.
        wait_for_changes: See `open`.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        backbone: str | None = None,
        device: str | None = None,
        *,
        wait_for_changes: bool = True,
    ) -> None:
        self._store = store
        self._backbone_name = backbone or settings.backbone.name
        self._live = LiveState(
            store,
            settings,
            self._backbone_name,
            device or settings.backbone.device,
            wait_for_changes=wait_for_changes,
        )
        self._engine = Engine(self._live)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        backbone: str | Mapping[str, Any] = "smollm2-135m",
        method: str | Mapping[str, Any] = "dynamic",
        *,
        progress: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> Self:
        """Make an empty workspace.

        Args:
            path: Its folder; must not exist, or be empty.
            backbone: An embedded model (`smollm2-135m`, `minilm-l6`), `tiny-random`, a folder in Hugging Face format,
                or a hub id.
            method: The learner, a name in `conpet.methods.METHODS`.
            progress: Called with a line at each slow step.
            settings: Any field of `conpet.config.Settings`.

        Raises:
            ConfigError: A setting is unknown or wrong.
            UnknownNameError: There is no such method, selector, replay schedule or retention.
            WorkspaceExistsError: Something stands at `path`.
            BackboneError: The backbone cannot be used so.
            DownloadError: An embedded model could not be fetched.
        """
        requested = Settings.parse({"backbone": backbone, "method": method}).changed(settings)
        check_settings(requested)
        method_class: type[Method] = METHODS[requested.method.name]
        Store.require_free(path)
        loaded = load_backbone(
            requested.backbone.name, dtype=requested.backbone.dtype, device=requested.backbone.device, progress=progress
        )
        cut = cut_backbone(loaded, requested)
        if method_class.tunes:
            check_module(cut, requested.module)
        if requested.replay.latent_only and not cut.frozen_layers:
            raise ConfigError(
                "replay.latent_only=true stores the states of the frozen layers in place of texts, but "
                f"backbone.frozen_layers=0 leaves {cut.name} without any: freeze 1 layer or more, or drop latent_only"
            )
        resolved = requested.changed(
            {
                "backbone.dtype": str(cut.dtype).removeprefix("torch."),
                "backbone.frozen_layers": cut.frozen_layers,
                "features.layers": cut.feature_layers,
            }
        )
        store = Store.create(path, settings=resolved.to_json(), backbone=cut.describe())
        return cls(store, resolved)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: str | None = None,
        device: str | None = None,
        wait_for_changes: bool = True,
    ) -> Self:
        """Open a workspace and check that its backbone is the one it was made with.

        Args:
            path: The workspace's folder.
            backbone: Where the backbone lies now, if it was moved.
            device: A torch device in place of the workspace's setting.
            wait_for_changes: Whether a prediction waits for a generation that another process has just committed. If
                not, predictions go on with the former generation until a background thread has prepared the new one.

        Raises:
            WorkspaceNotFoundError: There is no workspace at `path`.
            BackboneMismatchError: The backbone found has other weights, tokenizer or configuration.
        """
        store = Store.open(path)
        header = store.header()
        workspace = cls(store, Settings.parse(header.settings), backbone, device, wait_for_changes=wait_for_changes)
        workspace._check_backbone(Fingerprint(**header.backbone["fingerprint"]))
        return workspace

    @property
    def settings(self) -> Settings:
        """The workspace's settings, as this object last saw them."""
        return self._live.settings

    @property
    def path(self) -> Path:
        """The workspace's folder."""
        return self._store.path

    @property
    def store(self) -> Store:
        """The workspace on disk: every version, every event."""
        return self._store

    @property
    def backbone(self) -> Backbone:
        """The frozen model with the workspace's warm-up, if any, loaded when first needed; its `cache` counts hits."""
        return self._live.now().method.backbone

    @property
    def tasks(self) -> tuple[TaskRecord, ...]:
        """The tasks learned, in order, with all their versions."""
        return self._store.snapshot().tasks

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels learned, task by task."""
        return tuple(label for task in self.tasks for label in task.active.labels)

    @property
    def owners(self) -> dict[str, str]:
        """Label to the name of the task it belongs to."""
        return {label: task.name for task in self.tasks for label in task.active.labels}

    # Changing

    def check(self, tasks: Iterable[Task]) -> None:
        """Check that tasks fit this workspace: their settings, and their templates for its backbone; learns nothing.

        Raises:
            ConfigError: One does not; the message names the task.
        """
        style = Style(self._store.header().backbone["style"])
        others: list[Task | TaskState] = [task_state(version) for version in self._store.snapshot().versions]
        for task in tasks:
            try:
                settings = self.settings.for_task(task.settings)
                METHODS[self.settings.method.name].check_task(self.settings, settings)
                render(task.train[0], task.template, style)
                if self.settings.replay.latent_only:
                    check_templates(task, others)
                    others.append(task)
            except (ConfigError, UnknownNameError) as error:
                raise ConfigError(f"task {task.name!r}: {error}. Nothing was learned") from None

    def learn(
        self,
        task: Task,
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Learn a task; one already learned from the same data is skipped, a changed one becomes a new version.

        All or nothing: until the last moment the workspace is as before. If the process is killed, learning the task
        again goes on from the last checkpoint.

        Args:
            task: The task.
            evaluate: Whether to evaluate on the test examples of all tasks seen; its cost grows with their number.
            wait_seconds: How long to wait for another process that is changing the workspace; None: for ever.
            progress: Called with the name of a stage and the share of it that is done, 0 to 1.

        Raises:
            DataError: A label belongs to another task.
            ConfigError: The task's settings or template do not fit.
            WorkspaceBusyError: Another process is still at it after `wait_seconds`.
        """
        return self._change(commands.learn, "learn", wait_seconds, progress, evaluate, task)

    def rollback(
        self,
        task: str,
        version: int,
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Go back (or forth) to another version of a task; arguments as in `learn`.

        Raises:
            UnknownNameError: There is no such task or version.
            DataError: A label of that version belongs to another task by now.
        """
        return self._change(commands.rollback, "rollback", wait_seconds, progress, evaluate, task, version)

    def remove(
        self,
        task: str,
        *,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Evaluation | None:
        """Take a task out: its labels, all its versions, its examples, and its share of the closed-form statistics.

        Arguments as in `learn`. A learned selector loses the task's output; its LoRA keeps having seen the examples.

        Raises:
            UnknownNameError: There is no such task.
        """
        return self._change(commands.remove, "remove", wait_seconds, progress, evaluate, task)

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
        return self._change(commands.learn_batch, "learn", wait_seconds, progress, evaluate, list(tasks))

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
        owners = self._change(commands.owners_of, "extend", wait_seconds, None, False, examples)
        return [
            self._change(commands.extend, "extend", wait_seconds, progress, evaluate, task, examples) for task in owners
        ]

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
        return self._change(commands.rename, "rename", wait_seconds, progress, evaluate, old, new)

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
        return self._change(commands.retire, "retire", wait_seconds, progress, evaluate, label)

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
            commands.split_label, "split", wait_seconds, progress, evaluate, label, examples, replace=replace
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
        return self._change(commands.upgrade, "upgrade", wait_seconds, progress, evaluate, method, fusion, selector)

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
        return self._change(commands.merge, "merge", wait_seconds, progress, evaluate, tasks, bound)

    def tune(
        self,
        task: Task | str,
        *,
        seconds: float | None = None,
        passes: float | None = None,
        trials: int | None = None,
        choices: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> TuneReport:
        """Search for the design that suits a task, and put it in force for all that is learned from now on.

        Split, rank, targets, learning rate, epochs and warm-up are chosen by accuracy on validation examples; once a
        task was learned, split and warm-up stay as they are. All or nothing, as `learn` is.

        Args:
            task: A task, or the name of a learned one. Its test examples are never looked at.
            seconds: Limit in wall time.
            passes: Limit in forward-pass equivalents (see `TuneReport.passes`); equal seeds then find equal designs.
            trials: Limit in designs. At least one of the three must be given.
            choices: Any field of `conpet.config.DesignChoices`.
            dry_run: Whether to leave the settings as they are.
            wait_seconds: As in `learn`.
            progress: As in `learn`.

        Raises:
            ConfigError: A choice or a limit is wrong, the method has nothing to tune, or Optuna is not installed.
            DataError: The task has no validation examples.
            UnknownNameError: No task of this name was learned.
            WorkspaceBusyError: As in `learn`.
        """
        limit, among = CostLimit(seconds, passes, trials), DesignChoices.parse(choices or {})
        if dry_run:
            live = self._live.now()
            return search(live.method, live.state, live.snapshot, task, limit, among, progress or ignore)
        return self._change(commands.tune, "tune", wait_seconds, progress, False, task, limit, among)

    def export(self, task: str, folder: str | os.PathLike[str], version: int | None = None) -> Path:
        """Copy a module with its head into a new folder that plain Hugging Face PEFT loads.

        Args:
            task: The task.
            folder: A folder that does not exist yet.
            version: The module's version; by default the one in use.

        Raises:
            UnknownNameError: There is no such task or version.
            WorkspaceExistsError: Something stands at `folder`.
        """
        snapshot = self._store.snapshot()
        record = snapshot.task(task)
        chosen = record.active if version is None else record.version(version)
        return export_version(chosen, snapshot.shared, Path(folder).expanduser())

    # Asking

    def predict(self, inputs: Sequence[str | Example], *, runners_up: int = 2) -> list[Prediction]:
        """Predict inputs: texts, or examples of any kind.

        Args:
            inputs: The inputs.
            runners_up: Number of further labels to give with each answer, 0 or more.

        Raises:
            ConfigError: `runners_up` is negative.
            DataError: An input is empty or malformed, or no task of its kind was learned.
        """
        return self._engine.predict(inputs, runners_up=runners_up)

    def predict_stream(self, inputs: Iterable[str | Example], *, runners_up: int = 2) -> Iterator[Prediction]:
        """Predict any number of inputs in constant memory; arguments and errors as in `predict`."""
        return self._engine.predict_stream(inputs, runners_up=runners_up)

    def evaluate(self, progress: Progress | None = None) -> Evaluation:
        """Evaluate on the test examples of all tasks; nothing on disk changes.

        Args:
            progress: As in `learn`.
        """
        return evaluate_workspace(self._live.now(), self._store, progress or ignore)

    def close(self) -> None:
        """Release the model, the modules in memory and the files held open; what is asked next loads them again."""
        self._live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _change(
        self,
        command: Callable[Concatenate[Transaction, Given], Done],
        verb: str,
        wait_seconds: float | None,
        progress: Progress | None,
        evaluate: bool,
        *given: Given.args,
        **more: Given.kwargs,
    ) -> Done:
        """Run a command as the only writer."""
        with self._store.write(verb, wait_seconds) as writer, metered() as meter:
            tx = Transaction(self._store, writer, self._live, meter, progress or ignore, evaluate=evaluate)
            done = command(tx, *given, **more)
            del tx  # nothing here reads the former state any more, so what only that had can be deleted
            writer.collect()
            return done

    def _check_backbone(self, stored: Fingerprint) -> None:
        found = fingerprint_of(find_folder(self._backbone_name))
        if found != stored:
            parts = ", ".join(stored.differences(found))
            raise BackboneMismatchError(
                f"the workspace {self.path} was made with another {parts} than {self._backbone_name!r} has now; "
                "give the backbone it was made with (its folder or id, as `backbone`), or make a new workspace"
            )
