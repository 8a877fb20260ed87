"""The transaction in which every command runs."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.commands.attempts import Attempt
from conpet.commands.calibrate import held_out_examples
from conpet.commands.candidates import refusal
from conpet.commands.gate import Gate, Judged
from conpet.commands.rows import answers_artifact, recorded
from conpet.config import Settings
from conpet.context import Progress, TrainContext
from conpet.cost import CostLedger, Meter, StageCost
from conpet.errors import DiskFullError, GateRefusedError
from conpet.evaluation.composite import composite, price_of, require_prices
from conpet.evaluation.evaluator import counted, evaluate
from conpet.evaluation.gate import GATE, OFF, REFUSED_AT, GateReport
from conpet.evaluation.history import CACHE, DECISION_COST, TUNE, matrix_of
from conpet.methods.base import Method
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import past_examples, stored_examples
from conpet.state.live import Live, LiveState
from conpet.state.reading import seed_of
from conpet.state.refusal import calibrated, decision_cost, refusal_artifact
from conpet.state.slots import ANSWERS, HELD_OUT, REFUSAL
from conpet.state.state import State
from conpet.store import CandidateChange, Change, EventRecord, Snapshot, Store, VersionRecord, Writer
from conpet.types import Evaluation, LearnReport


class Transaction:
    """One change of a workspace, from its initial state to the commit.

    A command is a function of a transaction: it computes the next state, evaluates it and commits it. Until the commit
    the workspace does not change.

    Args:
        store: The workspace's store.
        writer: The store's only writer.
        live: The live state.
        meter: Counts what the change computes.
        progress: Called with the name of a stage and the share of it that is done.
        evaluate: Whether the change ends with an evaluation of all tasks.
        gate: Whether the change is refused if it makes earlier answers worse.

    Attributes:
        method: The method.
        state: The present state; after the commit, the new one.
        snapshot: The store in that state.
        progress: Called with the name of a stage and the share of it that is done.
        costs: The costs of the stages so far.
        gate_report: What the gate found, once the change is committed or refused; None without the gate.
        tested: Number of test examples that were answered.
        made: The events that were committed.
        before: The labels that could be answered before.
        about: Added to the detail of every event that is committed (JSON-ready).
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        live: LiveState,
        meter: Meter,
        progress: Progress,
        *,
        evaluate: bool,
        gate: bool,
    ) -> None:
        present = live.now()
        if gate and present.method.settings.gate.objective == "composite":  # before anything is trained
            require_prices(present.method.settings.prices, "gate.objective=composite")
        self.store = store
        self.method: Method = present.method
        self.state: State = present.state
        self.snapshot: Snapshot = present.snapshot
        self.costs = CostLedger()
        self._bytes_to_write = 0
        self._calibration: Artifact | None = None
        self._decision_cost: float | None = None
        self._attempt = Attempt(self.costs, progress)
        self.progress: Progress = self._attempt.progress
        self._writer = writer
        self._live = live
        self._evaluate = evaluate
        self._meter = meter
        self._present = present
        self._gate = gate
        self.before = frozenset(self.snapshot.owners)
        self.tested = 0
        self.made: list[EventRecord] = []
        self.about: dict[str, Any] = {}
        self._judged: Judged | None = None
        self.gate_report: GateReport | None = None

    @property
    def settings(self) -> Settings:
        """The workspace's settings."""
        return self.method.settings

    def original_backbone(self) -> Backbone:
        """Return the backbone without a folded module."""
        return self._live.original_backbone()

    def prepare(self, snapshot: Snapshot) -> Live:
        """Return another generation ready to predict, without making it live."""
        return self._live.prepare(snapshot)

    def context(self, *names: str, scratch: str | None = None) -> TrainContext:
        """Return the training context of a change to tasks, with the seed of the first.

        Args:
            names: Names of the tasks; the memory contains the examples of all other tasks.
            scratch: Name of the folder for checkpoints, or None.
        """
        others = [task for task in self.snapshot.tasks if task.name not in names]
        folder = self.store.scratch(scratch) if scratch else None
        if folder is not None:
            self._attempt.begin(folder)
        return TrainContext(
            past_examples(others),
            self.costs,
            seed_of(self.settings.seed, names[0] if names else ""),
            folder,
            self.progress,
        )

    def scratch_name(self, parts: Sequence[str]) -> str:
        """Return the name of the checkpoint folder for these parts, usually digests of data.

        It contains the generation, because training may be resumed only from the state it started in.
        """
        digest = parts[0] if len(parts) == 1 else hashlib.sha256("|".join(parts).encode()).hexdigest()
        return f"{digest[:32]}-{self.snapshot.generation}"

    def count_attempts(self) -> None:
        """Add what interrupted attempts at this change spent in vain to its costs; call it once, before the commit."""
        self.costs.stages.extend(self._attempt.lost())

    def interrupted(self) -> None:
        """Record what this attempt has cost, so that the next one counts it."""
        self._attempt.record(now=True)

    def require_space(self, needed: int) -> None:
        """Check before a change is computed that it can be stored.

        Args:
            needed: Bytes that it will write at least.

        Raises:
            DiskFullError: The disk has less room.
        """
        if shutil.disk_usage(self.store.path).free < needed:
            self._bytes_to_write = needed
            raise self.disk_full()

    def disk_full(self) -> DiskFullError:
        """Return the error to raise when the disk is full."""
        needed = f"at least {self._bytes_to_write / 1e6:,.1f} MB are needed, and " if self._bytes_to_write else ""
        free = shutil.disk_usage(self.store.path).free / 1e6
        return DiskFullError(
            f"not enough space on the disk for {self.store.path}: {needed}{free:,.1f} MB are free. Nothing was "
            "changed. Free some space and run the same command again; `conpet modules remove`, `conpet generations "
            "--drop` and `conpet cache clear` work on a full disk"
        )

    @property
    def attempt(self) -> Attempt:
        """What this attempt at the change has cost, and earlier ones."""
        return self._attempt

    def counted(self, stage: str, total: int) -> Callable[[int], None]:
        """Return a function that takes numbers of examples just done and reports the share done of `total`."""
        return counted(self.progress, stage, total)

    def evaluate(
        self,
        state: State,
        changed: Mapping[str, StoredExamples] | None = None,
        returned: Mapping[str, int] | None = None,
    ) -> Evaluation | None:
        """Compare the next state with the present one for the gate, and calibrate its decisions.

        Then evaluate it if the caller requested an evaluation.

        Args:
            state: The next state.
            changed: Examples that replace the stored ones of tasks, by name, with test labels.
            returned: Numbers of the versions that the change goes back to, by task.
        """
        if self._gate:
            with self.costs.stage("gate"):
                counted = partial(self.counted, "gate")
                gate = Gate(self._present, self.method, state, changed or {}, returned or {}, counted)
                self._judged = gate.judge()
        stored = {task.name: stored_examples(task.active) for task in self.snapshot.tasks} | dict(changed or {})
        with self.costs.stage("decisions"):
            sources = [stored[task.name].without_test_labels() for task in state.tasks]
            self._calibrate(state, sources)
        if not self._evaluate:
            return None
        tests = {task.name: stored[task.name] for task in state.tasks}
        with self.costs.stage("evaluation"):
            evaluation = evaluate_tests(self.method, state, tests, self.progress)
        self.tested = number_tested(evaluation)
        for left_out in evaluation.left_out:
            warnings.warn(str(left_out), stacklevel=2)
        return evaluation

    def _calibrate(self, state: State, sources: Sequence[StoredExamples]) -> None:
        """Calibrate the decisions of the next state, and measure their cost if the composite score counts it."""
        self._calibration = None
        if not state.tasks:
            return
        held_out = held_out_examples(self.method, state, sources)
        calibration = calibrated(self.method, state, held_out)
        self._calibration = refusal_artifact(calibration)
        if self.settings.prices.quality == "decisions":
            decided = state.with_shared({REFUSAL: self._calibration})
            self._decision_cost = decision_cost(self.method, decided, held_out)

    def commit(
        self, state: State | None, evaluation: Evaluation | None, verb: str, task: str | None = None, **change: Any
    ) -> EventRecord:
        """Commit one change; see `commit_all`.

        Args:
            state: The new state, or None to read it from the store (for example after a change of settings).
            evaluation: The evaluation of the new state, or None.
            verb: Name of the change in the history.
            task: The task that changes.
            change: Further fields of `conpet.store.Change`.
        """
        return self.commit_all(state, evaluation, [Change(verb, task, **change)], [self.costs.stages])[0]

    def commit_all(
        self,
        state: State | None,
        evaluation: Evaluation | None,
        changes: Sequence[Change],
        costs: Sequence[Sequence[StageCost]],
    ) -> list[EventRecord]:
        """Commit changes in one step, each with its costs, and make the new state live.

        The evaluation goes into the last event. What changes answers must have been passed to `evaluate` before.

        Raises:
            GateRefusedError: They would make earlier answers worse; they are kept as a candidate.
        """
        about = self.about | (self._about_gate(changes) if state is not None else {})
        complete = []
        for number, (change, stages) in enumerate(zip(changes, costs, strict=True), start=1):
            new = change.new_version
            rows = recorded(
                evaluation if number == len(changes) else None,
                stages,
                parameters=new.parameters if new else 0,
                head_parameters=new.head_parameters if new else 0,
            )
            complete.append(
                replace(
                    change,
                    detail={**change.detail, **about},
                    metrics=rows.metrics,
                    references=rows.references,
                    costs=rows.costs,
                    confusion=rows.confusion,
                )
            )
        complete[-1] = replace(
            complete[-1],
            shared={
                **complete[-1].shared,
                **self._answers(evaluation, complete[-1]),
                **self._decisions(state, complete[-1]),
            },
            detail={
                **complete[-1].detail,
                **self._about_decisions(),
                CACHE: {"hits": self._meter.cache_hits, "asked": self._meter.cache_lookups},
            },
            clear_scratch=tuple(self.store.scratches()),  # all of them started in a former state
        )
        return self._made(complete, state)

    def promote(self, candidate: CandidateChange, gate: Mapping[str, Any]) -> EventRecord:
        """Make the change of a candidate for the present generation.

        Args:
            candidate: The candidate.
            gate: What the history keeps of the gate.
        """
        record = candidate.record
        about = {GATE: {**gate, "promoted": record.number, REFUSED_AT: record.created.isoformat()}}
        changes = [replace(change, detail={**change.detail, **about}) for change in candidate.changes]
        changes[-1] = replace(changes[-1], clear_scratch=tuple(self.store.scratches()))
        event = self._made(changes, None)[-1]
        self._writer.drop_candidate(candidate.record.number)
        return event

    def _made(self, changes: Sequence[Change], state: State | None) -> list[EventRecord]:
        """Commit complete changes, or keep them as a candidate if the gate refuses them."""
        self._bytes_to_write = sum(artifact.tensor_bytes for change in changes for artifact in change.artifacts)
        if state is not None and self.gate_report is not None and self.gate_report.refused:
            raise self._refused(changes, self.gate_report)
        with self._live.committing():
            self.made = events = self._writer.commit_all(changes)
            self.snapshot = self.store.snapshot()
            if state is not None:
                live = self._live.install(self.method, state, self.snapshot)
            else:
                live = self._live.reload(self.snapshot)
        self.method, self.state = live.method, live.state
        return events

    def _answers(self, evaluation: Evaluation | None, change: Change) -> dict[str, Artifact | None]:
        """Return the stored answers to all test and held-out examples after a change.

        Former ones are dropped if they may differ.
        """
        if change.restore is not None or change.verb == TUNE:
            return {}
        answers = {
            ANSWERS: answers_artifact(evaluation.answers) if evaluation and not evaluation.unanswered else None,
            HELD_OUT: self._judged.answers if self._judged is not None else None,
        }
        return {slot: stored for slot, stored in answers.items() if stored is not None or slot in self.snapshot.shared}

    def _about_gate(self, changes: Sequence[Change]) -> dict[str, Any]:
        """Complete the gate's report, and return what the history keeps of it."""
        if self._judged is None:
            return {GATE: OFF}
        names = tuple(change.task for change in changes if change.task is not None)
        self.gate_report = replace(self._scored(self._judged), verb=changes[-1].verb, tasks=names)
        return {GATE: self.gate_report.summary()}

    def _about_decisions(self) -> dict[str, float]:
        return {} if self._decision_cost is None else {DECISION_COST: self._decision_cost}

    def _scored(self, judged: Judged) -> GateReport:
        """Return the gate's report with the composite scores before and after the change, if they are an objective."""
        prices, (examples, before, after) = self.settings.prices, judged.right
        if self.settings.gate.objective != "composite" or not examples:
            return judged.report
        answers = require_prices(prices, "gate.objective=composite")
        spent = self._attempt.own()
        on_gpu = self.method.backbone.on_gpu
        updates = price_of(prices, cpu_seconds=spent.cpu_seconds, gpu_seconds=spent.seconds if on_gpu else 0.0)
        return replace(
            judged.report,
            score_before=composite(prices, error_rate=1 - before / examples, answers=answers),
            score_after=composite(prices, error_rate=1 - after / examples, answers=answers, updates=updates),
        )

    def _refused(self, changes: Sequence[Change], report: GateReport) -> GateRefusedError:
        kept = self._writer.keep_candidate(changes, report.to_json())
        return refusal(report, kept.number, self.store.path, f"The result is kept as candidate {kept.number}")

    def _decisions(self, state: State | None, change: Change) -> dict[str, Artifact | None]:
        """Return what the decisions of the new state are calibrated on; a restored generation has its own."""
        if state is None or change.restore is not None:
            return {}
        if self._calibration is None:
            return {REFUSAL: None} if REFUSAL in self.snapshot.shared else {}
        return {REFUSAL: self._calibration}

    def measured(self, evaluation: Evaluation | None) -> Evaluation | None:
        """Return an evaluation that was committed, with the accuracy matrix of the whole history."""
        return replace(evaluation, matrix=matrix_of(self.store.events())) if evaluation else None

    def report(
        self,
        version: VersionRecord,
        *,
        event: EventRecord | None = None,
        evaluation: Evaluation | None = None,
        cost: Sequence[StageCost] | None = None,
        skipped: bool = False,
        changed_since: bool = False,
        notes: Sequence[str] = (),
    ) -> LearnReport:
        """Return the report of a change to a task."""
        tasks = self.snapshot.tasks
        evaluation = self.measured(evaluation)
        return LearnReport(
            task=version.task,
            version=version.number,
            skipped=skipped,
            changed_since=changed_since,
            labels=len(version.labels),
            tasks_seen=len(tasks),
            labels_seen=sum(len(task.active.labels) for task in tasks),
            evaluation=evaluation,
            forgetting=evaluation.forgetting if evaluation else None,
            backward_transfer=evaluation.backward_transfer if evaluation else None,
            cost=tuple(self.costs.stages if cost is None else cost),
            trainable_parameters=version.parameters,
            head_parameters=version.head_parameters,
            backbone_parameters=self.method.backbone.parameters,
            bytes_stored=event.bytes_stored if event else 0,
            notes=tuple(notes),
            gate=None if skipped else self.gate_report,
        )


def number_tested(evaluation: Evaluation) -> int:
    """Return the number of test examples that an evaluation has answered."""
    return sum(max((one.n for one in metrics.values()), default=0) for metrics in evaluation.tasks.values())


def evaluate_tests(method: Method, state: State, tests: Mapping[str, StoredExamples], progress: Progress) -> Evaluation:
    """Evaluate a state on stored test examples by task."""
    total = sum(examples.count(Subset.TEST) for examples in tests.values())
    return evaluate(method, state, tests, counted(progress, "evaluation", total))
