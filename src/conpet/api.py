"""`ConPET`: a workspace in which one frozen backbone learns task after task."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from conpet._verbs_to_merge import Done, GrowingVerbs
from conpet.backbone.backbone import Backbone
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.load import find_folder, fingerprint_of, load_backbone
from conpet.commands.changing import evaluate_stored
from conpet.commands.checks import check_names
from conpet.commands.export import export_version
from conpet.commands.growing import GrowingCommands
from conpet.commands.tune import search
from conpet.config import DesignChoices, Settings
from conpet.context import Progress, ignore
from conpet.cost import metered
from conpet.data import Example, Style, Task, check_example, render
from conpet.errors import BackboneMismatchError, ConfigError, DataError, Problem, UnknownNameError
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.kinds import check_settings, check_switches
from conpet.replay.memory_writer import check_templates
from conpet.report.design import TuneReport
from conpet.state.engine import predictions, several
from conpet.state.live import LiveState, cut_backbone
from conpet.state.reading import task_state
from conpet.state.state import TaskState
from conpet.store import Store, TaskRecord
from conpet.tuning.search import CostLimit
from conpet.types import Evaluation, LearnReport, Prediction

CHUNK = 256
"""Inputs predicted at once when they are streamed."""


class ConPET(GrowingVerbs):
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
        device: A torch device in place of the settings' one.
    """

    def __init__(
        self, store: Store, settings: Settings, backbone: str | None = None, device: str | None = None
    ) -> None:
        self._store = store
        self._backbone_name = backbone or settings.backbone
        self._present = LiveState(store, settings, self._backbone_name, device or settings.device)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        backbone: str = "smollm2-135m",
        method: str = "dynamic",
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
        asked = Settings.parse({**settings, "backbone": backbone, "method": method})
        check_names(asked)
        learner: type[Method] = METHODS[asked.method]
        Store.require_free(path)
        loaded = load_backbone(backbone, dtype=asked.dtype, device=asked.device, progress=progress)
        built = cut_backbone(loaded, asked)
        if learner.tunes:
            check_settings(built, asked)
        if asked.latent_only and not built.frozen_layers:
            raise ConfigError(
                f"latent_only=true with split=0: {built.name} would have no frozen prefix whose states could be kept "
                "in place of texts; use a split of 1 or more, or leave latent_only out"
            )
        decided = asked.model_copy(
            update={
                "dtype": str(built.dtype).removeprefix("torch."),
                "split": built.frozen_layers,
                "feature_layers": built.feature_layers,
            }
        )
        store = Store.create(path, settings=decided.model_dump(mode="json"), backbone=built.describe())
        return cls(store, decided)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, backbone: str | None = None, device: str | None = None) -> Self:
        """Open a workspace and check that its backbone is the one it was made with.

        Args:
            path: The workspace's folder.
            backbone: Where the backbone lies now, if it was moved.
            device: A torch device in place of the workspace's setting.

        Raises:
            WorkspaceNotFoundError: There is no workspace at `path`.
            BackboneMismatchError: The backbone found has other weights, tokenizer or configuration.
        """
        store = Store.open(path)
        header = store.header()
        workspace = cls(store, Settings.parse(header.settings), backbone, device)
        workspace._check_backbone(Fingerprint(**header.backbone["fingerprint"]))
        return workspace

    @property
    def settings(self) -> Settings:
        """The workspace's settings, as this object last saw them."""
        return self._present.settings

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
        """The frozen model with the workspace's warm-up, if any, loaded when first needed."""
        return self._present.learner().backbone

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
                check_switches(settings)
                METHODS[self.settings.method].check_task(self.settings, settings)
                render(task.train[0], task.template, style)
                if self.settings.latent_only:
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
        return self._change("learn", wait_seconds, progress, evaluate, lambda changer: changer.learn(task))

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
        return self._change(
            "rollback", wait_seconds, progress, evaluate, lambda changer: changer.rollback(task, version)
        )

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
        return self._change("remove", wait_seconds, progress, evaluate, lambda changer: changer.remove(task))

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
            return search(*self._present.now(), task, limit, among, progress or ignore)
        return self._change("tune", wait_seconds, progress, False, lambda changer: changer.tune(task, limit, among))

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
        return self._predict(several(inputs), runners_up, first=1)

    def predict_stream(self, inputs: Iterable[str | Example], *, runners_up: int = 2) -> Iterator[Prediction]:
        """Predict any number of inputs in constant memory; arguments and errors as in `predict`."""
        rest = iter(several(inputs))
        first = 1
        while chunk := list(islice(rest, CHUNK)):
            yield from self._predict(chunk, runners_up, first)
            first += len(chunk)

    def evaluate(self, progress: Progress | None = None) -> Evaluation:
        """Evaluate on the test examples of all tasks; nothing on disk changes.

        Args:
            progress: As in `learn`.
        """
        learner, snapshot = self._present.now()
        events = [event for event in self._store.events() if event.id <= snapshot.generation]
        return evaluate_stored(learner, snapshot.tasks, events, progress or ignore)

    def _predict(self, inputs: Sequence[str | Example], runners_up: int, first: int) -> list[Prediction]:
        """Predict inputs of which the first has the number `first` in messages."""
        if runners_up < 0:
            raise ConfigError(f"runners_up={runners_up}: give 0 or more")
        examples = [Example.of_text(one) if isinstance(one, str) else one.labelled(None) for one in inputs]
        problems = [
            Problem("inputs", number, reason)
            for number, example in enumerate(examples, start=first)
            for reason in check_example(example)
        ]
        if problems:
            raise DataError(f"{len(problems)} of {len(examples)} inputs cannot be predicted", problems)
        return predictions(self._present.learner(), examples, runners_up, first)

    def _change(
        self,
        verb: str,
        wait_seconds: float | None,
        progress: Progress | None,
        evaluate: bool,
        change: Callable[[GrowingCommands], Done],
    ) -> Done:
        with self._store.write(verb, wait_seconds) as writer, metered() as meter:
            grower = GrowingCommands(self._store, writer, *self._present.now(), progress or ignore, evaluate, meter)
            done = change(grower)
            self._present.at(grower.snapshot)
            del grower  # so that nobody here reads the former state any more, and what it alone had can go
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
