"""`ConPET`: a workspace in which a frozen backbone learns one task after another."""

from __future__ import annotations

import os
import secrets
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, overload

from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.load import find_folder, fingerprint_of, load_backbone
from conpet.backbone.location import RELATIVE, find_again, relative_location
from conpet.commands import (
    audit,
    consolidate,
    costs,
    extend,
    forget,
    generations,
    learn,
    ledger,
    merge,
    mixed,
    prediction_log,
    promote,
    purge,
    remove,
    rename,
    restore,
    retire,
    review,
    rollback,
    split_label,
    tune,
    upgrade,
)
from conpet.commands.audit import Head
from conpet.commands.base import Transaction, number_tested
from conpet.commands.candidates import discard, newest, report_of
from conpet.commands.checks import check_settings, consolidation_blocker
from conpet.commands.cost import cost_report
from conpet.commands.create import new_settings
from conpet.commands.evaluate import evaluate_examples, evaluate_workspace
from conpet.commands.export import export_version
from conpet.commands.introduction import StagePlan, plan_stages
from conpet.commands.mlflow_export import MlflowExport, export_mlflow
from conpet.commands.receipt import unfinished
from conpet.commands.stored_rows import NoMatchError, Wanted, inputs_of
from conpet.commands.tune import search
from conpet.commands.tuned import TunedBackbones
from conpet.commands.watch import find_feedback, keep_feedback, watch_inputs, watch_log, with_feedback
from conpet.config import DEFAULT_BACKBONE, DesignChoices, Settings
from conpet.context import Progress, ignore
from conpet.cost import metered, spending
from conpet.data import Example, Examples, Input, MixedExamples, Style, Task, render
from conpet.data.example import Id
from conpet.data.rows import label_name, to_example
from conpet.data.truncation import CutInputs
from conpet.errors import (
    AccuracyBoundError,
    BackboneError,
    BackboneMismatchError,
    ConfigError,
    DataError,
    Problem,
    UnknownNameError,
    is_disk_full,
)
from conpet.evaluation.cost_report import CostReport
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.kinds import check_module
from conpet.replay.memory_writer import check_templates
from conpet.report.design import TuneReport
from conpet.review.records import ReviewPlan
from conpet.review.review import Review
from conpet.state.engine import Engine, require_several
from conpet.state.live import LiveState, cut_backbone
from conpet.state.reading import task_state
from conpet.state.recorder import Recorder
from conpet.state.state import State, TaskState
from conpet.store import ActionLog, Snapshot, Store, TaskRecord
from conpet.store.chain import Break
from conpet.store.prediction_log import PredictionLog
from conpet.store.usage import Usage
from conpet.tuning.search import CostLimit
from conpet.types import (
    Addition,
    Candidate,
    CandidateRecord,
    ConsolidationReport,
    Costs,
    Evaluation,
    ForgetReport,
    GateReport,
    Generation,
    LearnReport,
    MergeReport,
    OnError,
    Prediction,
)
from conpet.watching.report import REFERENCE, WINDOW, WatchOptions, WatchReport

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ConPET:
    """A workspace on disk: a frozen backbone and the tasks learned so far.

    Use `ConPET.create` or `ConPET.open`. Threads may share an object, and processes a folder: readers always see a
    complete state, and writers wait for each other.

        workspace = ConPET.create("support")
        print(workspace.learn(read_stream("tasks/")[0]))
        print(workspace.predict(["my card was swallowed"])[0].label)

    Args:
        store: The workspace's store.
        settings: Its settings.
        backbone: Name or folder of the backbone, if it differs from the settings.
        device: A torch device that overrides the settings.
        deterministic: See `open`.
        wait_for_changes: See `open`.
        loaded: The backbone's model, if it is loaded already.
        log_to: See `open`.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        backbone: str | None = None,
        device: str | None = None,
        *,
        deterministic: bool | None = None,
        wait_for_changes: bool = True,
        loaded: Loaded | None = None,
        log_to: str | os.PathLike[str] | None = None,
    ) -> None:
        self._store = store
        self._backbone_name = backbone or settings.backbone.name
        self._live = LiveState(
            store,
            settings,
            self._backbone_name,
            device or settings.backbone.device,
            deterministic=deterministic,
            wait_for_changes=wait_for_changes,
            loaded=loaded,
        )
        self._usage = Usage(store.ledger, costs.source_of(store))
        self._log = PredictionLog(store.path, Path(log_to).expanduser() if log_to is not None else None)
        self._review = Review(store, self._log)
        self._engine = Engine(self._live, self._usage, Recorder(self._log))
        weakref.finalize(self, self._usage.flush)  # also at the end of the process

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        backbone: str | Mapping[str, Any] = DEFAULT_BACKBONE,
        method: str | Mapping[str, Any] = "dynamic",
        *,
        progress: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> Self:
        """Make an empty workspace.

        Args:
            path: Folder of the workspace; it must not exist, or be empty.
            backbone: An embedded model (`minilm-l6`, `smollm2-135m`, ...), `tiny-random`, a folder in Hugging Face
                format, or a hub id.
            method: The method: a name in `conpet.methods.METHODS`, or its settings.
            progress: Called with a line at each slow step.
            settings: Any field of `conpet.config.Settings`.

        Raises:
            ConfigError: A setting is unknown or wrong.
            UnknownNameError: There is no such method, selector, replay schedule or retention.
            WorkspaceExistsError: `path` exists and is not an empty folder.
            BackboneError: The backbone cannot be used with these settings.
            DownloadError: An embedded model could not be downloaded.
        """
        requested = new_settings(path, Settings.parse({"backbone": backbone, "method": method}), settings)
        check_settings(requested)
        method_class: type[Method] = METHODS[requested.method.name]
        loaded = load_backbone(
            requested.backbone.name, dtype=requested.backbone.dtype, device=requested.backbone.device, progress=progress
        )
        cut = cut_backbone(loaded, requested)
        if method_class.tunes:
            check_module(cut, requested.module)
        if requested.replay.latent_only and not cut.frozen_layers:
            raise ConfigError(
                "replay.latent_only=true stores the states of the frozen layers instead of texts, but "
                f"backbone.frozen_layers=0 leaves {cut.name} without any; freeze at least one "
                "layer, or leave out latent_only"
            )
        resolved = requested.changed(
            {
                "backbone.dtype": str(cut.dtype).removeprefix("torch."),
                "backbone.frozen_layers": cut.frozen_layers,
                "features.layers": cut.feature_layers,
            }
        )
        place = Path(path).expanduser().absolute()
        recorded = cut.describe() | relative_location(requested.backbone.name, place)
        store = Store.create(path, settings=resolved.to_json(), backbone=recorded)
        return cls(store, resolved, loaded=loaded)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: str | None = None,
        device: str | None = None,
        deterministic: bool | None = None,
        wait_for_changes: bool = True,
        event_detail: Mapping[str, Any] | None = None,
        actor: str | None = None,
        log_to: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Open a workspace and check that its backbone is the one it was made with.

        A stored file that is missing or has another size than was written is named in a warning: what does not need it
        works. The content of a file is checked when it is first read.

        Args:
            path: The workspace's folder.
            backbone: Present location of the backbone, if it was moved.
            device: A torch device that overrides the workspace's setting.
            deterministic: Overrides `backbone.deterministic`. True gives an input the same scores, to the last bit,
                alone and among any others, on the same machine with the same packages and number of torch threads.
            wait_for_changes: Whether a prediction waits for a generation that another process has just committed. If
                not, predictions use the former generation until a background thread has prepared the new one.
            event_detail: Added to the detail of every event that this object adds to the history (JSON-ready).
            actor: Who makes the changes, for the history; by default `CONPET_ACTOR`, or the user of this process.
            log_to: Folder for the record of predictions (see `set_log`), if the workspace cannot be written.

        Raises:
            WorkspaceNotFoundError: There is no workspace at `path`.
            UnknownNameError: Its method, or another component, is not registered.
            BackboneMismatchError: The backbone differs in its weights, tokenizer or configuration.
        """
        store = Store.open(path, detail=event_detail, actor=actor)
        header = store.header()
        try:
            settings = Settings.parse(header.settings)
        except UnknownNameError as error:
            raise UnknownNameError(
                f"cannot open {path}: {error}. A package that the workspace uses may not be installed: install it, or "
                "call conpet.register first"
            ) from error
        located = backbone or find_again(settings.backbone.name, header.backbone.get(RELATIVE), store.path)
        workspace = cls(
            store,
            settings,
            located,
            device,
            deterministic=deterministic,
            wait_for_changes=wait_for_changes,
            log_to=log_to,
        )
        workspace._check_backbone(Fingerprint(**header.backbone["fingerprint"]))
        for problem in store.wrong_sizes():
            warnings.warn(str(problem), stacklevel=2)
        return workspace

    @property
    def settings(self) -> Settings:
        """The workspace's settings when this object last read them."""
        return self._live.settings

    @property
    def path(self) -> Path:
        """The workspace's folder."""
        return self._store.path

    @property
    def live(self) -> LiveState:
        """The generation that answers, and how it is replaced; for servers."""
        return self._live

    @property
    def store(self) -> Store:
        """The workspace's store on disk, with all versions and events."""
        return self._store

    @property
    def backbone(self) -> Backbone:
        """The frozen model with the result of a warm-up or consolidation, if any; loaded on first use."""
        return self._live.now().method.backbone

    @property
    def tasks(self) -> tuple[TaskRecord, ...]:
        """The learned tasks, in order, with all their versions."""
        return self._store.snapshot().tasks

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels learned, task by task."""
        return tuple(label for task in self.tasks for label in task.active.labels)

    @property
    def owners(self) -> dict[str, str]:
        """The name of each label's task."""
        return self._store.snapshot().owners

    # Changing

    def check(self, tasks: Iterable[Task]) -> None:
        """Check that the settings and templates of tasks fit this workspace, without learning them.

        Raises:
            ConfigError: A task does not fit; the message names it.
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
        gate: bool = True,
        needed_since: date | None = None,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Learn a task. A task already learned from the same data is skipped; changed data makes a new version.

        All or nothing: the workspace does not change before the final commit. If the process is killed, learning the
        task again resumes from the last checkpoint.

        Args:
            task: The task.
            evaluate: Whether to evaluate on the test examples of all tasks; the cost grows with the number of tasks.
            gate: Whether to refuse the change if held-out examples show that an earlier label, an earlier task or all
                earlier labels together get worse by more than the margins in the settings (section `gate`). The result
                is then kept as a candidate, which `promote` can make active. False is recorded in the history.
            needed_since: The day from which the new labels were needed; None if they are learned at once. It counts in
                `cost` as freshness.
            wait_seconds: How long to wait while another process changes the workspace; None to wait without limit.
            progress: Called with the name of a stage and the share done, 0 to 1.

        Raises:
            DataError: A label belongs to another task.
            ConfigError: The task's settings or template do not fit.
            GateRefusedError: Earlier answers would get worse; nothing was changed.
            WorkspaceBusyError: Another process is still changing the workspace after `wait_seconds`.
        """
        return self._needed_change(needed_since, learn.learn, "learn", wait_seconds, progress, evaluate, gate, task)

    def rollback(
        self,
        task: str,
        version: int,
        *,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Make another version of a task active; arguments as in `learn`.

        A version learned before a consolidation is learned again from its stored examples, because its module belongs
        to another backbone; `LearnReport.notes` says so. To go back to the module itself, use `restore`.

        Raises:
            UnknownNameError: There is no such task or version.
            DataError: A label of that version now belongs to another task.
        """
        return self._change(rollback.rollback, "rollback", wait_seconds, progress, evaluate, gate, task, version)

    def remove(
        self,
        task: str,
        *,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Evaluation | None:
        """Remove a task with its labels, all its versions, its examples, and its share of the closed-form statistics.

        Generations kept by a consolidation that hold examples of the task are dropped, too. Arguments as in `learn`. A
        learned selector loses the output of the task, but its LoRA, which was trained on the examples, does not change.

        Raises:
            UnknownNameError: There is no such task.
        """
        return self._change(remove.remove, "remove", wait_seconds, progress, evaluate, gate, task)

    def learn_batch(
        self,
        tasks: Iterable[Task],
        *,
        evaluate: bool = True,
        gate: bool = True,
        needed_since: date | None = None,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> list[LearnReport]:
        """Learn several tasks in one change, all or nothing, which is much faster for many small tasks.

        The modules of small tasks share training steps, each on its own examples; statistics, calibration and
        evaluation are done once. Each task gets its own module, version and event in the history, as if it had been
        learned alone, and modules are equal up to rounding. The calibration is fitted once at the end, not after each
        task.

        Args:
            tasks: The tasks; those already learned from the same data are skipped.
            evaluate: As in `ConPET.learn`, once for all; the report of the last task has the evaluation.
            gate: As in `ConPET.learn`.
            needed_since: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Returns:
            A report for each task; the cost is divided by the number of training examples.

        Raises:
            ConfigError: As in `ConPET.learn`; or the method, selector or fusion needs the result of the previous task.
            DataError: As in `ConPET.learn`; or two of the tasks share a name or a label. A label that a new version
                gives up cannot be used by another task in the same change.
            WorkspaceBusyError: As in `ConPET.learn`.
        """
        return self._needed_change(
            needed_since, learn.learn_batch, "learn", wait_seconds, progress, evaluate, gate, list(tasks)
        )

    def learn_stream(
        self,
        stream: Iterable[Task],
        *,
        batch: int = 1,
        consolidate: Literal["doubling"] | None = None,
        evaluate: bool = True,
        gate: bool = True,
        needed_since: date | None = None,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Iterator[LearnReport]:
        """Learn tasks in order, yielding a report for each.

        Args:
            stream: The tasks.
            batch: Number of tasks to learn in each change (see `learn_batch`), 1 or more.
            consolidate: "doubling" to consolidate after a change whenever the number of training examples has doubled
                (see `consolidation_due`), so that each example takes part in about two consolidations. The report of
                the last task has the result; its notes say if a consolidation was not possible or not kept.
            evaluate: As in `ConPET.learn`, after each change.
            gate: As in `ConPET.learn`.
            needed_since: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            ConfigError: `batch` is below 1, or the workspace cannot be consolidated; other errors as in `learn_batch`.
        """
        if not isinstance(batch, int) or batch < 1:
            raise ConfigError(f"batch={batch!r}: give a whole number, 1 or more")
        if consolidate not in (None, "doubling"):
            raise ConfigError(f"consolidate={consolidate!r}: give 'doubling', or leave it out")
        if consolidate and (blocker := consolidation_blocker(self.settings)):
            raise ConfigError(f"consolidate={consolidate!r}: {blocker}. Nothing was learned")
        options: dict[str, Any] = {
            "evaluate": evaluate,
            "gate": gate,
            "wait_seconds": wait_seconds,
            "progress": progress,
        }
        remaining, tried = iter(stream), 0
        while tasks := list(islice(remaining, batch)):
            *earlier, last = self.learn_batch(tasks, needed_since=needed_since, **options)
            if consolidate and self.consolidation_due(tried):
                tried = self.learned_examples
                try:
                    done = self.consolidate(**options)
                    last = replace(last, consolidation=done, consolidation_due=None)
                    last = replace(last, evaluation=done.evaluation) if done.evaluation else last
                except (AccuracyBoundError, DataError) as error:
                    last = replace(last, notes=(*last.notes, str(error)))
            yield from (*earlier, last)

    def extend(
        self,
        examples: Examples | Task,
        *,
        evaluate: bool = True,
        gate: bool = True,
        needed_since: date | None = None,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> list[LearnReport]:
        """Learn more examples of known labels: each of their tasks gets a new version, in one commit per task.

        A new version is learned from the stored examples of its task and the new ones. Inputs that are already stored,
        or given twice, are ignored, so that a second call with the same examples does nothing; `LearnReport.notes` says
        how many.

        Args:
            examples: The new examples, with labels of any tasks.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            needed_since: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Returns:
            A report for each task that owns one of the labels, in the order of the tasks.

        Raises:
            DataError: A label is unknown, an input is stored with another label, or the limited replay memory holds no
                training example of another label of the task.
            ConfigError: The workspace stores no texts (`latent_only`).
        """
        owners = self._change(extend.owners_of, "extend", wait_seconds, None, False, False, examples)
        return [
            self._needed_change(
                needed_since, extend.extend, "extend", wait_seconds, progress, evaluate, gate, task, examples
            )
            for task in owners
        ]

    def learn_mixed(
        self,
        examples: MixedExamples,
        *,
        into: str | None = None,
        seed: int | None = None,
        all_rows: bool = False,
        evaluate: bool = True,
        gate: bool = True,
        needed_since: date | None = None,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> list[LearnReport]:
        """Learn examples of known and new labels: new versions of the known tasks, and a new task.

        Examples of known labels are added to their tasks as in `extend`. Those of new labels become a task named
        `examples.name`; validation and test sets in which they have no example are split off their training examples.
        Everything is learned in one change, all or nothing, if the method can learn several tasks at once (see
        `learn_batch`). Otherwise each task is a change of its own, the new one last; after an interruption, call it
        again to continue.

        Args:
            examples: The examples (see `read_mixed`).
            into: A known task that gets the new labels, instead of a new task. A single new label needs one, because a
                new task has two labels or more.
            seed: Seed for splitting held-out examples off; by default that of the workspace.
            all_rows: Whether to split nothing off.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            needed_since: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Returns:
            A report for each task, the new one last.

        Raises:
            DataError: There is only one new label, a task named `examples.name` exists already, or as in `extend`.
            ConfigError: There are known labels, and the workspace stores no texts (`latent_only`).
            UnknownNameError: There is no task `into`.
        """
        options = self._mixed_options(into, seed, all_rows)
        return [
            report
            for group in self._mixed_groups(examples, options, wait_seconds)
            for report in self._needed_change(
                needed_since,
                mixed.learn_mixed,
                "learn",
                wait_seconds,
                progress,
                evaluate,
                gate,
                examples,
                options,
                group,
            )
        ]

    def plan_mixed(
        self,
        examples: MixedExamples,
        *,
        into: str | None = None,
        seed: int | None = None,
        all_rows: bool = False,
    ) -> list[Addition]:
        """Return what `learn_mixed` would give to each task, without learning it; arguments and errors as there."""
        options = self._mixed_options(into, seed, all_rows)
        return mixed.planned(self._store.snapshot(), self.settings, [examples], options)[0]

    def _mixed_groups(
        self, examples: MixedExamples, options: mixed.MixedOptions, wait_seconds: float | None
    ) -> list[list[str]]:
        """Return the names of the tasks that get examples: those that are learned in one change together."""
        planned, one_change = self._change(
            mixed.additions, "learn", wait_seconds, None, False, False, examples, options
        )
        names = [addition.task for addition in planned]
        return [names] if one_change else [[name] for name in names]

    def _mixed_options(self, into: str | None, seed: int | None, all_rows: bool) -> mixed.MixedOptions:
        return mixed.MixedOptions(into, None if all_rows else self.settings.seed if seed is None else seed)

    @property
    def review(self) -> Review:
        """The review queue: answers that people look at, their verdicts, and the accuracy that follows from them."""
        return self._review

    def propose(self, item: Input, *, top_n: int = 5) -> tuple[Candidate, ...]:
        """Return the likeliest labels for an input, best first, without recording them as a prediction.

        Args:
            item: As for `predict`.
            top_n: How many, 1 or more.

        Raises:
            DataError: It cannot be predicted, or no task was learned.
        """
        answer = Engine(self._live).predict([item], top_n=top_n)[0]
        return (Candidate(answer.label, answer.score, answer.task), *answer.runners_up)

    def plan_reviewed(self, *, into: str | None = None, name: str | None = None) -> ReviewPlan:
        """Return what `learn_reviewed` would learn, and what it would leave out; arguments and errors as there."""
        options = self._mixed_options(into, None, False)
        return review.reviewed_examples(self._store, self.settings, self._review.queue, options, name).plan

    def learn_reviewed(
        self,
        *,
        into: str | None = None,
        name: str | None = None,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> list[LearnReport]:
        """Learn what was reviewed: right labels become training examples of the next versions of their tasks.

        It is learned as by `learn_mixed`. Items are marked with the generation that learned them, and none is learned
        twice, also after a kill or a refusal of the gate. Items that cannot be learned wait; `plan_reviewed` says why.

        Args:
            into: A known task that gets labels which reviewers introduced.
            name: Name of a new task for them. Without either, their items wait.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Returns:
            A report for each task; empty if there is nothing to learn.

        Raises:
            ConfigError: Both `into` and `name` are given.
            DataError: The new labels cannot be learned in this way; see `learn_mixed`.
            UnknownNameError: There is no task `into`.
            GateRefusedError: As in `ConPET.learn`.
        """
        if into is not None and name is not None:
            raise ConfigError("new labels go into a known task (into) or a new one (name); give one of the two")
        self._review.book()
        options, queue = self._mixed_options(into, None, False), self._review.queue
        reviewed = review.reviewed_examples(self._store, self.settings, queue, options, name)
        if reviewed.examples is None:
            return []
        token, reports = secrets.token_hex(8), []
        groups = self._mixed_groups(reviewed.examples, options, wait_seconds)
        queue.begin_learning(token, reviewed.tasks)
        for group in groups:
            learned = self._change(
                review.learn_reviewed,
                "learn",
                wait_seconds,
                progress,
                evaluate,
                gate,
                token,
                reviewed.examples,
                options,
                group,
            )
            for report in learned:
                queue.learned(token, report.task, self._store.generation())
            reports += learned
        return reports

    def forget(
        self,
        rows: Iterable[Input] = (),
        *,
        ids: Iterable[Id] = (),
        hashes: Iterable[str] = (),
        labels: Iterable[str] = (),
        tasks: Iterable[str] = (),
        older_than: timedelta | None = None,
        reason: str = "",
        keep_modules: bool = False,
        drop_labels: bool = False,
        dry_run: bool = False,
        key: str | os.PathLike[str] | None = None,
        evaluate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> ForgetReport:
        """Forget rows, labels or tasks: their data, and what was learned from them.

        Every row that matches is forgotten, in all tasks and subsets. The statistics are those without the rows, to the
        bit. What was trained on them is trained again on the other stored examples. Versions and kept generations that
        hold the rows are deleted, so the workspace cannot go back to them. Then caches, logs of jobs and the free
        pages of the database are cleared, every byte is searched for what may be left, and a receipt is written. The
        gate does not apply.

        If the process is killed, the workspace is as before or as after the change; call it again, or
        `finish_forgetting`, to complete the deletion.

        Args:
            rows: Inputs as for `predict`: texts, examples, or mappings; labels and ids in them are ignored.
            ids: Ids of rows, as they were learned.
            hashes: SHA-256 hashes of texts in UTF-8, hexadecimal.
            labels: Names of labels, which go with all their rows.
            tasks: Names of tasks, which go with everything.
            older_than: Forget what was learned longer ago than this, in whole days.
            reason: Why, for the history and the receipt.
            keep_modules: Whether to leave trained modules as they are and to name those that saw the rows instead.
            drop_labels: Whether a label may go with its last training example.
            dry_run: Whether to return what would happen, and to change nothing.
            key: A file with an Ed25519 private key to sign the receipt with (`conpet audit key`).
            evaluate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            ConfigError: Nothing is named, the key cannot be read, or the backbone cannot be tuned again
                (`latent_only`).
            UnknownNameError: There is no such label or task.
            DataError: Nothing matches, a label would go, or the limited replay memory has no training example of a
                label to learn it again.
            WorkspaceBusyError: As in `ConPET.learn`.
        """
        wanted = Wanted(
            inputs_of(require_several(rows, "forget")),
            tuple(ids),
            tuple(hashes),
            tuple(labels),
            tuple(tasks),
            datetime.now(UTC).date() - older_than if older_than is not None else None,
        )

        def plan_of(snapshot: Snapshot, method: Method, state: State) -> forget.ForgetPlan:
            options = {"drop_labels": drop_labels, "keep_modules": keep_modules}
            return forget.planned(self._store, snapshot, method, state, wanted, **options)

        if dry_run:
            live = self._live.now()
            try:
                plan = plan_of(live.snapshot, live.method, live.state)
            except NoMatchError:
                found = forget.recorded(self._log, wanted.inputs)
                if not any(found):
                    raise
                return ForgetReport(True, (), **found._asdict())
            notes = forget.expected(plan, self._store, keep_modules=keep_modules)
            return forget.report_of(plan, keep_modules=keep_modules, dry_run=True, notes=notes)
        sign = self._signer(key)
        former = self.finish_forgetting(key=key, wait_seconds=wait_seconds)
        token, traces = secrets.token_hex(16), []
        cleared = forget.Cleared()

        def start() -> None:
            purge.start(self._store, token)

        def begin(plan: forget.ForgetPlan, method: Method) -> None:
            nonlocal cleared
            traces.append(plan.traces(method.backbone))
            cleared = plan.clear(self._log)
            purge.begin(self._store, token, traces[0])

        try:
            report = self._change(
                forget.forget,
                "forget",
                wait_seconds,
                progress,
                evaluate,
                False,
                plan_of,
                token,
                reason,
                start,
                begin,
                keep_modules=keep_modules,
            )
        except NoMatchError:
            cleared = forget.clear(self._log, wanted.inputs)
            if former is None and not any(cleared):
                raise
            # An interrupted call had forgotten them already, or they were never more than predicted.
            return ForgetReport(False, (), **cleared._asdict(), receipt=former)
        finally:
            purge.ended(self._store, token)  # an error is told to the caller, but a kill to nobody
        if not traces:  # nothing is as old as was asked for
            return report
        with self._store.write("forget", wait_seconds) as writer:
            receipt = purge.finish(self._store, writer, token, traces[0], sign)
        return replace(report, **cleared._asdict(), receipt=receipt)

    def finish_forgetting(
        self, *, key: str | os.PathLike[str] | None = None, wait_seconds: float | None = None
    ) -> Mapping[str, Any] | None:
        """Complete a `forget` that was interrupted after its commit, or that other processes still kept from deleting.

        Args:
            key: As in `forget`.
            wait_seconds: As in `ConPET.learn`.

        Returns:
            The receipt, or None if there was nothing to complete.
        """
        if unfinished(self._store) is None:
            return None
        sign = self._signer(key)
        with self._store.write("forget", wait_seconds) as writer:
            token = unfinished(self._store)
            return None if token is None else purge.finish(self._store, writer, token, None, sign)

    @property
    def forgetting(self) -> bool:
        """Whether a `forget` was interrupted, or still waits for other processes: see `finish_forgetting`."""
        return unfinished(self._store) is not None

    def _signer(self, key: str | os.PathLike[str] | None) -> Callable[[bytes], str] | None:
        """Return what signs a receipt, after reading the key."""
        if key is None:
            return None
        from conpet.commands.checkpoint import private_key

        private = private_key(Path(key).expanduser())
        return lambda text: private.sign(text).hex()

    def rename(
        self,
        old: str,
        new: str,
        *,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Rename a label: a new version of its task with the same weights, without training.

        Older versions keep the former name and can be rolled back to.

        Raises:
            UnknownNameError: There is no label `old`.
            DataError: The label `new` already exists.
        """
        return self._change(
            rename.rename, "rename", wait_seconds, progress, evaluate, gate, label_name(old), label_name(new)
        )

    def retire(
        self,
        label: str,
        *,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Remove a label with its examples, its output and exactly its share of the statistics, without training.

        The task gets a new version without the label. All its older versions are deleted because they hold examples of
        the label, and so are versions of other tasks that once had the label, and generations kept by a consolidation
        that hold any of them. The module was trained with the label and
        is not trained again.

        Raises:
            UnknownNameError: There is no such label.
            ConfigError: It is the last label of its task.
        """
        return self._change(retire.retire, "retire", wait_seconds, progress, evaluate, gate, label_name(label))

    def split_label(
        self,
        label: str,
        examples: Examples | Task,
        *,
        replace: bool = False,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> LearnReport:
        """Replace a label by finer ones: its task is learned again, as a new version.

        Stored examples of the label that are also in `examples` get their finer label and stay in their subset
        (training, validation, test); the others are dropped, and `LearnReport.notes` says how many.

        Args:
            label: The label to split.
            examples: Examples of two or more finer labels; one of them may have the former name.
            replace: Whether to drop all stored examples of the label if `examples` contains none of them.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            UnknownNameError: There is no such label.
            DataError: A finer label already exists or has no training example; an input is stored under a label other
                than `label`; no input is stored under `label`, without `replace`; or the limited replay memory holds no
                training example of another label of the task.
            ConfigError: The workspace stores no texts (`latent_only`).
        """
        name = label_name(label)
        return self._change(
            split_label.split_label, "split", wait_seconds, progress, evaluate, gate, name, examples, replace=replace
        )

    def upgrade(
        self,
        method: str = "dynamic",
        *,
        fusion: str = "paper",
        selector: str | None = None,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Evaluation | None:
        """Change a workspace with one module for all tasks to a module for each new task.

        The present module is frozen and serves the labels learned so far; a selector chooses between it and the modules
        of later tasks. With the fusion "paper", predictions do not change until the next task is learned, and the
        relative scores of the old labels never change.

        Args:
            method: The new method; only "dynamic" is possible.
            fusion: The new fusion; "calibrated" changes predictions immediately.
            selector: The new selector, which must need no training; None keeps the one in the settings.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            ConfigError: The workspace's method has no module to freeze, or is already dynamic; or there are no tasks.
        """
        return self._change(
            upgrade.upgrade, "upgrade", wait_seconds, progress, evaluate, gate, method, fusion, selector
        )

    def merge(
        self,
        tasks: Sequence[str],
        *,
        bound: float = 1.0,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> MergeReport:
        """Replace the modules of several tasks by one module, trained on all their stored examples.

        The tasks keep their labels, examples and versions. Training takes the sum of their steps. The replaced modules
        are deleted; older versions keep theirs.

        Args:
            tasks: Names of two or more tasks.
            bound: Largest accepted fall of the accuracy on their validation examples, among all labels of the
                workspace, in points.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            AccuracyBoundError: The accuracy would fall by more than `bound`; nothing was changed.
            DataError: A task has no validation or no training examples.
            ConfigError: The method is not dynamic, or the tasks already share a module.
        """
        return self._change(merge.merge, "merge", wait_seconds, progress, evaluate, gate, tasks, bound)

    def consolidate(
        self,
        *,
        bound: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        tuned: TunedBackbones | None = None,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> ConsolidationReport:
        """Tune the backbone on the stored examples of all tasks, and learn everything again over it.

        A LoRA on all layers is trained on the labels of all tasks, over the original weights, and folded into the
        backbone. Then the statistics of all active versions are computed again, one shared module for all labels is
        trained, and the fusion is calibrated. Tasks learned later get modules of their own. The result is kept only if
        it is no worse on stored validation examples, and the generation before it can be gone back to (`restore`). If
        the process is killed, calling it again resumes from the last checkpoint.

        With `consolidation.layers="top"` the backbone and all statistics stay as they are, and only the shared module
        is trained: it takes less time, needs no stored texts, and older versions keep their modules.

        Args:
            bound: Largest accepted fall of the accuracy on validation examples, among all labels, in points.
            settings: Fields of the section `consolidation` that differ from the workspace's, for example
                `{"epochs": 10}`.
            tuned: Takes over the LoRA from an earlier consolidation with the same examples, settings and seed, also of
                another workspace that was given the same object.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            AccuracyBoundError: The accuracy would fall by more than `bound`; nothing was changed.
            DataError: No task has validation examples, or a label has no stored training example.
            ConfigError: The method is static, the workspace stores no texts (`latent_only`, for all layers), it has no
                labels, or a given setting has no effect.
        """
        return self._change(
            consolidate.consolidate, "consolidate", wait_seconds, progress, evaluate, gate, bound, settings or {}, tuned
        )

    def consolidation_due(self, since: int = 0) -> str | None:
        """Return why a consolidation is due, with the cost and gain of the last one; None if it is not due.

        It is due when the number of training examples has doubled since the last one, kept or not, or when two tasks
        were learned and none was tried. `learn` never consolidates.

        Args:
            since: Number of training examples (`learned_examples`) when one was last found impossible.
        """
        found = consolidate.due(self._store, self._store.snapshot(), since)
        return None if found is None else str(found)

    @property
    def learned_examples(self) -> int:
        """Number of training examples that the active versions of all tasks were learned from."""
        return consolidate.learned_examples(self._store.snapshot())

    def verify_history(self, heads: Sequence[Head] = ()) -> list[Break]:
        """Check that the history, what it recorded and the record of predictions are unchanged, byte by byte.

        Args:
            heads: Values of `history_head` that were noted elsewhere. Without one, a history that was written anew as a
                whole, or cut off at its end, cannot be told from the true one.

        Returns:
            The differences; empty if there are none.
        """
        return audit.verify_workspace(self._store, heads, self._log, self._backbone_name)

    def history_head(self) -> Head:
        """Return numbers and digests of the last event, action and recorded prediction; they stand for all before."""
        return audit.head(self._store, self._log)

    @property
    def actions(self) -> ActionLog:
        """What people did beside the changes of the history: keys, jobs, review; see `ActionLog`."""
        return audit.trail(self._store, self._log)

    def trace(self, task: str, version: int | None = None) -> dict[str, Any]:
        """Return what is recorded of a version of a task: who made it, when, from which data, and what happened to it.

        Args:
            task: Name of the task, as an answer names it; it may have been removed since.
            version: Its version; None for the active one.

        Returns:
            A JSON-ready dictionary, as `conpet audit trace --json` prints it.

        Raises:
            UnknownNameError: There was no such task or version.
        """
        return audit.trace(self._store, task, version, self._log)

    @property
    def prediction_log(self) -> PredictionLog:
        """The record of predictions; empty unless `set_log` or the setting `log.predictions` turned it on."""
        return self._log

    def set_log(
        self,
        predictions: Literal["off", "hash", "text"] | None = None,
        *,
        keep_days: int | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        """Set what is recorded of predictions; what is not given does not change. Recorded entries stay.

        Args:
            predictions: "off"; "hash", which records each prediction with a keyed hash of its input; or "text", which
                also records the input itself.
            keep_days: Days after which an entry is deleted; 0 to keep all.
            wait_seconds: As in `ConPET.learn`.

        Raises:
            ConfigError: Nothing is given, or a value is out of range.
        """
        prediction_log.set_log(self._store, wait_seconds, predictions=predictions, keep_days=keep_days)

    def trace_request(self, request_id: str) -> list[dict[str, Any]]:
        """Return what is recorded of the answers to a request, each with the version that gave it (see `trace`).

        Args:
            request_id: `Prediction.request_id`, or the header `X-Request-ID` of a server's answer.

        Returns:
            JSON-ready dictionaries; empty if nothing was recorded.
        """
        return prediction_log.trace_request(self._store, self._log, request_id)

    def trace_input(self, item: str | Example, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return what is recorded of the answers to an input, newest first; as in `trace_request`.

        Args:
            item: The input, a text or an example.
            limit: Most answers.
        """
        return prediction_log.trace_input(self._store, self._log, item, limit)

    def watch(
        self,
        inputs: Iterable[Input] | None = None,
        *,
        feedback: Iterable[Example] | None = None,
        reference: int | str = REFERENCE,
        window: int | str = WINDOW,
        false_alarm: float = 0.05,
        times: Sequence[datetime] | None = None,
    ) -> WatchReport:
        """Look for changes in what is asked, in what is made of it, and, if right labels are known, in the accuracy.

        Recorded predictions since the last change are watched, in their order: the first are the reference.

        Args:
            inputs: Inputs to watch in their order, instead of recorded predictions. They are answered, not recorded.
            feedback: Inputs with their right labels, found in the record, whose accuracy is reported. The labels are
                kept with the record.
            reference: Number of first inputs that the later ones are compared with, or a duration like "24h".
            window: Number of last inputs whose values are shown, or a duration.
            false_alarm: Probability that there is ever an alarm if nothing changes, over all signals together.
            times: When each of `inputs` came, if that is known.

        Raises:
            ConfigError: A value is out of range.
            DataError: No predictions are recorded, an input cannot be answered, or feedback is not in the record.
        """
        options = WatchOptions.of(false_alarm, reference, window)
        found = None if feedback is None else find_feedback(self._log, feedback).require_some()
        if found is not None:
            keep_feedback(self._log, found)
        if inputs is None:
            report = watch_log(self._store, self._log, options)
        else:
            given = list(require_several(inputs, "watch"))
            if problems := self.check_inputs(given):
                raise DataError(f"{len(problems):,} of {len(given):,} inputs cannot be answered", problems)
            examples = [to_example(item, labelled=False) for item in given]
            report = watch_inputs(self._live.now(), examples, options, times)
        return report if found is None else with_feedback(report, found)

    @property
    def generations(self) -> list[Generation]:
        """The generations that `restore` can go back to, and the present one, oldest first."""
        return generations.generations(self._store)

    def restore(
        self,
        generation: int,
        *,
        evaluate: bool = True,
        gate: bool = True,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Evaluation | None:
        """Make a kept generation the present one again: its tasks, versions, settings and backbone.

        The generation it replaces is kept as well, so that one can go forward again. What was learned in between is not
        part of the restored generation. Other arguments as in `learn`.

        Args:
            generation: Number of a generation in `generations`.
            evaluate: As in `ConPET.learn`.
            gate: As in `ConPET.learn`.
            wait_seconds: As in `ConPET.learn`.
            progress: As in `ConPET.learn`.

        Raises:
            UnknownNameError: The generation is not kept.
        """
        return self._change(restore.restore, "restore", wait_seconds, progress, evaluate, gate, generation)

    @property
    def candidates(self) -> list[CandidateRecord]:
        """The changes that the gate refused, oldest first; `promote` can make those that are not outdated."""
        return self._store.candidates()

    def gate_report(self, candidate: int | None = None, *, settings: Mapping[str, Any] | None = None) -> GateReport:
        """Return what a refused change would do to earlier answers, with the inputs whose answers would change.

        Args:
            candidate: Number of a candidate in `candidates`; None for the newest.
            settings: Fields of the section `gate` to judge it by, where they differ from the workspace's, for example
                `{"task_margin": 8}`.

        Raises:
            UnknownNameError: There is no such candidate.
            CandidateOutdatedError: The workspace has changed since it was made.
            ConfigError: A setting is unknown or wrong.
        """
        return report_of(self._store, newest(self._store) if candidate is None else candidate, settings)

    def promote(
        self,
        candidate: int | None = None,
        *,
        gate: bool = True,
        settings: Mapping[str, Any] | None = None,
        wait_seconds: float | None = None,
    ) -> GateReport:
        """Make a change that the gate refused.

        Args:
            candidate: Number of a candidate in `candidates`; None for the newest.
            gate: Whether the gate judges it again. With False it is made whatever it breaks, which the history records.
            settings: As in `gate_report`; the history records them.
            wait_seconds: As in `ConPET.learn`.

        Returns:
            What it does to earlier answers.

        Raises:
            GateRefusedError: The gate still refuses it; nothing was changed.
            UnknownNameError: There is no such candidate.
            CandidateOutdatedError: The workspace has changed since it was made.
            ConfigError: A setting is unknown or wrong.
        """
        return self._change(
            promote.promote, "promote", wait_seconds, None, False, False, candidate, settings or {}, judge=gate
        )

    def discard(self, candidate: int, *, wait_seconds: float | None = None, actor: str | None = None) -> None:
        """Delete a candidate.

        Args:
            candidate: Number of a candidate in `candidates`.
            wait_seconds: As in `ConPET.learn`.
            actor: Who does it; by default the actor of this object.

        Raises:
            UnknownNameError: There is no such candidate.
        """
        discard(self._store, self.actions, candidate, actor=actor, wait_seconds=wait_seconds)

    def drop_generation(self, generation: int, *, wait_seconds: float | None = None) -> None:
        """Drop a kept generation, which frees its storage; the present generation does not change.

        Args:
            generation: Number of a generation in `generations`.
            wait_seconds: As in `ConPET.learn`.

        Raises:
            UnknownNameError: The generation is not kept.
        """
        with self._store.write("drop", wait_seconds) as writer:
            writer.unpin(generation)
            self.actions.append(self._store.actor, "generation-dropped", generation=generation)

    def tune(
        self,
        task: Task | str,
        *,
        seconds: float | None = None,
        passes: float | None = None,
        trials: int | None = None,
        choices: Mapping[str, Any] | None = None,
        objective: Literal["accuracy", "composite"] = "accuracy",
        dry_run: bool = False,
        wait_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> TuneReport:
        """Search for the design that suits a task, and apply it to the settings for all tasks learned later.

        The search chooses frozen layers, rank, targets, learning rate, epochs and warm-up by accuracy on validation
        examples; once a task was learned, frozen layers and warm-up are fixed. All or nothing, as in `learn`.

        Args:
            task: A task, or the name of a learned one. Its test examples are never read.
            seconds: Limit on wall time.
            passes: Limit on forward-pass equivalents (see `TuneReport.passes`). Within this limit, runs with the same
                seed find the same settings.
            trials: Limit on the number of designs. At least one of the three limits is required.
            choices: Any fields of `conpet.config.DesignChoices`.
            objective: "accuracy" for the cheapest design that is not clearly worse than the best; "composite" for the
                lowest composite score (see `cost`), which needs `prices.wrong_answer` and `prices.answers`.
            dry_run: Whether to leave the settings unchanged.
            wait_seconds: As in `learn`.
            progress: As in `learn`.

        Raises:
            ConfigError: A choice, a limit or the objective is wrong, a price is missing, the method has nothing to
                tune, or Optuna is not installed.
            DataError: The task has no validation examples.
            UnknownNameError: No task of this name was learned.
            WorkspaceBusyError: As in `learn`.
        """
        if objective not in ("accuracy", "composite"):
            raise ConfigError(f"objective={objective!r}: give 'accuracy' or 'composite'")
        limit, design_choices = CostLimit(seconds, passes, trials), DesignChoices.parse(choices or {})
        if dry_run:
            live = self._live.now()
            with spending() as spent, metered() as meter:
                found = search(
                    live.method, live.state, live.snapshot, task, limit, design_choices, progress or ignore, objective
                )
            ledger.book_search(self._store, live.method.backbone, found.task, live.generation, spent(), meter)
            return found
        return self._change(
            tune.tune, "tune", wait_seconds, progress, False, False, task, limit, design_choices, objective
        )

    @property
    def costs(self) -> Costs:
        """Prices, what mistakes cost or the coverage wanted, and what decisions to answer, ask or decline rest on."""
        return costs.shown_costs(self._store)

    def set_costs(
        self,
        *,
        error: float | None = None,
        question: float | None = None,
        refusal: float | None = None,
        coverage: float | None = None,
        unknown_share: float | None = None,
        prices: Mapping[str, Any] | None = None,
        wait_seconds: float | None = None,
    ) -> Costs:
        """Set what mistakes cost, or a coverage in their place: they decide when to answer, ask or decline. Set prices.

        The costs are in any unit; what is not given does not change, but costs end a coverage. Labels and scores do not
        change. A refusal of an input that does belong to a learned label counts as an error. Prices are in money and
        change no answer.

        Args:
            error: Cost of a wrong answer, 0 or more.
            question: Cost of a question with candidates, 0 or more.
            refusal: Cost of a refusal of an input that belongs to nothing learned, 0 or more.
            coverage: Share of inputs of learned labels for which the right label must be the answer or among the
                candidates, above 0 and below 1.
            unknown_share: Expected share of inputs that belong to nothing learned, above 0 and below 1.
            prices: Fields of the section `prices`, for example `{"cpu_hour": 0.05, "wrong_answer": 2}`; None unsets a
                price.
            wait_seconds: As in `ConPET.learn`.

        Raises:
            ConfigError: Nothing is given, a coverage is given with costs, or a value is unknown or out of range.
        """
        return costs.set_costs(
            self._store,
            wait_seconds,
            prices=prices,
            error=error,
            question=question,
            refusal=refusal,
            coverage=coverage,
            unknown_share=unknown_share,
        )

    def add_review(self, minutes: float, *, task: str | None = None, note: str = "") -> None:
        """Enter the working time of people into the ledger, for example for labelling or checking answers.

        Args:
            minutes: The time; a negative number corrects an earlier entry.
            task: The task it was for; None for all.
            note: What was done; no names of labels, which may have to be forgotten.

        Raises:
            ConfigError: `minutes` is 0, or takes back more than was entered.
            UnknownNameError: There is no such task.
            ReadOnlyError: This process may not write the workspace.
        """
        costs.add_review(self._store, minutes, task, note)

    def cost(self) -> CostReport:
        """Return what the workspace has cost: by task, by thousand answers, by point of accuracy and by version.

        It includes what learning everything anew, and a module per task without sharing, would have cost (estimates).
        """
        self._usage.flush()
        return cost_report(self._store)

    def plan(self, stages: str | os.PathLike[str] | None = None) -> StagePlan:
        """Check the stages of introducing the workspace: what is proven, what is missing, and the command for it.

        Args:
            stages: YAML file of stages and conditions; None for those of conpet.

        Raises:
            ConfigError: The file cannot be read, or has an unknown key, check or value.
        """
        self._usage.flush()
        return plan_stages(self._store, stages)

    def export(self, task: str, folder: str | os.PathLike[str], version: int | None = None) -> Path:
        """Export a module with everything needed to use it without conpet, to a new folder.

        Hugging Face PEFT loads the folder if it supports the kind of module. Its README.md says how an input becomes
        logits, and `logits.py` does so with plain transformers and PEFT.

        Args:
            task: The task.
            folder: A folder that does not exist yet.
            version: The version; by default the active one.

        Raises:
            UnknownNameError: There is no such task or version.
            WorkspaceExistsError: `folder` exists.
        """
        snapshot = self._store.snapshot()
        record = snapshot.task(task)
        chosen = record.active if version is None else record.version(version)
        return export_version(chosen, snapshot, Path(folder).expanduser())

    def export_mlflow(self, tracking_uri: str | None = None, experiment: str | None = None) -> MlflowExport:
        """Copy the history to MLflow: a run for each version that has none yet, with settings, results and costs.

        Args:
            tracking_uri: Address of MLflow's server or store; None for MLflow's own default.
            experiment: Name of the experiment; None for the name of the workspace's folder.

        Raises:
            ConfigError: MLflow is not installed (`pip install 'conpet[mlflow]'`), or cannot be reached.
        """
        self._usage.flush()
        return export_mlflow(self._store, tracking_uri, experiment)

    # Predicting

    @overload
    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: Literal["fail", "skip"] = ...,
        tasks: Collection[str] | None = ...,
        explain: bool = ...,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: OnError,
        tasks: Collection[str] | None = ...,
        explain: bool = ...,
    ) -> list[Prediction | Problem]: ...

    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = 3,
        min_score: float = 0.0,
        on_error: OnError = "fail",
        tasks: Collection[str] | None = None,
        explain: bool = False,
    ) -> Sequence[Prediction | Problem]:
        """Predict inputs: texts, examples of any kind, or mappings with the fields of a row ({"text": ...}).

        Args:
            inputs: The inputs; also problems that `read_inputs` yields.
            top_n: Number of labels with scores for each input, 1 or more: the answer and `top_n - 1` runners-up.
            min_score: Answers with a lower score are rejected, 0 to 1: their label is None, and
                `Prediction.rejected` has the answer that was not given.
            on_error: What to do with inputs that cannot be predicted (empty, malformed, of a kind that was not
                learned, or with spans too long for the backbone). "fail" raises an error that names all of them;
                "skip" leaves them out, so there are fewer predictions than inputs; "report" returns a
                `conpet.errors.Problem` in the place of each.
            tasks: Names of the tasks to answer among, whatever other tasks would answer; probabilities are then among
                these. None for all.
            explain: Whether to return why each input was answered as it was (`Prediction.explanation`).

        Raises:
            ConfigError: An argument is out of range, or `tasks` is empty.
            UnknownNameError: One of `tasks` was not learned.
            DataError: An input cannot be predicted and `on_error` is "fail", or no task was learned.
            DamagedModuleError: Some inputs need a module that is damaged on disk, and `on_error` is "fail"; `inputs`
                has their numbers.
            ReadOnlyError: Predictions are to be recorded (`set_log`), but nothing can be written; see `open(log_to=)`.
        """
        return self._engine.predict(
            inputs, top_n=top_n, min_score=min_score, on_error=on_error, tasks=tasks, explain=explain
        )

    @overload
    def predict_stream(
        self,
        inputs: Iterable[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: Literal["fail", "skip"] = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_stream(
        self, inputs: Iterable[Input], *, top_n: int = ..., min_score: float = ..., on_error: OnError
    ) -> Iterator[Prediction | Problem]: ...

    def predict_stream(
        self,
        inputs: Iterable[Input],
        *,
        top_n: int = 3,
        min_score: float = 0.0,
        on_error: OnError = "fail",
    ) -> Iterator[Prediction | Problem]:
        """Predict any number of inputs in constant memory; arguments and errors as in `predict`.

        With `on_error="fail"`, the error comes when the inputs before it have been predicted: an iterator can be read
        only once. Use `check_inputs` to check inputs beforehand.
        """
        return self._engine.predict_stream(inputs, top_n=top_n, min_score=min_score, on_error=on_error)

    def check_inputs(self, inputs: Sequence[Input]) -> list[Problem]:
        """Return a problem for each input that `predict` cannot predict; its `row` is the number of the input from 1.

        Raises:
            DataError: No task was learned.
        """
        return self._engine.check_inputs(inputs)

    def evaluate(self, examples: Iterable[Input] | None = None, *, progress: Progress | None = None) -> Evaluation:
        """Evaluate on the test examples of all tasks, or on other labelled examples; no task and no setting changes.

        Args:
            examples: Labelled examples to evaluate on instead, or mappings with the fields of a row
                ({"text": ..., "label": ...}). Those whose label the workspace has not learned are part of no metric;
                `Evaluation.unknown` lists them.
            progress: As in `learn`.

        Raises:
            DataError: An example is malformed, has no label or is of another kind than its label's task; or no label
                was learned.
        """
        live = self._live.now()
        with spending() as spent, metered() as meter:
            if examples is not None:
                evaluation = evaluate_examples(live, examples, progress or ignore)
            else:
                evaluation = evaluate_workspace(live, self._store, progress or ignore)
        answered = number_tested(evaluation)
        ledger.book_evaluation(self._store, live.method.backbone, live.generation, answered, spent(), meter)
        return evaluation

    def cut_note(self, cut: CutInputs, what: str = "input") -> str | None:
        """Return a sentence on inputs longer than `backbone.max_tokens`, or None if there are none.

        Args:
            cut: The counts, for example `Evaluation.cut` or `CutInputs.of(answer.cut_tokens for answer in answers)`.
            what: What an input is.
        """
        return self.backbone.cut_note(cut, what)

    def close(self) -> None:
        """Release the model, the modules in memory and open files; the next call loads them again."""
        self._usage.flush()
        self._live.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _change(
        self,
        command: Callable[Concatenate[Transaction, Arguments], Result],
        verb: str,
        wait_seconds: float | None,
        progress: Progress | None,
        evaluate: bool,
        gate: bool,
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Run a command as the only writer."""
        return self._needed_change(None, command, verb, wait_seconds, progress, evaluate, gate, *arguments, **options)

    def _needed_change(
        self,
        needed_since: date | None,
        command: Callable[Concatenate[Transaction, Arguments], Result],
        verb: str,
        wait_seconds: float | None,
        progress: Progress | None,
        evaluate: bool,
        gate: bool,
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Run a command as the only writer, for labels that were needed since a day."""
        _check_needed(needed_since)
        with self._store.write(verb, wait_seconds) as writer, metered() as meter, spending() as spent:
            tx = Transaction(self._store, writer, self._live, meter, progress or ignore, evaluate=evaluate, gate=gate)
            outcome = "interrupted"
            try:
                result = command(tx, *arguments, **options)
                outcome = "done"
            except BaseException as error:
                tx.interrupted()
                outcome = "refused" if isinstance(error, AccuracyBoundError) else outcome
                if is_disk_full(error):
                    raise tx.disk_full() from error
                raise
            finally:
                ledger.book_change(tx, verb, spent(), outcome, needed_since=needed_since)
            del tx  # releases the former state, so that objects used only by it can be deleted
            writer.collect()
            return result

    def _check_backbone(self, stored: Fingerprint) -> None:
        wanted = f"expected: fingerprint {stored.digest[:16]}"
        option = "`--backbone FOLDER` (in Python: `ConPET.open(path, backbone=...)`)"
        try:
            present = fingerprint_of(find_folder(self._backbone_name))
        except BackboneError as error:
            raise BackboneError(
                f"the backbone of {self.path} was not found: {error}. If it was moved, name its folder with {option}; "
                f"{wanted}"
            ) from error
        if present != stored:
            parts = ", ".join(stored.differences(present))
            raise BackboneMismatchError(
                f"the workspace {self.path} was made with another {parts} than {self._backbone_name!r} has now "
                f"({wanted}, found: {present.digest[:16]}); name its original backbone with {option}, or make a new "
                "workspace"
            )


def _check_needed(since: date | None) -> None:
    if since is not None and since > datetime.now(UTC).date():
        raise ConfigError(f"needed_since={since}: give a day that is not in the future")
